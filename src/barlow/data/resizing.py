"""Resizing of held pixels by Pillow, for any number of channels and for 8 and 16 bits."""

import numpy as np
from PIL import Image

from barlow.data.decoded import BLOCK_PIXELS, Array
from barlow.levels import white
from barlow.size import HeightWidth

Box = tuple[float, float, float, float]


def resized(image: Array, size: HeightWidth, resample: Image.Resampling, box: Box | None = None) -> Array:
    """A part of an image at another size, with antialiasing. Pillow resizes channels independently of each other.

    Args:
        image: (h, w, c), uint8 or uint16.
        size: height and width of the result.
        resample: Pillow's filter.
        box: left, top, right and bottom of the part, in pixels; may be fractions. All of the image if not given.
    """
    shape = (size[1], size[0])
    small = image.shape[0] * image.shape[1] <= BLOCK_PIXELS
    # Of a large image by channel: the same values, and Pillow needs no four bytes of each pixel for a copy.
    if image.dtype == np.uint8 and image.shape[2] == 3 and image.flags.c_contiguous and small:
        return np.asarray(Image.fromarray(image).resize(shape, resample, box))
    return np.stack([_plane(image[:, :, c], shape, resample, box) for c in range(image.shape[2])], axis=2)


def _plane(plane: Array, shape: tuple[int, int], resample: Image.Resampling, box: Box | None) -> Array:
    if plane.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(shape, resample, box))
    # In floats, which hold 16 bits exactly. Bicubic overshoots, and 16 bits clip that as 8 bits do.
    made = np.asarray(Image.fromarray(plane.astype(np.float32)).resize(shape, resample, box))
    return np.rint(made.clip(0, white(plane))).astype(plane.dtype)
