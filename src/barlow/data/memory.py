"""Whole sets in memory. Every file is decoded once, and the inventory is taken on the way."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from barlow.data.counting import LOOKED_AT, Counted, not_shown, over
from barlow.data.decoding import Array, Header, UnreadableImage
from barlow.data.folder import FolderSource
from barlow.data.inventory import Inventory, read_all
from barlow.data.last_words import kept_from_the_screen
from barlow.data.resizing import resized
from barlow.data.sources import ImageSource
from barlow.size import HeightWidth, Size, height_width
from barlow.types import Ids, Pixels

PROBED = 64
"""How many images are looked at to choose the size at which all are held."""

MOVED = 1_024
"""Images that are moved at a time."""


@dataclass
class Held:
    """A set in memory, all images at one size, which is a square unless views are not.

    An image of another aspect ratio is squashed. Its original size is kept, because crops are chosen in the original's
    coordinates and then mapped to what is held. So what is cut out has the aspect ratio that it would have had from the
    file: the square left half of an image 100 pixels high and 200 wide is the left half, 32 × 16, of its 32 × 32.

    Args:
        pixels: the images.
        sizes: height and width of each original.
        ids: the images' positions in the source.
    """

    pixels: Pixels
    sizes: Int64[Tensor, "n 2"]
    ids: Ids

    def only(self, ids: np.ndarray) -> "Held":
        """Those of some ids. Their pixels are moved together in place, as there may be no room for a second set: what
        this was called of is not to be used any more."""
        rows = np.flatnonzero(np.isin(self.ids.numpy(), ids))
        if len(rows) == len(self.ids):
            return self
        pixels = self.pixels.numpy()
        for start in range(0, len(rows), MOVED):
            some = rows[start : start + MOVED]
            pixels[start : start + len(some)] = pixels[some]
        return Held(self.pixels[: len(rows)], self.sizes[rows], self.ids[rows])


def bytes_needed(source: ImageSource, working_size: Size, channels: int = 3, *, wide: bool = False) -> int:
    """How many bytes `hold` would keep in memory, at most; `wide` for pixels of 16 bits."""
    return len(source) * channels * math.prod(height_width(working_size)) * (2 if wide else 1)


def hold(
    source: ImageSource,
    working_size: Size,
    *,
    max_bad: float | None = None,
    workers: int = 2,
    counted: Counted = not_shown,
) -> tuple[Inventory, Held]:
    """Decodes a whole source into images of one size, of 8 bits, or of 16 where the source has a range of values.

    It is `working_size`. If the images are smaller, the side of the square is the longest side among a few of them, so
    that small images are not enlarged; of a height and a width, each is at most the longest that was met. Images that
    have this size already keep every bit. All others are resized with antialiasing (Pillow's bilinear filter). JPEGs
    that are much larger are decoded at a fraction of their size.

    Args:
        source: what to decode.
        working_size: the largest size to hold, in pixels: the side of squares, or (height, width).
        max_bad: the share of images that may be unreadable; any, if not given.
        workers: threads that decode.
        counted: told how many images have been read.

    Raises:
        TooManyUnreadable: a larger share of the images than `max_bad` cannot be read, or none can.
    """
    with kept_from_the_screen():
        shape, channels, wide = _looked_at(source, working_size, counted)
        # The rows of unreadable images are never written to, and memory that is not written to is not taken.
        pixels = np.empty((len(source), channels, *shape), np.uint16 if wide else np.uint8)
        sizes = np.zeros((len(source), 2), np.int64)

        def keep(index: int, image: Array, header: Header | None) -> Array:
            sizes[index] = image.shape[:2] if header is None else (header.height, header.width)
            squashed = _squash(image, shape)
            pixels[index] = squashed.transpose(2, 0, 1)
            return squashed

        inventory = read_all(source, keep, min_side=max(shape), workers=workers, counted=counted)
    inventory.check(1.0 if max_bad is None else max_bad)
    for row, index in enumerate(inventory.ids):  # moves the readable images together, in place
        if row != index:
            pixels[row], sizes[row] = pixels[index], sizes[index]
    usable = len(inventory.ids)
    return inventory, Held(
        torch.from_numpy(pixels[:usable]), torch.from_numpy(sizes[:usable]), torch.from_numpy(inventory.ids)
    )


def _looked_at(source: ImageSource, working_size: Size, counted: Counted) -> tuple[HeightWidth, int, bool]:
    """Height and width at which a set is held, how many channels it has, and whether it has 16 bits; by a few images.

    What cannot be read is left out here, and found when all are read.
    """
    most = max(height_width(working_size))
    met: list[HeightWidth] = []
    images: list[Array] = []
    chosen = np.unique(np.linspace(0, len(source) - 1, PROBED).astype(int)).tolist()
    for index in over(chosen, LOOKED_AT, len(chosen), counted):
        with contextlib.suppress(UnreadableImage):
            if isinstance(source, FolderSource):
                image, header = source.read_with_header(index, most)
                met.append((header.height, header.width))
            else:
                image = source.read(index, 0)
                met.append((image.shape[0], image.shape[1]))
            images = images or [image]
    if not images:
        wide = getattr(source, "value_range", None) is not None
        return _shape(working_size, met), getattr(source, "channels", 3), wide
    return _shape(working_size, met), images[0].shape[2], images[0].dtype == np.uint16


def _shape(working_size: Size, met: Sequence[HeightWidth]) -> HeightWidth:
    """Height and width of what is held, given the sizes of some images."""
    if not met:
        return height_width(working_size)
    if isinstance(working_size, int):
        return height_width(min(working_size, max(map(max, met))))
    heights, widths = zip(*met, strict=True)
    return min(working_size[0], max(heights)), min(working_size[1], max(widths))


def _squash(image: Array, shape: HeightWidth) -> Array:
    if image.shape[:2] == shape:
        return image
    return resized(image, shape, Image.Resampling.BILINEAR)
