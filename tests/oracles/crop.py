"""Random resized crops in plain Python and float64: a loop over attempts, and one over pixels."""

import math
from collections.abc import Sequence

import numpy as np

Box = tuple[float, float, float, float]
"""Top, left, height, width."""


def box(
    height: int,
    width: int,
    uniforms: Sequence[float],
    *,
    size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Box:
    """The box of one image, with the draws of ten areas, ten ratios, and the place."""
    shape = size[1] / size[0]
    for area, stretch in zip(uniforms[:10], uniforms[10:20], strict=True):
        share = scale[0] + (scale[1] - scale[0]) * area
        wider = shape * math.exp(math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * stretch)
        h, w = round(math.sqrt(height * width * share / wider)), round(math.sqrt(height * width * share * wider))
        if 0 < h <= height and 0 < w <= width:
            top = min(math.floor(uniforms[20] * (height - h + 1)), height - h)
            left = min(math.floor(uniforms[21] * (width - w + 1)), width - w)
            return top, left, h, w
    low, high = ratio[0] * shape, ratio[1] * shape
    h, w = height, width
    if width / height < low:
        h = max(1, round(width / low))
    elif width / height > high:
        w = max(1, round(height * high))
    return (height - h) // 2, (width - w) // 2, h, w


def central_box(height: int, width: int, size: tuple[int, int]) -> Box:
    """The largest box of the size's aspect ratio in the middle of an image, in whole pixels."""
    shape, h, w = size[1] / size[0], height, width
    if width > height * shape:
        w = max(1, round(height * shape))
    else:
        h = max(1, round(width / shape))
    return (height - h) // 2, (width - w) // 2, h, w


def cubic(t: float) -> float:
    """Keys' kernel with a = -1/2."""
    t = abs(t)
    if t < 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0


def resized(line: np.ndarray, start: float, length: float, count: int) -> np.ndarray:
    """An interval of a line of pixels made `count` pixels long, antialiased, and clipped to [0, 1]."""
    out, step = np.zeros(count), length / count
    first, last = math.floor(start + 1e-6), math.ceil(start + length - 1e-6)
    for k in range(count):
        centre = start + step * (k + 0.5)
        weights = {p: cubic((p + 0.5 - centre) / max(step, 1.0)) for p in range(first, last)}
        out[k] = sum(line[p] * weight for p, weight in weights.items()) / sum(weights.values())
    return out.clip(0, 1)


def view(image: np.ndarray, where: Box, size: tuple[int, int]) -> np.ndarray:
    """A box of one plane, (height, width) in [0, 1], resized: first along the rows, then down the columns."""
    top, left, height, width = where
    rows = np.stack([resized(row, left, width, size[1]) for row in image.astype(np.float64)])
    return np.stack([resized(column, top, height, size[0]) for column in rows.T]).T
