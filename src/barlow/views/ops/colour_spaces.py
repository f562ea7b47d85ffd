"""Changes of colour space: Lab and YCbCr, for methods that see lightness and colour apart."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from barlow import colour_spaces
from barlow.types import Images
from barlow.views.keys import Keys
from barlow.views.ops._op import Op

__all__ = ["ToLab", "ToYcbcr"]


@dataclass(frozen=True)
class ToLab(Op):
    """Turns RGB into CIE Lab, scaled into [0, 1]: L / 100, (a + 128) / 255, (b + 128) / 255; draws nothing.

    Ops of colour belong before it. Normalisation comes after it, so a recipe's mean and std are those of the scaled
    channels: a mean of a of 6.025 is (6.025 + 128) / 255, and a deviation of 92.208 is 92.208 / 255.

    Source: scikit-image's `rgb2lab`, with the scale of 8-bit Lab images for a and b.
    Convention: see `barlow.colour_spaces.lab`. Images without three channels stay as they are.
    Deviation: none.
    """

    channelwise: ClassVar[bool] = False

    def for_channels(self, channels: int) -> Op:
        """Itself, or it is refused.

        Raises:
            ValueError: more channels than colours have lightness and colour nowhere.
        """
        return _colour_or_grey("to_lab", self, channels)

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Nothing."""
        return ()

    def apply(self, x: Images) -> Images:
        """See the class."""
        if x.shape[1] != 3:
            return x
        made = colour_spaces.lab(x.contiguous())  # planar: the last bits must not depend on the layout
        made[:, 0].div_(100.0)
        made[:, 1:].add_(128.0).div_(255.0)
        return x.copy_(made)


@dataclass(frozen=True)
class ToYcbcr(Op):
    """Turns RGB into YCbCr, divided by 255; draws nothing.

    Ops of colour belong before it. Normalisation comes after it, so a recipe's mean and std are those of Y, Cb and Cr
    by 255.

    Source: scikit-image's `rgb2ycbcr`.
    Convention: see `barlow.colour_spaces.ycbcr`. Images without three channels stay as they are.
    Deviation: none.
    """

    channelwise: ClassVar[bool] = False

    def for_channels(self, channels: int) -> Op:
        """Itself, or it is refused.

        Raises:
            ValueError: more channels than colours have lightness and colour nowhere.
        """
        return _colour_or_grey("to_ycbcr", self, channels)

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Nothing."""
        return ()

    def apply(self, x: Images) -> Images:
        """See the class."""
        return x.copy_(colour_spaces.ycbcr(x.contiguous()).div_(255.0)) if x.shape[1] == 3 else x


def _colour_or_grey(name: str, op: Op, channels: int) -> Op:
    if channels in (1, 3):
        return op
    raise ValueError(
        f"{name}: images of {channels} channels have no lightness and colours; take a recipe without it, or "
        "--data.channels 3 where the images have colours"
    )
