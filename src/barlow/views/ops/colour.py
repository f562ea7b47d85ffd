"""Changes of colour: jitter and grayscale."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from barlow.types import Images
from barlow.views.keys import Keys
from barlow.views.ops import _opencv
from barlow.views.ops._op import Op, between, changed, channel_means, check_probability
from barlow.views.ops.channels import ChannelDropout, ChannelJitter

__all__ = ["ColorJitter", "Grayscale"]

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in a grey image. Source: ITU-R BT.601, rounded as torchvision rounds it."""


def grey(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    """The luma of RGB images."""
    r, g, b = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    return (r * LUMA[0]).add_(g, alpha=LUMA[1]).add_(b, alpha=LUMA[2])


def _towards_grey(x: Float[Tensor, "1 3 h w"], kept: float) -> Float[Tensor, "1 3 h w"]:
    """An interleaved image mixed with its grey image, of which it keeps the share ``kept``."""
    return _opencv.mix_channels(x, kept * np.identity(3) + (1.0 - kept) * np.array(LUMA))


def _shift_hue(
    x: Float[Tensor, "n 3 h w"], shift: Float[Tensor, "n 1 1 1"], *, far: bool = True
) -> Float[Tensor, "n 3 h w"]:
    """Turns the hue by ``shift`` (1 is a full turn), keeping HSV's value and saturation; in place.

    Convention: HSV as in Pillow and torchvision. With value v, chroma d = v·s = max − min and hue H in sixths of a turn
    from red, a channel is min + d·clip(2 − |H − o|, 0, 1), o = 0, 2, 4 for red, green, blue, |·| the shorter way round.

    All angles are kept multiplied by d. Then nothing is divided, and grey (d = 0) needs no case of its own.

    The hue: with e = g + b − 2r, the angle between the colour and red is |H|·d = 3/2·d + e − clip(e, −d, d)/2,
    whichever channel is the largest. (These are three straight pieces: where red is the largest channel, where it is
    the middle one, where it is the smallest.) The angle's side is the sign of g − b.

    The way back: the shorter way round of an angle y of up to a full turn is 3 − ||y| − 3|, so a channel is
    min + clip(||y·d| − 3·d| − d, 0, d).

    Args:
        x: the images.
        shift: of each image.
        far: whether a shift may be more than a sixth of a turn. Then y can be as much as one and a half turns.
    """
    if _opencv.interleaved(x):
        _opencv.shift_hue(x, float(shift))
        return x
    r, g, b = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    low, high = torch.minimum(g, b), torch.maximum(g, b)
    torch.minimum(low, r, out=low)
    torch.maximum(high, r, out=high)
    chroma = high - low
    turn = (g + b).sub_(r, alpha=2.0)
    turn.add_(torch.clamp(turn, -chroma, chroma), alpha=-0.5).add_(chroma, alpha=1.5)
    turn = torch.copysign(turn, g - b).add_(chroma * (6.0 * shift))
    r.copy_(turn)
    torch.sub(turn, chroma, alpha=2.0, out=g)
    torch.add(turn, chroma, alpha=2.0, out=b)
    x.abs_()
    if far:
        x.sub_(6.0 * chroma).abs_()
    x.sub_(chroma.mul_(3.0)).abs_().add_(low.mul(2.0).sub_(high))
    return torch.clamp(x, low, high, out=x)


def _mean_grey(x: Images) -> Float[Tensor, "n 1 1 1"]:
    """The mean of each image's grey image; for images without three channels, the mean over all channels."""
    means = channel_means(x)
    if _opencv.interleaved(x):
        return means.mul_(_luma(x.device)).sum().view(1, 1, 1, 1)
    return (means.mul_(_luma(x.device)) if x.shape[1] == 3 else means.div_(x.shape[1])).sum(1).view(-1, 1, 1, 1)


# The pipeline works in inference mode. A tensor that is kept from call to call must not be made there, because callers
# outside of it could not use it.
@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _luma(device: torch.device) -> Float[Tensor, "3"]:
    return torch.tensor(LUMA, device=device)


@dataclass(frozen=True)
class ColorJitter(Op):
    """With probability ``p`` changes brightness, contrast, saturation and hue, in an order drawn for each image.

    Brightness, contrast and saturation blend the image with black, with the mean of its grey image and with its grey
    image: f·x + (1 − f)·other, clipped to [0, 1], f uniform in [max(0, 1 − strength), 1 + strength]. Hue turns by a
    part of the circle uniform in [−hue, hue]. `barlow.views.ops` says what becomes of images without three channels.

    Source: torchvision's ColorJitter; strengths of BYOL, Barlow Twins and VICReg.

    Args:
        p: probability that an image is changed at all.
        brightness: strength, 0 or more.
        contrast: strength, 0 or more.
        saturation: strength, 0 or more.
        hue: 0 to 0.5.
    """

    p: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1

    channelwise: ClassVar[bool] = False

    def for_channels(self, channels: int) -> Op:
        """Brightness and contrast as before, and in place of saturation each channel's own brightness."""
        if channels in (1, 3):  # of grey images, brightness and contrast are what there is to change
            return self
        return ChannelJitter(channels, self.p, self.brightness, self.contrast, self.saturation)

    def __post_init__(self) -> None:
        check_probability("color_jitter", self.p)
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"color_jitter: got {name}={getattr(self, name)}; give a strength of 0 or more.")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"color_jitter: got hue={self.hue}; give 0 to 0.5 (half the circle each way).")

    def draws(self, keys: Keys) -> tuple[Bool[np.ndarray, "n"], Float[np.ndarray, "n 4"], Int64[np.ndarray, "n 4"]]:
        """What is drawn for each image.

        Returns:
            Whether it is changed. Its factors of brightness, contrast and saturation, and its shift of the hue. The
            order: which of these four comes first, second, third and last.
        """
        u = keys.uniforms(0, 9)
        strengths = (self.brightness, self.contrast, self.saturation)
        factors = [between(u[1 + i], max(0.0, 1.0 - s), 1.0 + s) for i, s in enumerate(strengths)]
        factors.append(between(u[4], -self.hue, self.hue))
        return u[0] < self.p, np.stack(factors, axis=1), np.argsort(u[5:9], axis=0, kind="stable").T

    def apply(self, x: Images, applies: np.ndarray, factors: np.ndarray, order: np.ndarray) -> Images:
        """See the class."""
        steps = (self.brightened, self.stretched, self.saturated, self._turn)
        strengths = (self.brightness, self.contrast, self.saturation, self.hue)
        able = [strength > 0 and (kind < 2 or x.shape[1] == 3) for kind, strength in enumerate(strengths)]
        if not applies.any():
            return x
        columns = torch.from_numpy(factors.T.astype(np.float32)).to(x.device, x.dtype).view(4, -1, 1, 1, 1)
        if len(x) == 1:
            for kind in order[0].tolist():
                x = steps[kind](x, columns[kind]) if able[kind] else x
            return x
        for kinds in order.T:
            for kind in filter(able.__getitem__, range(4)):
                x = changed(x, applies & (kinds == kind), steps[kind], columns[kind])
        return x

    @staticmethod
    def brightened(x: Images, factor: Float[Tensor, "n 1 1 1"]) -> Images:
        """Blended with black; in place."""
        return x.mul_(factor).clamp_(0.0, 1.0)

    @staticmethod
    def stretched(x: Images, factor: Float[Tensor, "n 1 1 1"]) -> Images:
        """Blended with the mean of the grey image; in place."""
        mean = _mean_grey(x).mul_(1.0 - factor)
        return x.mul_(factor).add_(mean).clamp_(0.0, 1.0)

    @staticmethod
    def saturated(x: Images, factor: Float[Tensor, "n 1 1 1"]) -> Images:
        """Blended with the grey image, of three channels; use what is returned."""
        x = _towards_grey(x, float(factor)) if _opencv.interleaved(x) else torch.lerp(grey(x), x, factor, out=x)
        return x.clamp_(0.0, 1.0)

    def _turn(self, x: Images, shift: Float[Tensor, "n 1 1 1"]) -> Images:
        return _shift_hue(x, shift, far=self.hue > 1 / 6)


@dataclass(frozen=True)
class Grayscale(Op):
    """Gives all three channels the luma with probability ``p``; images without three channels stay as they are."""

    p: float = 0.2

    channelwise: ClassVar[bool] = False

    def for_channels(self, channels: int) -> Op:
        """It takes two of three dimensions of colour away; half of the channels go in its place."""
        return self if channels in (1, 3) else ChannelDropout(channels, self.p, 0.5)

    def __post_init__(self) -> None:
        check_probability("grayscale", self.p)

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Whether each image becomes grey."""
        return (keys.uniform(0) < self.p,)

    def apply(self, x: Images, greyed: np.ndarray) -> Images:
        """See the class."""
        return changed(x, greyed, self._grey) if x.shape[1] == 3 else x

    @staticmethod
    def _grey(x: Images) -> Images:
        return _towards_grey(x, 0.0) if _opencv.interleaved(x) else x.copy_(grey(x))
