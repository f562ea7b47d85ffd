"""The size of an image or a view: one number for a square, two for anything else, the height first.

A recipe says `image_size: 64` or `image_size: [32, 128]`, the command line `--image-size 32x128`. Everywhere below, a
square is an int and nothing else is, so that one size has one spelling, in memory and in files.
"""

import math
import re
from collections.abc import Sequence

Size = int | tuple[int, int]
"""The side of a square in pixels, or (height, width) where they differ."""

HeightWidth = tuple[int, int]


def size_of(given: object, name: str = "size", *, least: int = 1, most: int | None = None, otherwise: str = "") -> Size:
    """The size that a user meant by 64, "64", [32, 128], (32, 128) or "32x128".

    Args:
        given: what was written.
        name: what it is the size of, for the message.
        least: the shortest side that is allowed.
        most: the longest side that is allowed.
        otherwise: what else is allowed, for the message.

    Raises:
        ValueError: it is no size.
    """
    sides: Sequence[object] = given if isinstance(given, list | tuple) else (given,)
    if isinstance(given, str) and re.fullmatch(r"\d+([xX×]\d+)?", given, re.ASCII):
        sides = [int(side) for side in re.split("[xX×]", given)]
    whole = [side for side in sides if isinstance(side, int) and not isinstance(side, bool)]
    if len(whole) != len(sides) or len(sides) not in (1, 2) or min(whole) < least or max(whole) > (most or max(whole)):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(
            f"{name} is {given!r}; give the side of a square, or height x width (64, 32x128 or [32, 128]): "
            f"integers {limits}{otherwise}"
        )
    return whole[0] if whole[0] == whole[-1] else (whole[0], whole[1])


def height_width(size: Size) -> HeightWidth:
    """Both sides, also of a square."""
    return (size, size) if isinstance(size, int) else size


def scaled(size: Size, times: float) -> Size:
    """The size times a number, in whole pixels: half of 33 is 16."""
    height, width = (max(1, int(side * times)) for side in height_width(size))
    return height if height == width else (height, width)


def words(size: Size) -> str:
    """As the command line takes it: 64, or 32x128."""
    return "x".join(map(str, dict.fromkeys(height_width(size))))


def aspect(size: Size) -> float:
    """Width over height."""
    height, width = height_width(size)
    return width / height


def largest_inside(frame: HeightWidth, shape: HeightWidth) -> tuple[float, float]:
    """Height and width of the largest box in a frame that has the aspect ratio of a shape.

    A square one in a frame of 20 × 50 is 20 × 20, and one of the shape 1 × 4 is 12.5 × 50.
    """
    (height, width), (h, w) = frame, shape
    return min(height, width * h / w), min(width, height * w / h)


def resized(shape: HeightWidth, pixels: int) -> HeightWidth:
    """Height and width with about so many pixels in all, and the aspect ratio of a shape."""
    scale = math.sqrt(pixels / (shape[0] * shape[1]))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
