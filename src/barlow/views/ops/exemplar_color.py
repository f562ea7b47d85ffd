"""Strong changes of colour, as exemplar networks have them: of an image's own components, of saturation and value."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from barlow.types import Images
from barlow.views.keys import Keys
from barlow.views.ops._op import Op, between, changed, channel_means, check_probability
from barlow.views.ops.channels import ChannelJitter

__all__ = ["ColorComponents", "ColorPowers"]


@dataclass(frozen=True)
class ColorComponents(Op):
    """With probability ``p`` stretches an image's colours along their own three principal components.

    Each component of what a pixel differs from the mean colour is multiplied by 2 to a normal number, drawn for each
    image and component; the first is that along which the image's colours vary most. Images without three channels stay
    as they are.

    Source: Dosovitskiy et al., Exemplar Convolutional Neural Networks (arXiv 1406.6909), section 2.1; the authors'
        toolbox at ethanhe42/Exemplar-CNN@4c99692 for the standard deviations.
    Convention: components of the image's own pixels; clipped to [0, 1].

    Args:
        p: probability that an image is changed.
        spread: standard deviation of each component's exponent, 0 or more.
    """

    p: float = 1.0
    spread: tuple[float, float, float] = (1.0, 1.0, 0.5)

    channelwise: ClassVar[bool] = False

    def for_channels(self, channels: int) -> Op:
        """Contrast for the first component, along which brightness mostly varies, and each channel's own brightness for
        the last; as strong downwards as one standard deviation is."""
        if channels in (1, 3):
            return self
        contrast, each = (1.0 - 2.0**-exponent for exponent in (self.spread[0], self.spread[2]))
        return ChannelJitter(channels, self.p, 0.0, contrast, each)

    def __post_init__(self) -> None:
        check_probability("color_components", self.p)
        object.__setattr__(self, "spread", tuple(float(value) for value in self.spread))
        if len(self.spread) != 3 or not all(0 <= value < math.inf for value in self.spread):
            raise ValueError(f"color_components: got spread={self.spread}; give three numbers of 0 or more.")

    def draws(self, keys: Keys) -> tuple[Bool[np.ndarray, "n"], Float[np.ndarray, "n 3"]]:
        """Whether each image is changed, and the factors of its components."""
        u = keys.uniforms(0, 7)
        # Box and Muller's pair of uniform numbers makes a normal one; 1 − u is never 0.
        normal = np.sqrt(-2.0 * np.log1p(-u[1:4])) * np.cos(2.0 * np.pi * u[4:7])
        return u[0] < self.p, 2.0 ** (normal.T * self.spread)

    def apply(self, x: Images, applies: np.ndarray, gains: np.ndarray) -> Images:
        """See the class."""
        if x.shape[1] != 3:
            return x
        return changed(x, applies, _stretched, torch.from_numpy(gains.astype(np.float32)).to(x.device, x.dtype))


def _stretched(x: Images, gains: Float[Tensor, "n 3"]) -> Images:
    means = channel_means(x)[:, :, None, None]
    apart = (x - means).contiguous()
    products = [[channel_means((apart[:, i] * apart[:, j])[:, None]) for j in range(3)] for i in range(3)]
    covariance = torch.stack([torch.cat(row, 1) for row in products], 1)
    _, components = torch.linalg.eigh(covariance.double())  # of the least first
    along = components * gains.flip(1).double()[:, None, :]
    mixing = (along[:, :, None, :] * components[:, None, :, :]).sum(3).to(x.dtype)
    out = means + sum(mixing[:, :, k, None, None] * apart[:, k, None] for k in range(3))
    return x.copy_(out.clamp_(0.0, 1.0))


@dataclass(frozen=True)
class ColorPowers(Op):
    """With probability ``p`` gives saturation and value, each by itself, another power, another factor and a shift.

    s becomes s^a · b + c with a = 2^U(−power, power), b = 2^U(−factor, factor), c = U(−shift, shift), clipped to
    [0, 1]; so does the value v, with draws of its own. The hue stays. Images without three channels stay as they are.

    Source: Dosovitskiy et al., Exemplar Convolutional Neural Networks (arXiv 1406.6909), section 2.1 ("contrast"):
        powers from 1/4 to 4, factors from 0.7 to 1.4, shifts of up to 0.1; the hue, by up to 0.1, is `color_jitter`'s.
    Convention: HSV as in Pillow and torchvision. What has no hue (grey) gets none.

    Args:
        p: probability that an image is changed.
        power: largest exponent of 2 of the power, 0 or more.
        factor: largest exponent of 2 of the factor, 0 or more.
        shift: largest shift, from 0 to 1.
    """

    p: float = 1.0
    power: float = 2.0
    factor: float = 0.5
    shift: float = 0.1

    channelwise: ClassVar[bool] = False

    def for_channels(self, channels: int) -> Op:
        """Brightness for the value, and each channel's own brightness for the saturation, both by as much as `factor`
        allows downwards. Powers and shifts have no counterpart."""
        if channels in (1, 3):
            return self
        strength = 1.0 - 2.0**-self.factor
        return ChannelJitter(channels, self.p, strength, 0.0, strength)

    def __post_init__(self) -> None:
        check_probability("color_powers", self.p)
        for name, most in (("power", 8.0), ("factor", 8.0), ("shift", 1.0)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"color_powers: got {name}={getattr(self, name)}; give 0 to {most:g}.")

    def draws(self, keys: Keys) -> tuple[Bool[np.ndarray, "n"], Float[np.ndarray, "n 6"]]:
        """Whether each image is changed; power, factor and shift of its saturation, and of its value."""
        u = keys.uniforms(0, 7)
        drawn = []
        for first in (1, 4):
            drawn += [2.0 ** between(u[first + i], -most, most) for i, most in enumerate((self.power, self.factor))]
            drawn.append(between(u[first + 2], -self.shift, self.shift))
        return u[0] < self.p, np.stack(drawn, axis=1)

    def apply(self, x: Images, applies: np.ndarray, numbers: np.ndarray) -> Images:
        """See the class."""
        if x.shape[1] != 3:
            return x
        columns = torch.from_numpy(numbers.T.astype(np.float32)).to(x.device, x.dtype).view(6, -1, 1, 1, 1)
        return changed(x, applies, _with_powers, *columns)


def _with_powers(x: Images, *numbers: Float[Tensor, "n 1 1 1"]) -> Images:
    # Torch's powers of several numbers at once and of one differ in their last bits, and where a number lies among
    # several depends on the batch. In float64 these bits are far behind those that are kept.
    exact = torch.float32 if x.device.type == "mps" else torch.float64
    value, low = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    chroma = value - low
    coloured = chroma > 0
    saturation = torch.where(coloured, chroma / torch.where(coloured, value, 1.0), 0.0)
    share = torch.where(coloured, (value - x) / torch.where(coloured, chroma, 1.0), 0.0)  # 0: the largest channel's
    new_saturation, new_value = (
        ((old.to(exact) ** power.to(exact)).to(x.dtype) * factor + shift).clamp_(0.0, 1.0)
        for old, power, factor, shift in ((saturation, *numbers[:3]), (value, *numbers[3:]))
    )
    return x.copy_((new_value * (1.0 - new_saturation * share)).clamp_(0.0, 1.0))
