"""Copies of images as they are found in collections: made smaller, recompressed, brightened, cropped, mirrored.

How similar a measure finds an image and such a copy of it says what a threshold would find.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from barlow.data.decoding import Array
from barlow.data.resizing import resized
from barlow.levels import white

BRIGHTER = 1.25
AREA = 0.9
"""Of a crop."""

QUALITY = 50
"""Of JPEG."""


def smaller(image: Array) -> Array:
    """Half as high and as wide."""
    return resized(image, (max(1, image.shape[0] // 2), max(1, image.shape[1] // 2)), Image.Resampling.BICUBIC)


def recompressed(image: Array) -> Array:
    """Through JPEG, where that can hold the image: 8 bits, grey or colour. Otherwise in a sixteenth of its levels."""
    if image.dtype != np.uint8 or image.shape[2] not in (1, 3):
        step = white(image) // 16
        return image // step * step
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, "JPEG", quality=QUALITY)
    with Image.open(buffer) as again:
        made = np.asarray(again)
    return made[:, :, None] if made.ndim == 2 else made


def brighter(image: Array) -> Array:
    """By a quarter; what is white already stays so."""
    return np.rint(np.minimum(image * BRIGHTER, white(image))).astype(image.dtype)


def cropped(image: Array) -> Array:
    """Without a strip at the right and one at the bottom, at the size of the whole: people seldom keep the middle."""
    height, width = image.shape[:2]
    box = (0.0, 0.0, width * AREA**0.5, height * AREA**0.5)
    return resized(image, (height, width), Image.Resampling.BICUBIC, box)


def mirrored(image: Array) -> Array:
    """Left and right exchanged."""
    return np.ascontiguousarray(image[:, ::-1])


COPIES: dict[str, Callable[[Array], Array]] = {
    "smaller": smaller,
    "recompressed": recompressed,
    "brighter": brighter,
    "cropped": cropped,
    "mirrored": mirrored,
}
"""Every way, by the word that is shown for it."""
