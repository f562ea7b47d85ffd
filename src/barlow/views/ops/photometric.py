"""Pillow's changes of levels: posterize, sharpness, autocontrast, equalize; and several at once, as PIRL has them.

The functions change images in place, each by its own row of a factor; `rand_augment` uses them, too.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from barlow.types import Images
from barlow.views.keys import Keys
from barlow.views.ops._op import Op, between, changed, check_probability

__all__ = ["Autocontrast", "Equalize", "Photometric", "Posterize", "Sharpness"]

Factor = Float[Tensor, "n 1 1 1"]
"""A number for each image."""

LEVELS = 256
"""Of a channel with 8 bits, for which Pillow's tables are made."""


def column(values: np.ndarray, x: Images) -> Factor:
    """A number for each image, where the images are."""
    return torch.from_numpy(values.astype(np.float32)).to(x.device, x.dtype).view(-1, 1, 1, 1)


def steps(bits: np.ndarray) -> Float[np.ndarray, "n"]:
    """From one level to the next, of 255, where so many of 8 bits are kept."""
    return 2.0 ** (8.0 - bits)


def posterize(x: Images, step: Factor) -> Images:
    """Rounds down to multiples of so many levels of 255; with 256, an image is black."""
    return x.mul_(255.0).round_().div_(step).floor_().mul_(step).div_(255.0)


def solarize(x: Images, threshold: Factor) -> Images:
    """Inverts what is at the threshold (of 255) or above."""
    above = (x >= threshold / 255.0).to(x.dtype)
    return x.sub_(above).abs_()


def sharpen(x: Images, factor: Factor) -> Images:
    """Blends with a smoothed image: 0 is smoothed, 1 as it was, more is sharper. The outermost pixels stay."""
    if min(x.shape[2:]) < 3:
        return x
    across = x[..., :-2] + x[..., 1:-1] + x[..., 2:]
    smooth = across[..., :-2, :] + across[..., 1:-1, :] + across[..., 2:, :]
    inner = x[..., 1:-1, 1:-1]
    smooth.add_(inner * 4.0).div_(13.0)
    inner.sub_(smooth).mul_(factor).add_(smooth).clamp_(0.0, 1.0)
    return x


def autocontrast(x: Images, _: Factor | None = None) -> Images:
    """Stretches each channel so that its darkest pixel is 0 and its brightest 1."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    flat = (low * 255.0).round() >= (high * 255.0).round()  # in 8 bits there is nothing to stretch
    spread = torch.where(flat, 1.0, high - low)
    return x.sub_(torch.where(flat, 0.0, low)).div_(spread)


def equalize(x: Images, _: Factor | None = None) -> Images:
    """Spreads the levels of each channel so that all are about as frequent; the image is one of 8 bits then."""
    n, c, height, width = x.shape
    levels = x.mul(255.0).round_().to(torch.int64).clamp_(0, LEVELS - 1).reshape(n * c, height * width)
    counts = torch.zeros(n * c, LEVELS, dtype=torch.int64, device=x.device)
    counts.scatter_add_(1, levels, torch.ones_like(levels))
    brightest = counts.gather(1, levels.amax(1, keepdim=True))
    step = (height * width - brightest) // (LEVELS - 1)
    below = counts.cumsum(1) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(max=LEVELS - 1)
    table = torch.where(step > 0, table, torch.arange(LEVELS, device=x.device))
    return x.copy_(table.gather(1, levels).view(n, c, height, width)).div_(255.0)


@dataclass(frozen=True)
class Posterize(Op):
    """Keeps, with probability ``p``, only the highest of a channel's 8 bits; how many is drawn.

    Source: Pillow's ``ImageOps.posterize``; PIRL (facebookresearch/vissl at 09270ed) draws 4 to 8.
    Convention: images are rounded to 8 bits first, as Pillow has them.

    Args:
        p: probability that an image is changed.
        bits: fewest and most bits that are kept.
    """

    p: float = 0.5
    bits: tuple[int, int] = (4, 8)

    def __post_init__(self) -> None:
        check_probability("posterize", self.p)
        object.__setattr__(self, "bits", _whole_range("posterize: bits", self.bits, 0, 8))

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Whether each image is changed, and how many bits are kept."""
        u = keys.uniforms(0, 2)
        return u[0] < self.p, _drawn_whole(u[1], self.bits)

    def apply(self, x: Images, applies: np.ndarray, bits: np.ndarray) -> Images:
        """See the class."""
        return changed(x, applies, posterize, column(steps(bits), x))


@dataclass(frozen=True)
class Sharpness(Op):
    """With probability ``p`` blends an image with itself smoothed: a factor below 1 blurs, one above sharpens.

    Source: Pillow's ``ImageEnhance.Sharpness``; PIRL (facebookresearch/vissl at 09270ed) draws 0.1 to 1.9.

    Args:
        p: probability that an image is changed.
        factor: smallest and largest, 0 or more.
    """

    p: float = 0.5
    factor: tuple[float, float] = (0.1, 1.9)

    def __post_init__(self) -> None:
        check_probability("sharpness", self.p)
        object.__setattr__(self, "factor", _range("sharpness: factor", self.factor))

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Whether each image is changed, and by which factor."""
        u = keys.uniforms(0, 2)
        return u[0] < self.p, between(u[1], *self.factor)

    def apply(self, x: Images, applies: np.ndarray, factor: np.ndarray) -> Images:
        """See the class."""
        return changed(x, applies, sharpen, column(factor, x))


@dataclass(frozen=True)
class Autocontrast(Op):
    """With probability ``p`` stretches each channel of an image over all of [0, 1].

    Source: Pillow's ``ImageOps.autocontrast`` without a cutoff.
    Convention: a channel that has one value in 8 bits stays as it is.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        check_probability("autocontrast", self.p)

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Whether each image is changed."""
        return (keys.uniform(0) < self.p,)

    def apply(self, x: Images, applies: np.ndarray) -> Images:
        """See the class."""
        return changed(x, applies, autocontrast)


@dataclass(frozen=True)
class Equalize(Op):
    """With probability ``p`` spreads the levels of each channel so that all are about as frequent.

    Source: Pillow's ``ImageOps.equalize``.
    Convention: images are rounded to 8 bits first, as Pillow has them.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        check_probability("equalize", self.p)

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Whether each image is changed."""
        return (keys.uniform(0) < self.p,)

    def apply(self, x: Images, applies: np.ndarray) -> Images:
        """See the class."""
        return changed(x, applies, equalize)


@dataclass(frozen=True)
class Photometric(Op):
    """With probability ``p`` posterizes, sharpens, solarises and stretches an image: all four in this order, or none.

    Source: Misra and van der Maaten, Self-Supervised Learning of Pretext-Invariant Representations (arXiv 1912.01991);
        facebookresearch/vissl at 09270ed, ImgPilRandomPhotometric, whose one probability is that of all four.

    Args:
        p: probability that an image is changed.
        bits: fewest and most bits that posterizing keeps.
        sharpness: smallest and largest factor.
        threshold: smallest and largest of solarisation, of 255; whole numbers are drawn.
    """

    p: float = 0.66
    bits: tuple[int, int] = (4, 8)
    sharpness: tuple[float, float] = (0.1, 1.9)
    threshold: tuple[int, int] = (0, 256)

    def __post_init__(self) -> None:
        check_probability("photometric", self.p)
        object.__setattr__(self, "bits", _whole_range("photometric: bits", self.bits, 0, 8))
        object.__setattr__(self, "sharpness", _range("photometric: sharpness", self.sharpness))
        object.__setattr__(self, "threshold", _whole_range("photometric: threshold", self.threshold, 0, 256))

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Whether each image is changed; its bits, its factor of sharpness and its threshold."""
        u = keys.uniforms(0, 4)
        bits, threshold = _drawn_whole(u[1], self.bits), _drawn_whole(u[3], self.threshold)
        return u[0] < self.p, bits, between(u[2], *self.sharpness), threshold

    def apply(
        self, x: Images, applies: np.ndarray, bits: np.ndarray, factor: np.ndarray, threshold: np.ndarray
    ) -> Images:
        """See the class."""
        columns = [column(values, x) for values in (steps(bits), factor, threshold)]
        return changed(x, applies, _all_four, *columns)


def _all_four(x: Images, step: Factor, factor: Factor, threshold: Factor) -> Images:
    return autocontrast(solarize(sharpen(posterize(x, step), factor), threshold))


def _whole_range(name: str, given: tuple[int, int], least: int, most: int) -> tuple[int, int]:
    """The range as two integers; raises ValueError if its ends are out of range or the wrong way round."""
    low, high = (int(end) for end in given)
    if not least <= low <= high <= most:
        raise ValueError(f"{name}: got {given}; give (low, high) with {least} <= low <= high <= {most}.")
    return low, high


def _range(name: str, given: tuple[float, float]) -> tuple[float, float]:
    """The range as two floats; raises ValueError if its ends are negative, not finite or the wrong way round."""
    low, high = (float(end) for end in given)
    if not 0.0 <= low <= high < np.inf:
        raise ValueError(f"{name}: got {given}; give (low, high) with 0 <= low <= high.")
    return low, high


def _drawn_whole(uniform: np.ndarray, ends: tuple[int, int]) -> Int64[np.ndarray, "n"]:
    """Whole numbers of a range, both ends among them, each as likely."""
    return np.floor(between(uniform, ends[0], ends[1] + 1)).astype(np.int64)
