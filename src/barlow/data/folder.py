"""Folders of images: which files count, in what order, and what their sub-folders say."""

import copy
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from barlow.data import decoding, image_digests, last_words
from barlow.data.counting import Counted, not_shown
from barlow.data.decoded import check_memory
from barlow.data.decoding import Array, Header, Stored, UnreadableImage, ValueRange
from barlow.exits import NoInput
from barlow.printable import printable

READ_EXTENSIONS = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "jif", "mpo", "png", "apng", "webp", "bmp", "dib", "gif", "tif", "tiff"}
)
# These are images too, if foreign ones. They are tried, and listed with the reason if they cannot be read.
_FOREIGN_EXTENSIONS = frozenset(
    """psd psb jp2 j2k jpf jpx jpc jxl avif heic heif ico icns cur tga pcx dcx ppm pgm pbm pnm pfm qoi dds blp sgi rgb
    rgba bw ras sun xbm xpm exr hdr fits fit im msp fli flc eps ps svg pcd ftc ftu gbr cr2 cr3 nef arw dng orf rw2 raf
    """.split()  # noqa: SIM905
)
IMAGE_EXTENSIONS = READ_EXTENSIONS | _FOREIGN_EXTENSIONS
"""Files whose names end so, in upper or lower case, are taken for images. All others are only counted."""

ARRAY_EXTENSIONS = frozenset({"npy", "npz"})
"""NumPy's arrays are images where the folders hold no other images. Beside photos they are labels or features."""

_TRAINING = frozenset({"train", "training"})
_SPLITS = _TRAINING | {"val", "valid", "validation", "test", "testing"}
SPLITS, EMPTY = "sub-folders that look like splits", "sub-folders without images"
"""Names of notes."""

LISTED = "files listed"
"""What is counted while folders are listed."""

COUNTED = 64
"""How many entries of a folder are looked at between two counts: on a slow disk each of them takes milliseconds."""

_NEVER = frozenset({b"thumbs.db", b"desktop.ini"})


class FolderSource:
    """The images in one or several folders and all of their sub-folders.

    The id of an image is its position in the listing, which has the folders in the order given, and within each the
    relative paths sorted as bytes. Hidden files and folders are ignored. Links are followed, but no file or folder is
    listed twice (they are told apart by device and inode), and real ones come before linked ones. Of several hard links
    to a file the first that is met is listed. Only regular files are ever opened.

    The label of an image is the name of the sub-folder, directly below the folder given, that it lies in. There are
    labels only if every image is in such a sub-folder, there are at least two of them, and they do not look like splits
    (train, val, test).
    """

    def __init__(
        self,
        folders: Sequence[str | os.PathLike[str]],
        *,
        channels: int = 3,
        max_pixels: int = decoding.MAX_PIXELS,
        value_range: ValueRange | None = None,
        counted: Counted = not_shown,
    ) -> None:
        if not folders:
            raise ValueError("no folder given: give at least one folder of images")
        self.name = ", ".join(printable(folder) for folder in folders)
        self.channels = channels
        self.max_pixels = max_pixels
        self.value_range = value_range
        self.notes: dict[str, object] = {}
        self._roots = [os.fsencode(folder) for folder in folders]
        for root in self._roots:
            _check_folder(root)
        listing = _Listing(self._roots, counted)
        if not listing.files:
            raise NoInput(_nothing_found(self._roots, listing))
        # All paths in one byte string, with offsets: a list of a million paths takes ten times the memory, per worker.
        self._paths = b"".join(path for _, path, _ in listing.files)
        self._ends = np.cumsum([len(path) for _, path, _ in listing.files])
        self._root_of = np.array([root for root, _, _ in listing.files], np.int32)
        self._bytes = np.array([size for _, _, size in listing.files], np.int64)
        self.digests = image_digests.none_yet(len(listing.files))
        """Of each file that has been read here, its digests (`barlow.data.image_digests`); 0 of the others."""
        self.labels, self.classes = self._read_labels()
        self._note_sub_folders(listing.sub_folders)
        for note, count in listing.notes.items():
            self.notes[note] = count
        if listing.others:
            self.notes["other files, not images, by extension"] = dict(sorted(listing.others.items()))

    def __len__(self) -> int:
        return len(self._ends)

    def seen_with(self, channels: int, value_range: ValueRange | None) -> Self:
        """The same files, not listed again, with other channels and another range of values."""
        seen = copy.copy(self)
        seen.channels, seen.value_range = channels, value_range
        return seen

    def relative_path(self, index: int) -> bytes:
        """The path below its folder, in the bytes of the file system."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index}: the ids of {self.name} are 0 to {len(self) - 1}")
        return self._paths[self._ends[index - 1] if index else 0 : self._ends[index]]

    def locate(self, index: int) -> str:
        """The relative path as text, with the folder in front if there are several.

        Bytes that are not UTF-8 become surrogates (`os.fsdecode`); `printable` turns them into escapes for a person.
        """
        path = self.relative_path(index)
        return os.fsdecode(path if len(self._roots) == 1 else os.path.join(self._roots[self._root_of[index]], path))

    def file(self, index: int) -> str:
        """The path by which a program opens the image; bytes that are not UTF-8 are surrogates, as in `locate`."""
        return os.fsdecode(os.path.join(self._roots[self._root_of[index]], self.relative_path(index)))

    def extension(self, index: int) -> str:
        """The file name's ending in lower case, without the dot."""
        return _extension(self.relative_path(index))

    def read(self, index: int, min_side: int = 0) -> Array:
        """Decodes the image, by the convention of `barlow.data.decoding`."""
        return self.read_with_header(index, min_side)[0]

    def read_with_header(self, index: int, min_side: int = 0) -> tuple[Array, Header]:
        """The pixels and the header."""
        return decoding.decode_with_header(
            self._read_bytes(index),
            channels=self.channels,
            max_pixels=self.max_pixels,
            min_side=min_side,
            value_range=self.value_range,
        )

    def stored(self, index: int) -> Stored | None:
        """The numbers of an image as its file stores them; None where they are 8 bits of grey or colour."""
        return decoding.stored_values(self._read_bytes(index), max_pixels=self.max_pixels)

    def header(self, index: int) -> Header:
        """The header, without decoding the pixels."""
        try:
            with os.fdopen(self._open(index), "rb") as file:
                self.digests[index] = image_digests.of_file(file, os.fstat(file.fileno()).st_size)
                file.seek(0)
                return decoding.read_header(
                    file, channels=self.channels, max_pixels=self.max_pixels, wide=self.value_range is not None
                )
        except OSError as error:
            raise UnreadableImage(_system_reason(error)) from None

    def fingerprint(self) -> str:
        """SHA-256 of all relative paths and file sizes: it changes when the folder is no longer the one of a run."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            digest.update(b"%d\0%s\0%d\n" % (self._root_of[index], self.relative_path(index), self._bytes[index]))
        return digest.hexdigest()

    def _read_bytes(self, index: int) -> bytes:
        try:
            with os.fdopen(self._open(index), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                # The largest pixel has 16 bytes (float RGBA, uncompressed): a larger file is over the pixel limit.
                if size > 16 * self.max_pixels + 2**20:
                    raise UnreadableImage(f"a file of {size:,} bytes for at most {self.max_pixels:,} pixels")
                check_memory(f"a file of {size:,} bytes", size, self.max_pixels)  # before it is read
                data = file.read()
        except OSError as error:
            raise UnreadableImage(_system_reason(error)) from None
        if self.digests[index, 0] == image_digests.UNKNOWN:  # in each epoch of training it is known
            self.digests[index] = image_digests.of_bytes(data)
        return data

    def _open(self, index: int) -> int:
        path = os.path.join(self._roots[self._root_of[index]], self.relative_path(index))
        last_words.decoding(path)
        # If a pipe has taken the place of the file, opening it without O_NONBLOCK would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise UnreadableImage("no longer a regular file")
        return descriptor

    def _note_sub_folders(self, sub_folders: Iterable[bytes]) -> None:
        """Notes splits that are taken together, and folders of classes that have no image."""
        found = sorted(map(os.fsdecode, sub_folders))
        splits = [name for name in found if name.lower() in _SPLITS]
        if len(splits) > 1 and any(name.lower() in _TRAINING for name in splits):
            self.notes[SPLITS] = splits
        if self.classes is not None and (empty := [name for name in found if name not in self.classes]):
            self.notes[EMPTY] = empty

    def _read_labels(self) -> tuple[np.ndarray | None, list[str] | None]:
        firsts = []
        for index in range(len(self)):
            first, separator, _ = self.relative_path(index).partition(os.sep.encode())
            if not separator:
                return None, None
            firsts.append(os.fsdecode(first))
        classes = sorted(set(firsts))
        if len(classes) < 2:
            return None, None
        if {name.lower() for name in classes} <= _SPLITS:
            self.notes["no labels"] = f"the sub-folders {', '.join(classes)} look like splits, not classes"
            return None, None
        position = {name: k for k, name in enumerate(classes)}
        return np.array([position[name] for name in firsts], np.int64), classes


class _Listing:
    """All regular files below the roots. Images are listed as (root, relative path, bytes); the others are counted."""

    def __init__(self, roots: Iterable[bytes], counted: Counted) -> None:
        self.sub_folders: set[bytes] = set()
        """Names of the folders directly below the roots, with images or without."""
        self._counted = counted
        self.files: list[tuple[int, bytes, int]] = []
        self.others: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self._folders: set[tuple[int, int]] = set()
        self._inodes: set[tuple[int, int]] = set()
        self._images = False
        for number, root in enumerate(roots):
            found: list[tuple[bytes, int]] = []
            # Real folders and files first, so that no image is known by the name of a link to it.
            links: list[tuple[bytes, os.stat_result]] = []
            self._walk(root, b"", found, links)
            while links:
                links.sort(key=lambda link: link[0], reverse=True)
                relative, status = links.pop()
                if stat.S_ISDIR(status.st_mode):
                    self._walk(root, relative, found, links)
                elif (status.st_dev, status.st_ino) in self._inodes:
                    self.notes["links to files already listed"] += 1
                else:
                    self._add(relative, status, found)
            self.files.extend((number, path, size) for path, size in sorted(found))
        counted(LISTED, self._met, self._met)
        if self._images:
            arrays = [_extension(path) for _, path, _ in self.files if _extension(path) in ARRAY_EXTENSIONS]
            self.others.update(arrays)
            if arrays:
                self.files = [file for file in self.files if _extension(file[1]) not in ARRAY_EXTENSIONS]

    def _walk(
        self, root: bytes, start: bytes, found: list[tuple[bytes, int]], links: list[tuple[bytes, os.stat_result]]
    ) -> None:
        pending = [start]
        while pending:
            folder = pending.pop()
            absolute = os.path.join(root, folder)
            try:
                status = os.stat(absolute)
                if (status.st_dev, status.st_ino) in self._folders:
                    self.notes["links to folders already visited"] += 1
                    continue
                self._folders.add((status.st_dev, status.st_ino))
                entries = sorted(_entries(absolute), key=lambda entry: entry.name)
            except OSError as error:
                self.notes[f"folders that cannot be opened ({_system_reason(error)})"] += 1
                continue
            if folder and {b"recipe.yaml", b"data.json"} <= {entry.name for entry in entries}:
                self.notes["run folders of barlow"] += 1  # their views.png is not an image of the user's
                continue
            self._counted(LISTED, self._met, None)
            inner = []
            for number, entry in enumerate(entries, 1):
                if number % COUNTED == 0:
                    self._counted(LISTED, self._met, None)
                if entry.name.startswith(b".") or entry.name.lower() in _NEVER:
                    self.notes["hidden files and folders"] += 1
                    continue
                relative = os.path.join(folder, entry.name)
                try:
                    status = entry.stat()
                except OSError:
                    self.notes["links that lead nowhere"] += 1
                    continue
                if entry.is_symlink():
                    if stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
                        links.append((relative, status))
                elif stat.S_ISDIR(status.st_mode):
                    inner.append(relative)
                elif stat.S_ISREG(status.st_mode):
                    self._add(relative, status, found)
                if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
                    self.notes["pipes, sockets and devices"] += 1
                elif stat.S_ISDIR(status.st_mode) and not folder:
                    self.sub_folders.add(relative)
            pending.extend(reversed(inner))  # so that the first is looked into first

    @property
    def _met(self) -> int:
        return len(self._inodes) + sum(self.others.values())

    def _add(self, relative: bytes, status: os.stat_result, found: list[tuple[bytes, int]]) -> None:
        extension = _extension(relative)
        if status.st_nlink > 1 and (status.st_dev, status.st_ino) in self._inodes:
            self.notes["hard links to files already listed"] += 1
        elif extension in IMAGE_EXTENSIONS | ARRAY_EXTENSIONS:
            self._images = self._images or extension in IMAGE_EXTENSIONS
            self._inodes.add((status.st_dev, status.st_ino))
            found.append((relative, status.st_size))
        else:
            self.others[extension or "(none)"] += 1


def _entries(folder: bytes) -> Iterator[os.DirEntry[bytes]]:
    with os.scandir(folder) as entries:
        yield from entries


def _extension(path: bytes) -> str:
    return printable(os.path.splitext(path)[1][1:].lower())


def _system_reason(error: OSError) -> str:
    return error.strerror or type(error).__name__  # the path is left out, because it is shown beside the reason


def _check_folder(root: bytes) -> None:
    shown = printable(root)
    if os.path.isdir(root):
        return
    if os.path.exists(root):
        raise NoInput(f"{shown} is a file, not a folder: give the folder that holds the images")
    known = Path(os.fsdecode(root))
    while known != known.parent and not known.is_dir():
        known = known.parent
    raise NoInput(f"no folder {shown} ({printable(known)} is the last part that exists): check the path")


def _nothing_found(roots: list[bytes], listing: _Listing) -> str:
    shown = ", ".join(printable(root) for root in roots)
    seen = ", ".join(f"{count} .{kind}" for kind, count in listing.others.most_common(3))
    hint = f"; found only {seen}" if seen else ""
    try:
        above = [entry for entry in _entries(os.path.dirname(os.path.abspath(roots[0]))) if entry.is_file()]
    except OSError:
        above = []
    if any(_extension(entry.name) in IMAGE_EXTENSIONS for entry in above):
        hint += "; there are images one level up"
    looked_for = ".jpg .jpeg .png .webp .bmp .gif .tif .tiff .npy .npz"
    return f"no images in {shown} (looked for {looked_for}, sub-folders included){hint}"
