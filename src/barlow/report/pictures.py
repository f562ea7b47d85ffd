"""Pictures of a run's images, as its encoder gets them: read again, made small, and put into one."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from barlow.data.decoding import UnreadableImage
from barlow.data.inventory import in_threads
from barlow.data.last_words import kept_from_the_screen
from barlow.data.sources import ImageSource
from barlow.machine import available_cores
from barlow.nets.preprocessing import Preprocessing
from barlow.report.markup import Markup, el
from barlow.report.views import data_address
from barlow.size import height_width

GROUND = 128
"""The grey behind pictures that are not square, and of what cannot be read any more."""

MOST_CHARACTERS, LOWER = 5_500_000, (35, 15)
"""Of a picture that is an address, so that the page has less than 8 MB; and the qualities that are tried for it."""

LEAST = 16
"""Pixels along a side of a picture, however small the images are."""


@dataclass(frozen=True)
class Pictures:
    """Images of a source, to be shown.

    Args:
        source: where they are read.
        ids: which of them, in the order in which they are shown.
        preprocessing: what the encoder expects: the same box of each image is shown, at another resolution.
    """

    source: ImageSource
    ids: np.ndarray
    preprocessing: Preprocessing

    def names(self) -> list[str]:
        """Where a person finds each."""
        return [self.source.locate(int(i)) for i in self.ids]

    def side(self, most: int) -> int:
        """How large a picture may be without making its image larger; by the first that can be read."""
        for i in self.ids[:20]:
            try:
                return max(LEAST, min(most, *self.source.read(int(i)).shape[:2]))
            except UnreadableImage:
                continue
        return most

    def read(self, rows: Sequence[int], side: int) -> Iterator[UInt8[np.ndarray, "side side 3"]]:
        """The pictures of some rows, in their order."""
        high, wide = height_width(self.preprocessing.size)
        high, wide = (max(1, round(side * each / max(high, wide))) for each in (high, wide))
        fitting = replace(self.preprocessing, size=side if high == wide else (high, wide))

        def picture(row: int) -> np.ndarray:
            out = np.full((side, side, 3), GROUND, np.uint8)
            try:
                view = fitting.centre(self.source.read(int(self.ids[row]), 2 * side))
            except UnreadableImage:
                return out
            view = view if view.dtype == np.uint8 else (view // 257).astype(np.uint8)
            view = np.repeat(view[..., :1], 3, axis=2) if view.shape[2] < 3 else view[..., :3]
            top, left = ((side - each) // 2 for each in view.shape[:2])
            out[top : top + view.shape[0], left : left + view.shape[1]] = view
            return out

        with kept_from_the_screen():
            yield from in_threads(picture, rows, available_cores())


@dataclass(frozen=True)
class Atlas:
    """Many pictures in one: a header for each would be longer than the picture itself.

    Args:
        name: of the class that shows a part of it.
        address: the picture, as an address that holds it.
        side: of a part, in pixels.
        columns: of parts.
        rows: of parts.
        shown: the side of a part on the page, in pixels.
    """

    name: str
    address: str
    side: int
    columns: int
    rows: int
    shown: int

    @property
    def rule(self) -> str:
        """The style of every part."""
        rendering = "image-rendering:pixelated;" if self.side * 1.5 < self.shown else ""
        return (
            f".{self.name}{{display:inline-block;width:{self.shown}px;height:{self.shown}px;{rendering}"
            f"background:url({self.address}) 0 0/{self.columns * self.shown}px {self.rows * self.shown}px}}\n"
        )

    def place(self, part: int) -> str:
        """The style that shows a part."""
        x, y = part % self.columns * self.shown, part // self.columns * self.shown
        return f".{self.name}{part}{{background-position:{-x}px {-y}px}}\n"

    def show(self, part: int, words: str, **attributes: object) -> Markup:
        """A part; its style has to be among the page's."""
        return el("span", class_=f"{self.name} {self.name}{part}", role="img", aria_label=words, **attributes)


def atlas(
    name: str,
    pictures: Iterable[np.ndarray],
    count: int,
    side: int,
    *,
    shown: int,
    quality: int,
    most: int = MOST_CHARACTERS,
) -> Atlas:
    """Puts pictures of one size side by side, row by row.

    Args:
        name: of the class that shows a part.
        pictures: in their order.
        count: of them.
        side: of each, in pixels.
        shown: on the page.
        quality: of WebP. Where that gives more than `most` characters, as noise does, less of it is kept, and if need
            be half of the resolution.
        most: characters of the address.
    """
    columns = max(1, math.ceil(math.sqrt(count)))
    rows = max(1, math.ceil(count / columns))
    whole = np.full((rows * side, columns * side, 3), GROUND, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * side, i % columns * side
        whole[top : top + side, left : left + side] = picture
    image = Image.fromarray(whole)
    while True:
        for each in (quality, *(q for q in LOWER if q < quality)):
            if len(address := data_address(image, each)) <= most:
                return Atlas(name, address, side, columns, rows, shown)
        if side <= LEAST:
            return Atlas(name, address, side, columns, rows, shown)
        side = max(LEAST, side // 2)
        image = image.resize((columns * side, rows * side), Image.Resampling.BOX)
