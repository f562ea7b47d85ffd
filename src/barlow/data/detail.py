"""Two images in detail: is one a copy of the other, or a crop of it, or do they only look alike from afar?

Thumbnails propose pairs (`barlow.data.near_duplicates`), and so do encoders. Both take two stadiums for each other: a
light oval in the middle, stands around it. In detail two stadiums have nothing in common, and a copy has everything.
So of each image 32 × 32 grey pixels are taken, and of those what is finer than some pixels: the image less a blurred
copy of itself. Brightness and contrast fall out, and of a layout little is left.

The similarity of two images is the highest cosine of the angle between what is left of one and of the other

- as they are, mirrored, and turned by quarters;
- and of all of one and a square of the other: every square of 28 to 31 pixels a side, at every place, straight and
  mirrored. That is where a crop to 77 % of the area or more would be.

A crop falls between the pixels, so that its similarity is around 0.9, where that of most other copies is above 0.95.
Photos of different things that thumbnails propose have 0.3. docs/search.md has the numbers; where the line is drawn is
calibrated for each set (`barlow.data.thresholds`).
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt, UInt8
from torch import Tensor
from torch.nn import functional

from barlow.data.near_duplicates import in_grey, small

SIDE = 32
"""Pixels of a side. At 48 and 64 look-alikes and crops are no farther apart, and a pair takes 3 and 7 times as long."""

READ_SIDE = 2 * SIDE
"""A JPEG may be decoded at so many pixels. At `SIDE` itself it would be sharper than what others are reduced to."""

PARTS = (31, 30, 29, 28)
"""Sides of the squares of one image that are compared with all of the other."""

BLUR = 1.5
"""Standard deviation of the blur, in pixels: what is coarser does not count."""

FAINT = 0.5
"""Levels of 255: an image whose fine structure is weaker (a root mean square) is like no other. What is left of it is
rounding."""

BATCH = 64
"""Pairs that are compared at once: their squares take twenty megabytes."""

Details = UInt8[np.ndarray, "n 32 32"]


def detail(image: UInt[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "32 32"]:
    """What is compared of an image of 8 or 16 bits."""
    return in_grey(small(image, SIDE))


def compared(
    details: Details, one: Int64[np.ndarray, "m"], other: Int64[np.ndarray, "m"]
) -> tuple[Float32[np.ndarray, "m"], Bool[np.ndarray, "m"]]:
    """How similar the images of each pair are, -1 to 1, and whether more so when one is mirrored.

    Args:
        details: of the images.
        one, other: the positions of the images of each pair.
    """
    similarity, mirrored = np.zeros(len(one), np.float32), np.zeros(len(one), bool)
    for start in range(0, len(one), BATCH):
        part = slice(start, start + BATCH)
        rows, places = np.unique(np.concatenate([one[part], other[part]]), return_inverse=True)
        a, b = torch.from_numpy(places.reshape(2, -1))
        straight, turned = _similar(torch.from_numpy(details[rows]).float(), a, b)
        similarity[part] = torch.maximum(straight, turned).clamp(-1, 1).numpy()
        mirrored[part] = (turned > straight).numpy()
    return similarity, mirrored


def _similar(
    x: Float32[Tensor, "n 32 32"], a: Int64[Tensor, "m"], b: Int64[Tensor, "m"]
) -> tuple[Float32[Tensor, "m"], Float32[Tensor, "m"]]:
    """Of each pair the highest similarity of the two, and of one and the mirrored other."""
    whole = _fine(x)
    first = _directions(whole.flatten(1))[a]
    straight, mirrored = (
        torch.stack(
            [(first * _directions(torch.rot90(each, turn, (1, 2)).flatten(1))[b]).sum(1) for turn in range(4)]
        ).amax(0)
        for each in (whole, whole.flip(2))
    )
    for side in PARTS:
        squares = _directions(whole.unfold(1, side, 1).unfold(2, side, 1).flatten(3).flatten(1, 2))
        smaller = _fine(functional.interpolate(x[:, None], (side, side), mode="bilinear", antialias=True)[:, 0])
        both = _directions(torch.stack([smaller, smaller.flip(2)], dim=1).flatten(2)).transpose(1, 2)
        for of, among in ((a, b), (b, a)):
            found = torch.bmm(squares[among], both[of]).amax(1)
            straight, mirrored = torch.maximum(straight, found[:, 0]), torch.maximum(mirrored, found[:, 1])
    return straight, mirrored


def _fine(x: Float32[Tensor, "n side side"]) -> Float32[Tensor, "n side side"]:
    """Images less what is left of them when they are blurred by a Gaussian; edges are reflected."""
    reach = math.ceil(3 * BLUR)
    window = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / BLUR).square())
    window /= window.sum()
    blurred = functional.pad(x[:, None], (reach,) * 4, mode="reflect")
    blurred = functional.conv2d(functional.conv2d(blurred, window[None, None, :, None]), window[None, None, None, :])
    return x - blurred[:, 0]


def _directions(x: Float32[Tensor, "*n d"]) -> Float32[Tensor, "*n d"]:
    """At unit length along the last axis; zeros for what is faint."""
    length = x.norm(dim=-1, keepdim=True)
    return x / length.masked_fill(length < FAINT * math.sqrt(x.shape[-1]), torch.inf)
