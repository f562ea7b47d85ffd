"""RandAugment: some of a list of changes, one after the other, of one strength."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from barlow.types import Images
from barlow.views.keys import Keys
from barlow.views.ops._op import Op, changed, check_probability
from barlow.views.ops.colour import ColorJitter
from barlow.views.ops.photometric import autocontrast, column, equalize, posterize, sharpen, solarize, steps

__all__ = ["RandAugment"]

STRONGEST = 10.0
"""A magnitude is clipped to [0, 10]."""

LIST = (
    "auto_contrast equalize invert rotate posterize solarize solarize_add color contrast brightness sharpness shear_x "
    "shear_y translate_x translate_y"
)

MOST_LAYERS = 16

ARGUMENTS: dict[str, Callable[[Float[np.ndarray, "n"], Float[np.ndarray, "n"]], np.ndarray]] = {
    "rotate": lambda part, sign: sign * part * 30.0,
    "posterize": lambda part, sign: steps(np.floor(part * 4.0)),
    "solarize": lambda part, sign: np.floor(part * 256.0),
    "solarize_add": lambda part, sign: np.floor(part * 110.0),
    "shear_x": lambda part, sign: sign * part * 0.3,
    "shear_y": lambda part, sign: sign * part * 0.3,
    "translate_x": lambda part, sign: sign * part * 0.45,
    "translate_y": lambda part, sign: sign * part * 0.45,
} | {name: lambda part, sign: part * 1.8 + 0.1 for name in ("color", "contrast", "brightness", "sharpness")}
"""What an op takes of a magnitude, given as a part of the strongest, and of a sign: degrees; levels between those that
are kept (of 4 bits at most); levels of 255; factors; parts of a side. Source: the RandAugment that PyContrast at
84f94ea has from timm."""


@dataclass(frozen=True)
class RandAugment(Op):
    """Applies, one after the other, ``layers`` ops that are drawn from a list, each with probability ``p``.

    An op may be drawn again. All have one magnitude, plus a normal deviation that is drawn for each; what a magnitude
    of 10 is (a turn of 30 degrees, a shift of 0.45 of a side, a factor of 1.9) depends on the op. Rotations, shears and
    shifts go either way, and pixels from outside of the image get the colour `fill`.

    Source: Cubuk et al., RandAugment (arXiv 1909.13719); the list of 15 ops and their magnitudes as in PyContrast at
        84f94ea, for InfoMin (layers 2, magnitude 10, spread 0.5). For CMC the same code has auto_contrast, identity,
        rotate, sharpness, shear_x, shear_y, translate_x and translate_y.
    Convention: each op is Pillow's, on floats; posterize and equalize round to 8 bits first. A magnitude is clipped to
        [0, 10]. Posterize keeps up to 4 bits and is black at a magnitude below 2.5.
    Deviation: resampling is bilinear; the code draws bilinear or bicubic.

    Args:
        layers: how many ops are drawn.
        magnitude: 0 to 10.
        spread: standard deviation of the magnitude.
        p: probability that an op that was drawn is applied.
        ops: the list that they are drawn from.
        fill: what lies outside of an image, for each channel (the mean of the three, where images have not three).

    Raises:
        ValueError: an op that there is not, or a number out of range.
    """

    layers: int = 2
    magnitude: float = 10.0
    spread: float = 0.5
    p: float = 0.5
    ops: tuple[str, ...] = tuple(LIST.split())
    fill: tuple[float, float, float] = (0.485, 0.456, 0.406)

    geometric: ClassVar[bool] = True
    channelwise: ClassVar[bool] = False

    def for_channels(self, channels: int) -> Op:
        """The list without `color`, which is saturation.

        Raises:
            ValueError: nothing else is in the list.
        """
        others = tuple(name for name in self.ops if name != "color")
        if channels in (1, 3) or others == self.ops:
            return self
        if not others:
            raise ValueError(
                f"rand_augment: ops: color alone does nothing to images of {channels} channels; add others"
            )
        return replace(self, ops=others)

    def __post_init__(self) -> None:
        check_probability("rand_augment", self.p)
        object.__setattr__(self, "ops", tuple(self.ops))
        object.__setattr__(self, "fill", tuple(float(value) for value in self.fill))
        if not 1 <= self.layers <= MOST_LAYERS:
            raise ValueError(f"rand_augment: got layers={self.layers}; give 1 to {MOST_LAYERS}.")
        if not 0 <= self.magnitude <= STRONGEST or not 0 <= self.spread <= STRONGEST:
            raise ValueError(
                f"rand_augment: got magnitude={self.magnitude}, spread={self.spread}; give each from 0 to 10."
            )
        if not self.ops or (unknown := [name for name in self.ops if name not in CHANGES]):
            given = repr(unknown[0]) if self.ops else "none"
            raise ValueError(f"rand_augment: ops: got {given}; give some of {', '.join(CHANGES)}.")
        if len(self.fill) != 3 or not all(0 <= value <= 1 for value in self.fill):
            raise ValueError(f"rand_augment: got fill={self.fill}; give three numbers from 0 to 1.")

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """What is drawn for each image and layer, each (n, layers).

        Returns:
            Which op of the list it is; whether it is applied; its magnitude as a part of the strongest; its sign.
        """
        u = keys.uniforms(0, 5 * self.layers).reshape(self.layers, 5, -1).transpose(1, 2, 0)
        # Box and Muller's pair of uniform numbers makes a normal one; 1 − u is never 0.
        normal = np.sqrt(-2.0 * np.log1p(-u[2])) * np.cos(2.0 * np.pi * u[3])
        part = np.clip(self.magnitude + self.spread * normal, 0.0, STRONGEST) / STRONGEST
        which = np.floor(u[0] * len(self.ops)).astype(np.int64)
        return which, u[1] < self.p, part, np.where(u[4] < 0.5, -1.0, 1.0)

    def apply(
        self,
        x: Images,
        which: np.ndarray,
        applies: Bool[np.ndarray, "n layers"],
        part: Float[np.ndarray, "n layers"],
        sign: Float[np.ndarray, "n layers"],
    ) -> Images:
        """See the class."""
        for layer in range(self.layers):
            for number, name in enumerate(self.ops):
                chosen = applies[:, layer] & (which[:, layer] == number)
                if not chosen.any() or (name == "color" and x.shape[1] != 3):
                    continue
                argument = ARGUMENTS[name](part[:, layer], sign[:, layer]) if name in ARGUMENTS else part[:, layer]
                given = [np.cos(np.deg2rad(argument)), np.sin(np.deg2rad(argument))] if name == "rotate" else [argument]
                x = changed(x, chosen, partial(CHANGES[name], fill=self.fill), *(column(one, x) for one in given))
        return x


Factor = Float[Tensor, "n 1 1 1"]
Fill = tuple[float, float, float]


def _plain(change: Callable[[Images, Factor], Images]) -> Callable[..., Images]:
    """A change that makes no pixels of what lies outside of an image."""
    return lambda x, argument, fill: change(x, argument)


def _solarize_add(x: Images, amount: Factor) -> Images:
    """Brightens what is darker than level 128 by some levels of 255."""
    dark = (x < 128 / 255).to(x.dtype)
    return x.add_(dark.mul_(amount).div_(255.0)).clamp_(max=1.0)


def _rotated(x: Images, cosine: Factor, sine: Factor, fill: Fill) -> Images:
    """Turned counter-clockwise about the centre."""
    height, width = x.shape[2:]
    across, down = _centres(x)
    across, down = across - width / 2, down - height / 2
    cos, sin = cosine[:, :, 0], sine[:, :, 0]
    return _moved(x, cos * across - sin * down + width / 2, sin * across + cos * down + height / 2, fill)


def _sheared_x(x: Images, factor: Factor, fill: Fill) -> Images:
    across, down = _centres(x)
    return _moved(x, across + factor[:, :, 0] * down, down, fill)


def _sheared_y(x: Images, factor: Factor, fill: Fill) -> Images:
    across, down = _centres(x)
    return _moved(x, across, down + factor[:, :, 0] * across, fill)


def _translated_x(x: Images, part: Factor, fill: Fill) -> Images:
    across, down = _centres(x)
    return _moved(x, across + part[:, :, 0] * x.shape[3], down, fill)


def _translated_y(x: Images, part: Factor, fill: Fill) -> Images:
    across, down = _centres(x)
    return _moved(x, across, down + part[:, :, 0] * x.shape[2], fill)


def _centres(x: Images) -> tuple[Float[Tensor, "1 1 w"], Float[Tensor, "1 h 1"]]:
    """Where the centres of the pixels lie, from the left and from the top."""
    height, width = x.shape[2:]
    across = torch.arange(width, device=x.device, dtype=x.dtype) + 0.5
    down = torch.arange(height, device=x.device, dtype=x.dtype) + 0.5
    return across.view(1, 1, -1), down.view(1, -1, 1)


def _moved(x: Images, across: Float[Tensor, "n _ _"], down: Float[Tensor, "n _ _"], fill: Fill) -> Images:
    """Each pixel taken from another place of its image, between four pixels; in place.

    Convention: Pillow's. The centre of the first pixel is at 0.5; a place inside of the image but beyond the outermost
    centres takes its outermost pixels; one outside of it takes `fill`.

    Args:
        x: the images.
        across: where each pixel is taken from, from the left.
        down: the same, from the top.
        fill: what lies outside.
    """
    n, c, height, width = x.shape
    across, down = across.expand(n, height, width), down.expand(n, height, width)
    inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    left, top = torch.floor(across - 0.5), torch.floor(down - 0.5)
    to_right, to_bottom = ((across - 0.5) - left).unsqueeze(1), ((down - 0.5) - top).unsqueeze(1)
    lines = [(top + step).clamp(0, height - 1).to(torch.int64) * width for step in (0, 1)]
    columns = [(left + step).clamp(0, width - 1).to(torch.int64) for step in (0, 1)]
    pixels = x.flatten(2)

    def taken(line: Tensor, column: Tensor) -> Images:
        return pixels.gather(2, (line + column).view(n, 1, -1).expand(-1, c, -1)).view(n, c, height, width)

    upper, lower = (_mixed(taken(line, columns[0]), taken(line, columns[1]), to_right) for line in lines)
    outside = torch.tensor(fill if c == 3 else (sum(fill) / 3,), dtype=x.dtype, device=x.device).view(1, -1, 1, 1)
    return x.copy_(torch.where(inside.unsqueeze(1), _mixed(upper, lower, to_bottom), outside))


def _mixed(a: Images, b: Images, share: Tensor) -> Images:
    return b.sub_(a).mul_(share).add_(a)


CHANGES: dict[str, Callable[..., Images]] = {
    "auto_contrast": _plain(autocontrast),
    "brightness": _plain(ColorJitter.brightened),
    "color": _plain(ColorJitter.saturated),
    "contrast": _plain(ColorJitter.stretched),
    "equalize": _plain(equalize),
    "identity": lambda x, argument, fill: x,
    "invert": lambda x, argument, fill: x.neg_().add_(1.0),
    "posterize": _plain(posterize),
    "rotate": _rotated,
    "sharpness": _plain(sharpen),
    "shear_x": _sheared_x,
    "shear_y": _sheared_y,
    "solarize": _plain(solarize),
    "solarize_add": _plain(_solarize_add),
    "translate_x": _translated_x,
    "translate_y": _translated_y,
}
"""Every op by its name: a function of images, a number for each of them, and `fill`."""
