"""`shapes_captions`: generated scenes of two coloured objects, with captions that say what is where.

The objects are those of `shapes`, and all arithmetic is on integers from raw 64-bit draws, as there. So every machine
draws the same bytes and the same captions. A caption tells colour and kind of both objects and how they lie: of 7,200
scenes, no two have the same caption.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Int, UInt8

from barlow.data.shapes import CLASSES, SAMPLES, SINGLE, UNIT, VARIANTS, _coverage, _integer, templates

SEEDS = {"train": 170705612, "test": 210504906}
"""Two different numbers; these are the arXiv identifiers of papers."""

COUNTS = {"train": 2_000, "test": 500}
"""Number of images."""

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 70, 220),
    "yellow": (230, 210, 50),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
}
NAMES = {"bars": "pair of bars", "stripes": "set of stripes", "dots": "group of dots"}
"""What captions call the kinds whose name is in the plural."""

RELATIONS = (("above", "below"), ("left of", "right of"))
"""How the first object lies to the second, and the second to the first."""

LAYOUT = replace(SINGLE, radius=(640, 900), offset=300)
OBJECT_DRAWS = 8
IMAGE_DRAWS = 2 + 2 * OBJECT_DRAWS


class CaptionedShapes:
    """The set as a source of images with captions, two of each.

    Args:
        split: "train" or "test". They have different seeds and different numbers of images.
        size: the side of the images in pixels.
        count: how many images, if not `COUNTS`. The first ones are the same, however many there are.
    """

    name = "shapes_captions"
    classes: list[str] | None = None
    labels: np.ndarray | None = None

    def __init__(self, split: Literal["train", "test"] = "train", size: int = 32, count: int | None = None) -> None:
        if split not in SEEDS:
            raise ValueError(f"shapes_captions has no split {split!r}; choose one of: {', '.join(SEEDS)}")
        self.split, self.size = split, size
        self.count = COUNTS[split] if count is None else count

    def __len__(self) -> int:
        return self.count

    def __getstate__(self) -> dict[str, object]:
        """A worker process draws the images itself; they are not sent to it."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_draws", "pixels", "captions")}

    @cached_property
    def _draws(self) -> np.ndarray:
        raw = np.random.PCG64(np.random.SeedSequence(SEEDS[self.split]))
        return raw.random_raw(self.count * IMAGE_DRAWS).reshape(self.count, IMAGE_DRAWS)

    def _told(self) -> tuple[Int[np.ndarray, "n"], list[Int[np.ndarray, "n 2"]]]:
        """How the objects lie, and of each its colour and kind."""
        of_objects = [self._of_object(k) for k in range(2)]
        told = [
            np.stack([_integer(d[:, 6], 0, len(COLOURS) - 1), _integer(d[:, 7], 0, len(CLASSES) - 1)], axis=1)
            for d in of_objects
        ]
        return _integer(self._draws[:, 1], 0, len(RELATIONS) - 1), told

    def _of_object(self, k: int) -> np.ndarray:
        return self._draws[:, 2 + k * OBJECT_DRAWS : 2 + (k + 1) * OBJECT_DRAWS]

    @cached_property
    def captions(self) -> Sequence[Sequence[str]]:
        """Of each image the scene as seen from either object."""
        relation, told = self._told()
        colours, kinds = list(COLOURS), [NAMES.get(kind, kind) for kind in CLASSES]
        found = []
        for i in range(self.count):
            a, b = (f"a {colours[c]} {kinds[k]}" for c, k in (told[0][i], told[1][i]))
            there, back = RELATIONS[relation[i]]
            found.append([f"{a} {there} {b}", f"{b} {back} {a}"])
        return found

    @cached_property
    def pixels(self) -> UInt8[np.ndarray, "n s s 3"]:
        """All images."""
        relation, told = self._told()
        bitmaps = templates().reshape(len(CLASSES) * VARIANTS, -1)
        palette = np.array(list(COLOURS.values()), np.int32)
        ground = _integer(self._draws[:, 0], *LAYOUT.ground).astype(np.int32)
        image = np.broadcast_to(ground[:, None, None, None], (self.count, self.size, self.size, 3)).astype(np.int32)
        for k, (of_object, side) in enumerate(zip(map(self._of_object, range(2)), (-1, 1), strict=True)):
            place = np.full((self.count, 2), UNIT // 2)
            place[np.arange(self.count), 1 - relation] += side * UNIT // 4  # above and below differ in y, which is last
            template = told[k][:, 1] * VARIANTS + _integer(of_object[:, 5], 0, VARIANTS - 1)
            covered = _coverage(bitmaps, template, of_object, place, LAYOUT, self.size)[..., None].astype(np.int32)
            colour = palette[told[k][:, 0]][:, None, None, :]
            image += (colour - image) * covered // SAMPLES**2
        return image.astype(np.uint8)

    def read(self, index: int, min_side: int = 0) -> UInt8[np.ndarray, "s s 3"]:
        """One image. All have one size, so `min_side` changes nothing."""
        if not 0 <= index < self.count:
            raise IndexError(f"{self.locate(index)} is outside the {self.count} images of {self.split}")
        return self.pixels[index]

    def locate(self, index: int) -> str:
        return f"{self.name}[{index}]"
