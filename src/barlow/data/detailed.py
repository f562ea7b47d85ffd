"""Images of a set in detail, as they are and altered: each is read once, those that are needed and no others."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from barlow.data import detail
from barlow.data.altered import COPIES
from barlow.data.decoding import Array, UnreadableImage
from barlow.data.inventory import in_threads
from barlow.data.last_words import kept_from_the_screen
from barlow.data.survey import Survey
from barlow.exits import UnusableData
from barlow.machine import available_cores
from barlow.views.keys import permutation

ALTERED = 100
"""Images of which copies are made."""

Rows = Int64[np.ndarray, "n"]


@dataclass(frozen=True)
class Altered:
    """Some images of a set.

    Args:
        rows: of the images.
        images: their pixels, of which copies are made.
    """

    rows: Rows
    images: list[Array]

    @classmethod
    def of(cls, seen: Survey) -> "Altered":
        """Some images, drawn at random."""
        rows, images = [], []
        for row in permutation(0, 1, len(seen))[:ALTERED].tolist():
            try:
                images.append(seen.source.read(int(seen.inventory.ids[row])))
            except UnreadableImage:  # it could be read a while ago
                continue
            rows.append(row)
        if not rows:
            raise UnusableData(f"no image of {seen.inventory.name} can be read any more")
        return cls(np.array(rows, np.int64), images)


@dataclass(frozen=True)
class Details:
    """Images in detail, each read once.

    Args:
        pixels: of the images of one set, and after them those of the other, if it is another one.
        one, other: their rows, in order.
        begins: the place of the first image of the other set.
    """

    pixels: detail.Details
    one: Rows
    other: Rows
    begins: int

    @classmethod
    def of(cls, one: Survey, of_one: Rows, other: Survey, of_other: Rows) -> "Details":
        """Those of two sets, or of two lists of rows of the same set."""
        if one is other:
            rows = np.unique(np.concatenate([of_one, of_other]))
            return cls(_read(one, rows), rows, rows, 0)
        of_one, of_other = np.unique(of_one), np.unique(of_other)
        pixels = np.concatenate([_read(one, of_one), _read(other, of_other)])
        return cls(pixels, of_one, of_other, len(of_one))

    def _of_other(self, rows: Rows) -> Rows:
        return self.begins + np.searchsorted(self.other, rows)

    def compared(self, one: Rows, other: Rows) -> tuple[Float32[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
        """The similarities of pairs, and which are mirrored."""
        return detail.compared(self.pixels, np.searchsorted(self.one, one), self._of_other(other))

    def of_copies(self, altered: Altered) -> dict[str, Float32[np.ndarray, "n"]]:
        """How similar altered copies are to their originals."""
        places = self._of_other(altered.rows)
        count, found = len(places), {}
        for kind, alter in COPIES.items():
            made = np.stack([detail.detail(alter(image)) for image in altered.images])
            both = np.concatenate([self.pixels[places], made])
            found[kind] = detail.compared(both, np.arange(count), np.arange(count) + count)[0]
        return found


def _read(seen: Survey, rows: Rows) -> detail.Details:
    """Images in detail. One that cannot be read any more is faint, and so like no other."""

    def read(row: int) -> UInt8[np.ndarray, "32 32"]:
        try:
            return detail.detail(seen.source.read(int(seen.inventory.ids[row]), detail.READ_SIDE))
        except UnreadableImage:
            return np.zeros((detail.SIDE, detail.SIDE), np.uint8)

    found = np.zeros((len(rows), detail.SIDE, detail.SIDE), np.uint8)
    with kept_from_the_screen():
        for place, pixels in enumerate(in_threads(read, rows.tolist(), available_cores())):
            found[place] = pixels
    return found
