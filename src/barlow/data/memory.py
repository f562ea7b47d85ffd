"""Whole sets in memory. Every file is decoded once, and the inventory is taken on the way."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from barlow.data.decoding import Array, Header, UnreadableImage
from barlow.data.folder import FolderSource
from barlow.data.inventory import Inventory, Taking, in_threads, without_library_noise
from barlow.data.sources import ImageSource
from barlow.types import Ids, Pixels

PROBED = 64
"""How many images are looked at to choose the side of the squares."""


@dataclass
class Held:
    """A set in memory, as squares of one size.

    An image that is not square is squashed into a square. Its original size is kept, because crops are chosen in the
    original's coordinates and then mapped to the square. So what is cut out has the aspect ratio that it would have had
    from the file: the square left half of an image of 200 × 100 pixels is the left half, 16 × 32, of its 32 × 32.

    Args:
        pixels: the squares.
        sizes: height and width of each original.
        ids: the images' positions in the source.
    """

    pixels: Pixels
    sizes: Int64[Tensor, "n 2"]
    ids: Ids


def bytes_needed(source: ImageSource, working_size: int, channels: int = 3) -> int:
    """How many bytes `hold` would keep in memory, at most."""
    return len(source) * channels * working_size**2


def hold(
    source: ImageSource, working_size: int, *, max_bad: float | None = None, workers: int = 2
) -> tuple[Inventory, Held]:
    """Decodes a whole source into uint8 squares of one size.

    Their side is `working_size`. If the images are smaller, it is the longest side among a few of them, so that small
    images are not enlarged. Images that are squares of this side already keep every bit. All others are resized with
    antialiasing (Pillow's bilinear filter). JPEGs that are much larger are decoded at a fraction of their size.

    Args:
        source: what to decode.
        working_size: the largest side to hold, in pixels.
        max_bad: the share of images that may be unreadable; any, if not given.
        workers: threads that decode.

    Raises:
        ValueError: a larger share of the images than `max_bad` cannot be read, or none can.
    """
    with without_library_noise():
        inventory, held = _hold(source, working_size, workers)
    inventory.check(1.0 if max_bad is None else max_bad)
    return inventory, held


def _hold(source: ImageSource, working_size: int, workers: int) -> tuple[Inventory, Held]:
    count = len(source)
    probes = [_read(source, int(i), working_size) for i in np.unique(np.linspace(0, count - 1, PROBED).astype(int))]
    met = [max(size) for image, size, _, _ in probes if image is not None]
    channels = next((image.shape[2] for image, _, _, _ in probes if image is not None), getattr(source, "channels", 3))
    side = min([working_size, *([max(met)] if met else [])])
    # The rows of unreadable images are never written to, and memory that is not written to is not taken.
    pixels = np.empty((count, channels, side, side), np.uint8)
    sizes = np.zeros((count, 2), np.int64)

    def take(index: int) -> tuple[int, Header | None, str]:
        image, size, header, reason = _read(source, index, side)
        if image is not None:
            sizes[index] = size
            pixels[index] = _squash(image, side).transpose(2, 0, 1)
        return index, header, reason

    taking = Taking(source)
    for index, header, reason in in_threads(take, range(count), workers):
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


def _squash(image: Array, side: int) -> Array:
    if image.shape[:2] == (side, side):
        return image
    small = Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0])
    resized = np.asarray(small.resize((side, side), Image.Resampling.BILINEAR))
    return resized.reshape(side, side, image.shape[2])
