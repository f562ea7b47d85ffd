"""Annotated images: where the objects of each are, of which class, and their masks where there are any."""

import hashlib
import json
import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, UInt8

from barlow import storage
from barlow.data.decoding import UnreadableImage, decode
from barlow.detection import masks
from barlow.exits import UnusableData
from barlow.printable import printable
from barlow.size import HeightWidth

T = TypeVar("T", bound=Hashable)

SHOWN = 3
"""Faults that a message names, of all that there are."""


@dataclass(frozen=True)
class Annotated:
    """What is known of one image.

    Args:
        where: where a person finds it.
        size: height and width in pixels.
        boxes: left, top, right and bottom, from the image's edge on: a box that covers the first pixel alone is
            (0, 0, 1, 1).
        labels: numbers of classes, from 0 on.
        ignored: objects that are neither trained on nor counted in AP: VOC's difficult ones, COCO's crowds.
        areas: in pixels; of the mask, where the file says that.
        outlines: one for each object (`barlow.detection.masks`); None where the set has no masks.
    """

    where: str
    size: HeightWidth
    boxes: Float32[np.ndarray, "n 4"]
    labels: Int64[np.ndarray, "n"]
    ignored: Bool[np.ndarray, "n"]
    areas: Float[np.ndarray, "n"]
    outlines: tuple[Any, ...] | None = None

    def masks(self) -> Bool[np.ndarray, "n h w"]:
        """The masks of all objects."""
        assert self.outlines is not None
        made = [masks.drawn(outline, *self.size) for outline in self.outlines]
        return np.stack(made) if made else np.zeros((0, *self.size), bool)


@dataclass(frozen=True)
class AnnotatedSet:
    """Images with annotations, in a fixed order.

    Args:
        name: as the user named it.
        form: `voc`, `coco` or `generated`. It says how AP is computed.
        classes: their names; labels are positions in this list.
        images: what is known of each.
        pictures: of each image its file, or its pixels (h, w, 3).
        notes: one line for each thing that is odd about the set: boxes that were dropped.
    """

    name: str
    form: str
    classes: list[str]
    images: list[Annotated]
    pictures: Sequence[Path | np.ndarray]
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def has_masks(self) -> bool:
        """Whether every object has one."""
        return all(image.outlines is not None for image in self.images)

    def pixels(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels of an image.

        Raises:
            UnusableData: it cannot be read, or is not of the size that its annotations are for.
        """
        image, picture = self.images[index], self.pictures[index]
        try:
            pixels = decode(picture.read_bytes()) if isinstance(picture, Path) else picture
        except OSError as error:
            raise UnusableData(f"{image.where} of {self.name} cannot be read: {error.strerror or error}") from error
        except UnreadableImage as error:
            raise UnusableData(f"{image.where} of {self.name} cannot be read: {error}") from error
        if pixels.shape[:2] != image.size:
            (height, width), (high, wide) = image.size, pixels.shape[:2]
            raise UnusableData(
                f"{image.where} of {self.name} is {wide}×{high} pixels, and its annotations are for {width}×{height}: "
                "boxes would be in the wrong place; was it resized or turned since?"
            )
        return pixels

    def numbered_like(self, train: "AnnotatedSet") -> "AnnotatedSet":
        """The same images with the class numbers of the training set.

        Raises:
            UnusableData: there is a class that the training set does not have.
        """
        if self.classes == train.classes:
            return self
        foreign = [name for name in self.classes if name not in train.classes]
        if foreign:
            raise UnusableData(
                f"--test {self.name} has classes that --train {train.name} has not ({', '.join(foreign[:5])}); --train "
                f"has {', '.join(train.classes[:5])}{', …' if len(train.classes) > 5 else ''}"
            )
        return self.with_classes(train.classes)

    def with_classes(self, classes: list[str]) -> "AnnotatedSet":
        """The same images, whose labels are positions in another list, which has all of the classes."""
        number = np.array([classes.index(name) for name in self.classes], np.int64)
        images = [replace(image, labels=number[image.labels]) for image in self.images]
        return replace(self, images=images, classes=classes)

    def chosen(self, positions: Sequence[int]) -> "AnnotatedSet":
        """Some of the images, in this order."""
        return replace(self, images=[self.images[i] for i in positions], pictures=[self.pictures[i] for i in positions])

    @property
    def origins(self) -> list[str]:
        """Where each picture is: the same texts in two sets are the same pictures. `in_both` finds copies, too."""
        return [
            os.path.realpath(picture) if isinstance(picture, Path) else hashlib.sha256(picture.tobytes()).hexdigest()
            for picture in self.pictures
        ]

    @property
    def fingerprint(self) -> str:
        """One hash for all annotations and pictures, in their order. Every file is read for it, and none decoded."""
        digest = hashlib.sha256(json.dumps([self.form, self.classes]).encode())
        for image, picture in zip(self.images, self.pictures, strict=True):
            digest.update(json.dumps([list(image.size), image.outlines]).encode())
            for array in (image.boxes, image.labels, image.ignored, image.areas):
                digest.update(array.tobytes())
            digest.update(storage.read_bytes(picture) if isinstance(picture, Path) else picture.tobytes())
        return digest.hexdigest()[:32]


def in_both(train: AnnotatedSet, test: AnnotatedSet) -> list[int]:
    """The positions of those test images that the training set has too, wherever its files are: copies byte for byte,
    or of images without files pixel for pixel. Only files that are as long as one of the other set are read."""
    lengths = [[_length(picture) for picture in each.pictures] for each in (train, test)]
    both = set(lengths[0]) & set(lengths[1])
    known = {_content(p) for p, length in zip(train.pictures, lengths[0], strict=True) if length in both}
    places = zip(test.pictures, lengths[1], strict=True)
    return [at for at, (picture, length) in enumerate(places) if length in both and _content(picture) in known]


def first_repeated(things: Sequence[T]) -> T | None:
    """The first that is there a second time; None if each is there once."""
    seen: set[T] = set()
    for each in things:
        if each in seen:
            return each
        seen.add(each)
    return None


def _length(picture: Path | np.ndarray) -> tuple[int, ...]:
    if not isinstance(picture, Path):
        return picture.shape
    try:
        return (picture.stat().st_size,)
    except OSError:  # whoever reads it says so
        return (-1,)


def _content(picture: Path | np.ndarray) -> str:
    return hashlib.sha256(storage.read_bytes(picture) if isinstance(picture, Path) else picture.tobytes()).hexdigest()


@dataclass
class Objects:
    """The objects of one image as they are read: boxes are clipped to the image, and degenerate ones dropped."""

    where: str
    size: HeightWidth
    rows: list[tuple[list[float], int, bool, float, Any]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    """A line for each box without width or height."""

    def add(
        self, box: Sequence[float], label: int, *, ignored: bool = False, area: float | None = None, outline: Any = None
    ) -> None:
        """Adds an object."""
        height, width = self.size
        left, right = (min(max(float(x), 0.0), width) for x in (box[0], box[2]))
        top, bottom = (min(max(float(y), 0.0), height) for y in (box[1], box[3]))
        if right <= left or bottom <= top:
            self.drop(box)
            return
        self.rows.append(([left, top, right, bottom], label, ignored, area or (right - left) * (bottom - top), outline))

    def drop(self, box: Sequence[float]) -> None:
        """Notes a box that cannot be used."""
        self.dropped.append(f"{printable(self.where)}: {', '.join(f'{number:g}' for number in box)}")

    def annotated(self, with_masks: bool) -> Annotated:
        """All of them."""
        boxes, labels, ignored, areas, outlines = zip(*self.rows, strict=True) if self.rows else ((),) * 5
        return Annotated(
            self.where,
            self.size,
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(labels, np.int64),
            np.array(ignored, bool),
            np.array(areas, np.float64),
            tuple(outlines) if with_masks else None,
        )


def dropped_note(objects: Sequence[Objects]) -> list[str]:
    """A line on the boxes that were dropped from a set; none if none were."""
    dropped = [line for each in objects for line in each.dropped]
    if not dropped:
        return []
    return [
        f"{len(dropped)} boxes without width or height are left out ({'; '.join(dropped[:SHOWN])}"
        f"{'; …' if len(dropped) > SHOWN else ''})"
    ]


def refuse(name: str, faults: Sequence[str]) -> None:
    """Raises UnusableData with the first faults of a set's files, if there are any."""
    if faults:
        shown = "; ".join(printable(fault) for fault in faults[:SHOWN])
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise UnusableData(f"the annotations of {name} cannot be used: {shown}{more}")


def finite_numbers(values: Sequence[Any]) -> list[float]:
    """Texts or numbers as numbers that are finite.

    Raises:
        ValueError: one is not.
    """
    numbers = [float(value) for value in values if not isinstance(value, bool)]
    if len(numbers) != len(values) or not np.isfinite(numbers).all():
        raise ValueError("not finite")
    return numbers
