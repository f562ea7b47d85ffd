"""Changes of single channels, for images whose channels are not red, green and blue."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from barlow.types import Images
from barlow.views.keys import Keys
from barlow.views.ops._op import Op, between, changed, channel_means, check_probability

__all__ = ["ChannelDropout", "ChannelJitter"]


@dataclass(frozen=True)
class ChannelJitter(Op):
    """With probability ``p`` changes brightness and contrast of all channels, and the brightness of each by itself.

    Brightness multiplies by f, contrast takes f·x + (1 − f)·(the channel's own mean), in an order drawn for each image;
    both clip to [0, 1], and f is uniform in [max(0, 1 − strength), 1 + strength]. With the brightness goes a factor of
    each channel's own, of the strength ``each``: it changes channels against each other, as saturation and hue do with
    red, green and blue.

    Source: ours, after `color_jitter`, whose strengths it takes over.

    Args:
        channels: of the images.
        p: probability that an image is changed at all.
        brightness: strength, 0 or more.
        contrast: strength, 0 or more.
        each: strength of each channel's own factor, 0 or more.
    """

    channels: int
    p: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    each: float = 0.2

    channelwise: ClassVar[bool] = False

    def for_channels(self, channels: int) -> Op:
        """The same for so many channels."""
        return replace(self, channels=channels)

    def __post_init__(self) -> None:
        check_channels("channel_jitter", self.channels)
        check_probability("channel_jitter", self.p)
        for name in ("brightness", "contrast", "each"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"channel_jitter: got {name}={getattr(self, name)}; give a strength of 0 or more.")

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """What is drawn for each image.

        Returns:
            Whether it is changed. The factors of its channels, (n, c). Its factor of contrast, and whether contrast
            comes before brightness.
        """
        u = keys.uniforms(0, 4 + self.channels)
        common, contrast = (_factor(u[1 + i], s) for i, s in enumerate((self.brightness, self.contrast)))
        return u[0] < self.p, common[:, None] * _factor(u[4:].T, self.each), contrast, u[3] < 0.5

    def apply(
        self, x: Images, applies: np.ndarray, factors: np.ndarray, contrast: np.ndarray, contrast_first: np.ndarray
    ) -> Images:
        """See the class."""
        check_images("channel_jitter", self.channels, x)
        of_channels, stretch = _column(factors, x), _column(contrast[:, None], x)
        x = changed(x, applies & contrast_first, _stretch, stretch)
        x = changed(x, applies, _brighten, of_channels)
        return changed(x, applies & ~contrast_first, _stretch, stretch)


@dataclass(frozen=True)
class ChannelDropout(Op):
    """With probability ``p`` gives a ``share`` of the channels, drawn for each image, their own mean everywhere.

    So no view can be told by a few channels alone. The number of channels is rounded down, and is one at least.

    Source: ours, in the place of `grayscale`, which takes two of three dimensions of colour away.

    Args:
        channels: of the images.
        p: probability that an image loses channels.
        share: of the channels that are lost, above 0 and below 1.
    """

    channels: int
    p: float = 0.2
    share: float = 0.5

    channelwise: ClassVar[bool] = False

    def for_channels(self, channels: int) -> Op:
        """The same share of so many channels; of a single one nothing, as nothing would be left."""
        return self if channels == self.channels else replace(self, channels=channels, p=self.p * (channels > 1))

    def __post_init__(self) -> None:
        check_channels("channel_dropout", self.channels)
        check_probability("channel_dropout", self.p)
        if not 0 < self.share < 1:
            raise ValueError(f"channel_dropout: got share={self.share}; give a share above 0 and below 1.")

    def draws(self, keys: Keys) -> tuple[Bool[np.ndarray, "n"], Bool[np.ndarray, "n c"]]:
        """Whether each image loses channels, and which."""
        u = keys.uniforms(0, 1 + self.channels)
        places = np.argsort(np.argsort(u[1:].T, axis=1, kind="stable"), axis=1, kind="stable")
        return u[0] < self.p, places < max(1, int(self.share * self.channels))

    def apply(self, x: Images, applies: np.ndarray, lost: np.ndarray) -> Images:
        """See the class."""
        check_images("channel_dropout", self.channels, x)
        return changed(x, applies, _drop, _column(lost, x))


def check_channels(name: str, channels: int) -> None:
    """Raises ValueError if there are no channels."""
    if channels < 1:
        raise ValueError(f"{name}: got channels={channels}; give the number of channels of the images.")


def check_images(name: str, channels: int, x: Images) -> None:
    """Raises ValueError if images have other channels than an op is for."""
    if x.shape[1] != channels:
        raise ValueError(f"{name}: got images of {x.shape[1]} channels and channels={channels}; make them the same.")


def _factor(uniform: np.ndarray, strength: float) -> np.ndarray:
    return between(uniform, max(0.0, 1.0 - strength), 1.0 + strength)


def _column(values: np.ndarray, x: Images) -> Float[Tensor, "n c 1 1"]:
    """A number for each channel of each image."""
    return torch.from_numpy(values.astype(np.float32)).to(x.device, x.dtype)[:, :, None, None]


def _brighten(x: Images, factors: Float[Tensor, "n c 1 1"]) -> Images:
    return x.mul_(factors).clamp_(0.0, 1.0)


def _stretch(x: Images, factor: Float[Tensor, "n 1 1 1"]) -> Images:
    means = channel_means(x)[:, :, None, None]
    return x.mul_(factor).add_(means * (1.0 - factor)).clamp_(0.0, 1.0)


def _drop(x: Images, lost: Float[Tensor, "n c 1 1"]) -> Images:
    means = channel_means(x)[:, :, None, None]
    return x.mul_(1.0 - lost).add_(means * lost)
