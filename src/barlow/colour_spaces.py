"""From sRGB to other colour spaces: CIE Lab and YCbCr, batched, on any device and with gradients.

Powers are taken as exp(p · log x), because torch's `pow` rounds the last few numbers of a tensor differently from the
others: what a pixel becomes would depend on where it lies in its batch.
"""

import torch
from jaxtyping import Float
from torch import Tensor

Colours = Float[Tensor, "n 3 *space"]
"""A colour at each place: images (n, 3, h, w), or n colours (n, 3)."""

Greys = Float[Tensor, "n 1 *space"]

XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
"""CIE XYZ of linear red, green and blue. Source: ITU-R BT.709's primaries and white, rounded as scikit-image has it."""

WHITE = (0.95047, 1.0, 1.08883)
"""XYZ of the light D65, seen by the observer of 2 degrees. Source: CIE 15, as scikit-image rounds it."""

YCBCR = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))
"""Source: ITU-R BT.601, for numbers of 8 bits, whose luma goes from 16 to 235."""


def lab(rgb: Colours) -> Colours:
    """CIE Lab of sRGB: L from 0 (black) to 100 (white), a from green to magenta, b from blue to yellow.

    f(t) = t^(1/3) above 0.008856, else 7.787 t + 16/116, of X, Y and Z beside those of white;
    L = 116 f(Y) - 16, a = 500 (f(X) - f(Y)), b = 200 (f(Y) - f(Z)).

    Source: CIE 15 (1976); the constants are those of scikit-image's `rgb2lab`, from which CMC and the colorization
        papers have their colours.
    Convention: illuminant D65, observer of 2 degrees. Over all of sRGB a lies in [-86.2, 98.3] and b in
        [-107.9, 94.5]. Gradients are finite everywhere, at black too.
    Deviation: white has a = -0.0025 and b = 0.0047, as in scikit-image, for the rows of the matrix do not quite add up
        to the white point.

    Args:
        rgb: from 0 to 1.
    """
    linear = _linear(rgb)
    x, y, z = (_root(_weighted(linear, row) / white) for row, white in zip(XYZ, WHITE, strict=True))
    return torch.cat([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], 1)


def lightness(rgb: Colours) -> Greys:
    """The L of `lab` alone, from 0 to 100."""
    return 116.0 * _root(_weighted(_linear(rgb), XYZ[1])) - 16.0


def grey_of_lightness(rgb: Colours) -> Colours:
    """Grey images that have the lightness of coloured ones: all that is left of an image without its a and b.

    Convention: `lab` of the result has the same L but for rounding, and no colour. It is sRGB, in three equal channels.
    """
    y = _weighted(_linear(rgb), XYZ[1])
    curved = 1.055 * _power(y.clamp(min=0.0031308), 1 / 2.4) - 0.055
    return torch.where(y > 0.0031308, curved, 12.92 * y).expand_as(rgb)


def ycbcr(rgb: Colours) -> Colours:
    """YCbCr of RGB: luma Y from 16 to 235, and the differences of blue and red from it, Cb and Cr, from 16 to 240.

    Source: ITU-R BT.601; as scikit-image's `rgb2ycbcr`, which CMC used.
    Convention: numbers of 8 bits, not rounded. Red, green and blue are taken as they are, without the curve of sRGB.

    Args:
        rgb: from 0 to 1.
    """
    offsets = (16.0, 128.0, 128.0)
    return torch.cat([_weighted(rgb, row) + offset for row, offset in zip(YCBCR, offsets, strict=True)], 1)


def _linear(rgb: Colours) -> Colours:
    """Amounts of light: sRGB without its curve."""
    curved = _power((rgb.clamp(min=0.04045) + 0.055) / 1.055, 2.4)
    return torch.where(rgb > 0.04045, curved, rgb / 12.92)


def _root(t: Greys) -> Greys:
    return torch.where(t > 0.008856, _power(t.clamp(min=0.008856), 1 / 3), 7.787 * t + 16 / 116)


def _power(x: Tensor, exponent: float) -> Tensor:
    return (x.log() * exponent).exp()


def _weighted(rgb: Colours, row: tuple[float, float, float]) -> Greys:
    red, green, blue = rgb[:, 0:1], rgb[:, 1:2], rgb[:, 2:3]
    return red * row[0] + green * row[1] + blue * row[2]
