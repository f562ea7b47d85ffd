"""How pixels are held: in 8 bits, or in 16 where 8 would lose levels."""

from typing import Any, Protocol


class Held(Protocol):
    """An array or a tensor of pixels."""

    @property
    def dtype(self) -> Any: ...


def white(pixels: Held) -> int:
    """The number that stands for 1: 255 or 65,535."""
    return 255 if pixels.dtype.itemsize == 1 else 65_535
