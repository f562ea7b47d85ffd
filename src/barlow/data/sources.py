"""Where images come from: a folder, several folders, or one of the named sets."""

import contextlib
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from barlow.data.captioned import lists_captions, read_captions
from barlow.data.counting import Counted, not_shown
from barlow.data.decoding import MAX_PIXELS, Array, ValueRange
from barlow.data.folder import FolderSource
from barlow.data.listed import read_csv
from barlow.data.names import DOWNLOADED, NAMED, SPLITS
from barlow.data.stored import widened, with_channels
from barlow.exits import NoInput
from barlow.network import check_reachable
from barlow.printable import one_line, printable

if TYPE_CHECKING:
    from barlow.data.captions import OfImages

CACHE = Path("~/.cache/barlow")
"""Where downloaded sets are kept, unless the caller names another place."""

FoldersOrName = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""How a user says which images: a folder, several folders, or the name of a set ("cifar10", "cifar10:test")."""


@runtime_checkable
class ImageSource(Protocol):
    """Images in a fixed order. The id of an image is its position in that order, and never changes."""

    name: str
    classes: list[str] | None

    @property
    def labels(self) -> np.ndarray | None:
        """Class numbers, (N,) int64. With several labels an image: (N, k) uint8 of zeros and ones. None without any."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int, min_side: int = 0) -> Array:
        """The pixels of one image, (h, w, c) uint8; uint16 of a set that has a range of values.

        Args:
            index: which image.
            min_side: if positive, the image may come back smaller, as long as its shorter side keeps this many pixels.
                Decoding a large JPEG then takes a fraction of the time.

        Raises:
            UnreadableImage: the file cannot become pixels.
        """
        ...

    def locate(self, index: int) -> str:
        """Where a person finds the image: a relative path, or "shapes[12]" in a set without files."""
        ...


def named_set(text: str) -> str | None:
    """The set that a text names, as "digits" and "digits:test" both name digits; None if it can only be a folder."""
    name, colon, _ = text.rpartition(":")
    name = name if colon else text
    return name if name in NAMED else None


def places(images: FoldersOrName) -> list[str]:
    """Where images are, for whoever reads them again from elsewhere: the whole paths of folders, or the set's name."""
    if isinstance(images, str) and named_set(images):
        return [images]
    folders = [images] if isinstance(images, str | os.PathLike) else images
    return [str(f) if named_set(str(f)) and len(folders) == 1 else os.path.abspath(os.fspath(f)) for f in folders]


def open_source(
    images: FoldersOrName | ImageSource,
    *,
    split: str = "train",
    channels: int = 3,
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
    root: str | os.PathLike[str] | None = None,
    counted: Counted = not_shown,
) -> ImageSource:
    """Opens the images that a user asked for.

    Args:
        images: a folder, a list of folders, a CSV file that lists images (`barlow.data.listed.read_csv`) or captions
            of images (`barlow.data.captioned.read_captions`), or the name of a set (`barlow.data.names`). NAME:train
            and NAME:test choose a split, whatever `split` says. A folder that has the name of a set is written ./NAME.
            A source is returned as it is.
        split: the split of a named set. Folders have no splits.
        channels: 3 for RGB, 1 for grey; any other number of bands has to be in the files.
        max_pixels: an image with more pixels than this is refused, from its header.
        value_range: the numbers that become black and white in 16-bit pixels; None for pixels of 8 bits.
        root: where downloaded sets are kept; `CACHE` by default.
        counted: told how many files have been listed.

    Raises:
        ValueError: there is no set and no folder of that name, or the folder has no images.
    """
    if channels < 1:
        raise ValueError(f"channels={channels}: give 3 (RGB), 1 (grey), or the number of bands that the files have")
    if isinstance(images, list | tuple) and len(images) == 1:
        images = images[0]
    if isinstance(images, str) and (name := named_set(images)):
        _, colon, chosen = images.rpartition(":")
        split = chosen if colon else split
        if split not in SPLITS:
            raise ValueError(f"split {split!r} of {name}: the splits are {' and '.join(SPLITS)}")
        _check_of_named(name, channels)
        return _open_named(
            name, split, channels, value_range is not None, Path(root if root is not None else CACHE).expanduser()
        )
    if isinstance(images, str | os.PathLike):
        path = os.fspath(images)
        if not os.path.exists(path) and os.sep not in path:
            near = difflib.get_close_matches(path, NAMED, 1)
            meant = f"; did you mean {near[0]}?" if near else f", or one of {', '.join(NAMED)}"
            raise NoInput(f"no folder or data set {printable(path)!r}: give a folder of images{meant}")
        images = [images]
    elif isinstance(images, ImageSource):
        return images
    if len(images) == 1 and lists_captions(file := Path(os.fspath(images[0]))):
        return read_captions(file, channels=channels, max_pixels=max_pixels, value_range=value_range, counted=counted)
    if len(images) == 1 and file.suffix.lower() == ".csv" and file.is_file():
        return read_csv(file, channels=channels, max_pixels=max_pixels, value_range=value_range, counted=counted)
    if any(isinstance(folder, str) and named_set(folder) for folder in images) and len(images) > 1:
        raise ValueError(f"{', '.join(map(printable, images))}: give folders, or one named set alone")
    return FolderSource(images, channels=channels, max_pixels=max_pixels, value_range=value_range, counted=counted)


def seen_with(source: ImageSource, channels: int, value_range: ValueRange | None) -> ImageSource:
    """A source that `open_source` has given, with other channels and another range of values. Nothing is listed again.

    Raises:
        ValueError: a named set has no such number of channels.
    """
    if isinstance(source, FolderSource):
        return source.seen_with(channels, value_range)
    assert isinstance(source, WithChannels)
    _check_of_named(source.name.partition(":")[0], channels)
    return WithChannels(source.source, channels, value_range is not None)


def _check_of_named(name: str, channels: int) -> None:
    if channels not in (1, 3):
        raise ValueError(f"channels={channels}: {name} has 3 channels (RGB) or 1 (grey)")


class ArraySource:
    """A source whose images are in memory already, as one (N, h, w, c) uint8 array."""

    def __init__(
        self, name: str, images: Array, labels: np.ndarray | None = None, classes: list[str] | None = None
    ) -> None:
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3):
            raise ValueError(
                f"images of shape {images.shape} and type {images.dtype}: give (N, height, width, 1 or 3) uint8"
            )
        if labels is not None and len(labels) != len(images):
            raise ValueError(f"{len(labels)} labels for {len(images)} images: give one for each")
        self.name = name
        self.images = images
        self.labels = labels
        self.classes = classes

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int, min_side: int = 0) -> Array:
        return self.images[index]

    def locate(self, index: int) -> str:
        return f"{self.name}[{index}]"


class WithChannels:
    """The images of another source, with one channel (grey) or three (RGB), and in 16 bits if `wide`."""

    def __init__(self, source: ImageSource, channels: int, wide: bool = False) -> None:
        self.source = source
        self.channels, self.wide = channels, wide
        self.name, self.classes = source.name, source.classes

    @property
    def labels(self) -> np.ndarray | None:
        return self.source.labels  # not in __init__: for its labels, shapes_multi has to draw all of its images

    @property
    def captions(self) -> "OfImages | None":
        from barlow.data.captions import captions_of

        return captions_of(self.source)

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int, min_side: int = 0) -> Array:
        image = with_channels(self.source.read(index, min_side), self.channels)
        return widened(image) if self.wide else image

    def locate(self, index: int) -> str:
        return self.source.locate(index)


def _open_named(name: str, split: str, channels: int, wide: bool, root: Path) -> ImageSource:
    source: ImageSource
    if name in ("shapes", "shapes_multi"):
        source = importlib.import_module("barlow.data.shapes").ShapesSource(split, multi_object=name == "shapes_multi")
    elif name == "shapes_captions":
        source = importlib.import_module("barlow.data.captioned_shapes").CaptionedShapes(split)
    elif name == "digits":
        source = _digits(split)
    else:
        source = _cifar(name, split, root)
    return WithChannels(source, channels, wide)


def _digits(split: str) -> ImageSource:
    """scikit-learn's handwritten digits. Every fifth image of each class is a test image.

    The split is written out here, so that no version of scikit-learn can change it.

    Source: scikit-learn's copy of Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998), with pixel
    values from 0 to 16.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    labels = data.target.astype(np.int64)
    rank = np.zeros(len(labels), np.int64)  # the position of each image among those of its class
    for k in np.unique(labels):
        rank[labels == k] = np.arange(np.sum(labels == k))
    chosen = (rank % 5 == 4) == (split == "test")
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)[:, :, :, None]
    return ArraySource(f"digits:{split}", images[chosen], labels[chosen], [str(k) for k in range(10)])


def missing_set(text: str, root: str | os.PathLike[str] | None = None) -> str | None:
    """The set that a text names and that would have to be downloaded; None for one that is here, and for folders."""
    name = named_set(text)
    if name not in DOWNLOADED:
        return None
    kind = _cifar_class(name)
    folder = Path(root if root is not None else CACHE).expanduser() / kind.base_folder
    files = (file for file, _ in (*kind.train_list, *kind.test_list))
    return None if all((folder / file).is_file() for file in files) else name


def _cifar_class(name: str) -> Any:
    from torchvision import datasets

    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]


def _cifar(name: str, split: str, root: Path) -> ImageSource:
    kind = _cifar_class(name)
    try:
        try:
            data = kind(str(root), train=split == "train")
        except RuntimeError:  # it is not there, or not whole
            check_reachable(kind.url)
            # torchvision prints the progress of a download to stdout, where only results belong.
            with contextlib.redirect_stdout(sys.stderr):
                data = kind(str(root), train=split == "train", download=True)
    except Exception as error:  # a download can fail with nearly any type of error
        raise ValueError(
            f"{name} is not in {printable(root)} and cannot be downloaded ({one_line(error)}): "
            f"put {kind.filename} there, or give a folder of images"
        ) from None
    return ArraySource(f"{name}:{split}", np.asarray(data.data), np.array(data.targets, np.int64), list(data.classes))
