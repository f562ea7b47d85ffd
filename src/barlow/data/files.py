"""Files that were named one by one, as a source of images."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from barlow import regular
from barlow.data import decoding
from barlow.data.decoded import check_memory
from barlow.data.decoding import Array, UnreadableImage, ValueRange
from barlow.data.folder import FolderSource
from barlow.exits import NoInput
from barlow.printable import printable

__all__ = ["FilesSource", "files_in"]


class FilesSource:
    """The images of some files, in the order in which they were named; a file may be named twice.

    Args:
        paths: of the files. That one of them is not there is found when it is read.
        name: of the whole, for messages.
        root: the folder that relative ones are in; by default the current one.
        channels, max_pixels, value_range: as in `open_source`.
    """

    classes: list[str] | None = None
    labels: np.ndarray | None = None

    def __init__(
        self,
        paths: Sequence[str],
        name: str,
        *,
        root: str = "",
        channels: int = 3,
        max_pixels: int = decoding.MAX_PIXELS,
        value_range: ValueRange | None = None,
    ) -> None:
        self.name = name
        self.paths, self.root = list(paths), root
        self.channels, self.max_pixels, self.value_range = channels, max_pixels, value_range

    def __len__(self) -> int:
        return len(self.paths)

    def locate(self, index: int) -> str:
        return self.paths[index]

    def file(self, index: int) -> str:
        """The path by which a program opens the image."""
        return os.path.join(self.root, self.paths[index])

    def read(self, index: int, min_side: int = 0) -> Array:
        """Decodes the image, by the convention of `barlow.data.decoding`."""
        return decoding.decode(
            self._content(self.file(index)),
            channels=self.channels,
            max_pixels=self.max_pixels,
            min_side=min_side,
            value_range=self.value_range,
        )

    def _content(self, path: str) -> bytes:
        try:
            with open(path, "rb", opener=regular.to_read) as file:
                size = os.fstat(file.fileno()).st_size
                check_memory(f"a file of {size:,} bytes", size, self.max_pixels)  # before it is read
                return file.read()
        except OSError as error:
            raise UnreadableImage(error.strerror or type(error).__name__) from None


def files_in(named: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The files that are named, and in place of a folder all images in it.

    Raises:
        NoInput: one of them does not exist.
    """
    found: list[str] = []
    for given in named:
        each = os.fspath(given)
        try:
            mode = os.stat(each).st_mode
        except OSError as error:
            raise NoInput(f"no image {printable(each)} ({error.strerror}): give image files or folders") from None
        if stat.S_ISDIR(mode):
            folder = FolderSource([each])
            found += [str(Path(each) / folder.locate(i)) for i in range(len(folder))]
        else:
            found.append(each)
    return found
