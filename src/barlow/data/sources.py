"""Where images come from: a folder, several, or one of the named sets."""

import contextlib
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from barlow.data.decoding import MAX_PIXELS, Array
from barlow.data.folder import FolderSource, printable
from barlow.data.names import NAMED, SPLITS

CACHE = Path("~/.cache/barlow")
"""Where downloaded sets are kept, unless the caller names another place."""

Spec = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@runtime_checkable
class Source(Protocol):
    """Images by position in a listing that never changes: an image's id is its position."""

    name: str
    classes: list[str] | None

    @property
    def labels(self) -> np.ndarray | None:
        """(N,) int64 class numbers, (N, k) uint8 for several labels an image, or None."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int, min_side: int = 0) -> Array:
        """Pixels as (h, w, c) uint8; `min_side` allows a decoder to stop at a smaller size with that shorter side.

        Raises:
            UnreadableImage: the file cannot become pixels.
        """
        ...

    def locate(self, index: int) -> str:
        """How a person finds the image: a relative path, or "shapes[12]"."""
        ...


def names() -> dict[str, str]:
    """The sets known by name, each with a line on what it is."""
    return dict(NAMED)


def open_source(
    spec: "Spec | Source",
    *,
    split: str = "train",
    channels: int = 3,
    max_pixels: int = MAX_PIXELS,
    root: str | os.PathLike[str] | None = None,
) -> Source:
    """Opens the images that a user asked for.

    Args:
        spec: a folder, a list of folders, the name of a set (see `names`), or NAME:train or NAME:test, which goes
            before `split`. A folder that is called like a set is meant by ./NAME. A source is passed through.
        split: of a named set; folders have none.
        channels: 3 for RGB, 1 for grey.
        max_pixels: larger images are refused by their header.
        root: where downloaded sets are kept; `CACHE` by default.

    Raises:
        ValueError: nothing of that name, no such folder, or a folder without images.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels={channels}: images are read with 3 channels (RGB) or 1 (grey)")
    if isinstance(spec, list | tuple) and len(spec) == 1:
        spec = spec[0]
    if isinstance(spec, str | os.PathLike):
        name, colon, chosen = os.fspath(spec).rpartition(":")
        name, split = (name, chosen) if colon and name in NAMED else (os.fspath(spec), split)
        if isinstance(spec, str) and name in NAMED:
            if split not in SPLITS:
                raise ValueError(f"split {split!r} of {name}: the splits are {' and '.join(SPLITS)}")
            return _open_named(name, split, channels, Path(root if root is not None else CACHE).expanduser())
        if not os.path.exists(spec) and os.sep not in name:
            near = difflib.get_close_matches(name, NAMED, 1)
            meant = f"; did you mean {near[0]}?" if near else f", or one of {', '.join(NAMED)}"
            raise ValueError(f"no folder or data set {printable(name)!r}: give a folder of images{meant}")
        spec = [spec]
    elif isinstance(spec, Source):
        return spec
    if any(isinstance(folder, str) and folder.partition(":")[0] in NAMED for folder in spec) and len(spec) > 1:
        raise ValueError(f"{', '.join(map(printable, spec))}: give folders, or one named set alone")
    return FolderSource(spec, channels=channels, max_pixels=max_pixels)


class ArraySource:
    """Images that are already in memory, (N, h, w, c) uint8."""

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
    """Another source's images, with one grey channel or three."""

    def __init__(self, source: Source, channels: int) -> None:
        self.source = source
        self.channels = channels
        self.name, self.classes = source.name, source.classes

    @property
    def labels(self) -> np.ndarray | None:
        return self.source.labels  # a generated set draws its images for them: only when asked

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int, min_side: int = 0) -> Array:
        image = self.source.read(index, min_side)
        if image.shape[2] == self.channels:
            return image
        if self.channels == 3:
            return np.repeat(image, 3, axis=2)
        # ITU-R 601 luma in 16-bit fixed point, as Pillow's convert("L") has it.
        luma = image.astype(np.uint32) @ np.array([19_595, 38_470, 7_471], np.uint32)
        return ((luma + 32_768) >> 16).astype(np.uint8)[:, :, None]

    def locate(self, index: int) -> str:
        return self.source.locate(index)


def _open_named(name: str, split: str, channels: int, root: Path) -> Source:
    source: Source
    if name in ("shapes", "shapes_multi"):
        source = importlib.import_module("barlow.data.shapes").ShapesSource(split, multi_object=name == "shapes_multi")
    elif name == "digits":
        source = _digits(split)
    else:
        source = _cifar(name, split, root)
    return WithChannels(source, channels)


def _digits(split: str) -> Source:
    """Every fifth image of each class is a test image: a split that no library version can change.

    Source: scikit-learn's copy of Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998), values 0 to
    16.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    labels = data.target.astype(np.int64)
    rank = np.zeros(len(labels), np.int64)  # the how-many-th of its class an image is
    for k in np.unique(labels):
        rank[labels == k] = np.arange(np.sum(labels == k))
    chosen = (rank % 5 == 4) == (split == "test")
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)[:, :, :, None]
    return ArraySource(f"digits:{split}", images[chosen], labels[chosen], [str(k) for k in range(10)])


def _cifar(name: str, split: str, root: Path) -> Source:
    from torchvision import datasets

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        with contextlib.redirect_stdout(sys.stderr):  # a download reports its progress
            data = kind(str(root), train=split == "train", download=True)
    except Exception as error:  # a download fails in as many ways as there are networks
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(
            f"{name} is not in {printable(root)} and cannot be downloaded ({reason}): "
            f"put {kind.filename} there, or give a folder of images"
        ) from None
    return ArraySource(f"{name}:{split}", np.asarray(data.data), np.array(data.targets, np.int64), list(data.classes))
