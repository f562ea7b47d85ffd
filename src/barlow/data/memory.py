"""Whole sets in memory. Every file is decoded once, and the inventory is taken on the way."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from barlow.data import image_digests
from barlow.data.counting import Counted, not_shown, over
from barlow.data.decoding import Array, Header, UnreadableImage
from barlow.data.folder import FolderSource
from barlow.data.inventory import Inventory, Taking, in_threads
from barlow.data.last_words import kept_from_the_screen
from barlow.data.resizing import resized
from barlow.data.sources import ImageSource
from barlow.size import HeightWidth, Size, height_width
from barlow.types import Ids, Pixels

PROBED = 64
"""How many images are looked at to choose the size at which all are held."""


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
        inventory, held = _hold(source, working_size, workers, counted)
    inventory.check(1.0 if max_bad is None else max_bad)
    return inventory, held


def _hold(source: ImageSource, working_size: Size, workers: int, counted: Counted) -> tuple[Inventory, Held]:
    count = len(source)
    most = max(height_width(working_size))
    probes = [_read(source, int(i), most) for i in np.unique(np.linspace(0, count - 1, PROBED).astype(int))]
    met = [size for image, size, _, _ in probes if image is not None]
    first = next((image for image, _, _, _ in probes if image is not None), None)
    channels = getattr(source, "channels", 3) if first is None else first.shape[2]
    shape = _shape(working_size, met)
    # The rows of unreadable images are never written to, and memory that is not written to is not taken.
    wide = getattr(source, "value_range", None) is not None if first is None else first.dtype == np.uint16
    pixels = np.empty((count, channels, *shape), np.uint16 if wide else np.uint8)
    sizes = np.zeros((count, 2), np.int64)
    taking = Taking(source)

    def take(index: int) -> tuple[int, Header | None, str]:
        image, size, header, reason = _read(source, index, max(shape))
        if image is not None:
            sizes[index] = size
            pixels[index] = _squash(image, shape).transpose(2, 0, 1)
            if header is None:  # of a set without files
                taking.digests[index] = image_digests.of_pixels(image)
        return index, header, reason

    for index, header, reason in over(in_threads(take, range(count), workers), "images read", count, counted):
        if reason:
            taking.bad(index, reason)
            continue
        taking.sizes[index] = sizes[index]
        if header is not None:
            taking.header(index, header)
        taking.image(pixels[index].transpose(1, 2, 0))
    inventory = taking.inventory(count, len(taking.skipped) / count)
    for row, index in enumerate(inventory.ids):  # moves the readable images together, in place
        if row != index:
            pixels[row], sizes[row] = pixels[index], sizes[index]
    usable = len(inventory.ids)
    return inventory, Held(
        torch.from_numpy(pixels[:usable]), torch.from_numpy(sizes[:usable]), torch.from_numpy(inventory.ids)
    )


def _shape(working_size: Size, met: Sequence[HeightWidth]) -> HeightWidth:
    """Height and width of what is held, given the sizes of some images."""
    if not met:
        return height_width(working_size)
    if isinstance(working_size, int):
        return height_width(min(working_size, max(map(max, met))))
    heights, widths = zip(*met, strict=True)
    return min(working_size[0], max(heights)), min(working_size[1], max(widths))


def _read(source: ImageSource, index: int, min_side: int) -> tuple[Array | None, tuple[int, int], Header | None, str]:
    """Pixels, original height and width, and the header of a file; or no pixels, and the reason."""
    try:
        if isinstance(source, FolderSource):
            image, header = source.read_with_header(index, min_side)
            return image, (header.height, header.width), header, ""
        image = source.read(index, 0)
        return image, (image.shape[0], image.shape[1]), None, ""
    except UnreadableImage as error:
        return None, (0, 0), None, error.reason or "unreadable"


def _squash(image: Array, shape: HeightWidth) -> Array:
    if image.shape[:2] == shape:
        return image
    return resized(image, shape, Image.Resampling.BILINEAR)
