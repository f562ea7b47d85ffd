"""What a file's bytes become: pixels and a header, or one line on why they cannot be read."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from barlow.printable import one_line

Array = NDArray[np.unsignedinteger[Any]]
"""Pixels as they are held: (h, w, c), uint8 or uint16."""

MEMORY = 288_000_000
"""How many bytes the decoding of one image may take: the file, what the decoder keeps, and the pixels that come out."""

BYTES_PER_PIXEL = 4.5
"""A larger limit of pixels raises that of bytes with it: to so many for each."""


class UnreadableImage(ValueError):
    """The file cannot become pixels, or not all of them; `reason` is one line for the list of skipped files."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:  # so that a worker process can raise it in the main one
        return type(self), (self.reason,)


class OtherBands(UnreadableImage):
    """The file has another number of bands than the set is read with; `bands` says how many."""

    def __init__(self, bands: int, channels: int) -> None:
        one = "band" if bands == 1 else "bands"
        super().__init__(
            f"it has {bands} {one}, and images are read with {channels}; a run with --data.channels {bands} "
            "reads such files"
        )
        self.bands, self.channels = bands, channels

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.bands, self.channels)


@dataclass(frozen=True)
class Header:
    """What a file says about its image before any pixel is decoded.

    Args:
        format: Pillow's name of the format, such as "JPEG".
        height: of the image as it is shown, with its EXIF orientation applied.
        width: likewise.
        grey: whether the file stores grey levels rather than colours.
        multiframe: whether there are more frames than the first, which is the one that is read.
        bands: how many numbers a pixel has: 1 for grey, 3 for colour of whatever kind; alpha is not counted.
        deep: whether these numbers have more than 8 bits, or a sign, or a fraction.
        alpha: whether there is an alpha channel or a transparent colour.
    """

    format: str
    height: int
    width: int
    grey: bool
    multiframe: bool
    bands: int = 3
    deep: bool = False
    alpha: bool = False


BLOCK_PIXELS = 1 << 20
"""Pixels of which something is computed at once: many times their own memory is taken for some moments."""


def row_blocks(height: int, width: int) -> Iterator[tuple[int, int]]:
    """First row and last row + 1 of each block of about `BLOCK_PIXELS`."""
    step = max(1, BLOCK_PIXELS // max(width, 1))
    for top in range(0, height, step):
        yield top, min(top + step, height)


def colourless(image: Array) -> bool:
    """Whether all channels of an image are the same."""
    blocks = (image[top:bottom] for top, bottom in row_blocks(*image.shape[:2]))
    return all(bool((block[:, :, :1] == block[:, :, 1:]).all()) for block in blocks)


def upright(pixels: Array, orientation: int) -> Array:
    """Undoes an EXIF orientation, 1 to 8 (Exif 2.32, 4.6.4). From 5 on, height and width change places."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuses an image without pixels, or with more than `max_pixels`."""
    if width <= 0 or height <= 0:
        raise UnreadableImage(f"no pixels ({width}×{height})")
    if width * height > max_pixels:
        raise UnreadableImage(
            f"{width}×{height} is {width * height:,} pixels, more than the limit of {max_pixels:,} (--data.max_pixels)"
        )


def check_memory(what: str, needed: int, max_pixels: int) -> None:
    """Refuses an image whose decoding would take too many bytes, and says which limit of pixels would allow it."""
    allowed = max(MEMORY, int(BYTES_PER_PIXEL * max_pixels))
    if needed > allowed:
        enough = math.ceil(needed / BYTES_PER_PIXEL / 1e6)
        raise UnreadableImage(
            f"{what} takes {needed / 1e6:,.0f} MB to decode, more than the limit of {allowed / 1e6:,.0f} MB; "
            f"--data.max_pixels {enough}000000 allows it"
        )


@contextmanager
def refusing() -> Iterator[None]:
    """Turns every error inside into `UnreadableImage`: on bad data, the decoders raise errors of nearly any type."""
    try:
        yield
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"too many pixels for Pillow: {_reason(error)}") from None
    except MemoryError:
        raise UnreadableImage("not enough memory to decode it") from None
    except Exception as error:
        raise UnreadableImage(_reason(error)) from None


def _reason(error: Exception) -> str:
    text = one_line(error)
    return text if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {text}"
