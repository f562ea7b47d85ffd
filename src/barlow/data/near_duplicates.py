"""Images that look the same though their files differ: made smaller, recompressed, brightened, mirrored, the next frame
of a film.

Each image is a thumbnail of 16 × 16 grey pixels, and of that its cosine transform. Every coefficient but the mean is
multiplied by the square root of its frequency. Two images are as similar as the cosine of the angle between what that
gives, or between one and the mirror image of the other, whichever is smaller. So neither brightness nor contrast
counts, and a photo is found again among its mirrored copies.

Why the square root. In photos coarse structure is far stronger than fine: two skies above two fields correlate by 0.95
though nothing in them is the same. Weighted so, fine structure counts more. At a threshold that errs as seldom, more
slight crops are found than by plain correlation (docs/checking.md has the numbers).

Thumbnails only propose pairs: whether two images are copies is decided in detail (`barlow.data.copies`). A thumbnail
with hardly any contrast (`FLAT`) is like no other: what is left of it is rounding.

The mirrored query costs nothing. In the transform of a mirrored thumbnail the coefficients of odd horizontal frequency
have the other sign, and the even ones are the same. So the higher of the two similarities is the product of the even
parts plus the absolute value of the product of the odd ones.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from barlow.data.resizing import resized
from barlow.data.stored import with_channels
from barlow.levels import white

SIDE = 16
"""Pixels of a thumbnail's side. Finer ones tell images of one scene apart, which coarse ones take for copies."""

READ_SIDE = 2 * SIDE
"""A JPEG that is read for its thumbnail alone may be decoded at so many pixels."""

FLAT = 1.0
"""Standard deviation of a thumbnail, in levels of 255, below which it is compared with no other."""

ROWS, COLUMNS = 512, 4096
"""Thumbnails that are compared at once: the products of a block take eight megabytes."""

Thumbnails = UInt8[np.ndarray, "n side side"]


def small(image: UInt[np.ndarray, "h w c"], side: int = SIDE) -> UInt8[np.ndarray, "side side c"]:
    """An image of 8 or 16 bits at the size of a thumbnail, or another one, in its own channels, with 8 bits."""
    pixels = resized(image, (side, side), Image.Resampling.BILINEAR)
    return pixels if white(pixels) == 255 else np.rint(pixels / 257).astype(np.uint8)


def thumbnail(image: UInt[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "side side"]:
    """The thumbnail of an image: colour as its luma, and of other numbers of channels their mean."""
    return in_grey(small(image))


def in_grey(pixels: UInt8[np.ndarray, "side side c"]) -> UInt8[np.ndarray, "side side"]:
    """What `small` gave, as a thumbnail."""
    if pixels.shape[2] in (1, 3):
        return np.asarray(with_channels(pixels, 1)[:, :, 0], np.uint8)
    return np.rint(pixels.mean(axis=2)).astype(np.uint8)


def moments(thumbnails: Thumbnails) -> Float32[np.ndarray, "2 n"]:
    """Mean and standard deviation of each thumbnail, in levels of 255."""
    found = np.empty((2, len(thumbnails)), np.float32)
    for start in range(0, len(thumbnails), COLUMNS):  # so that never all of them exist in floats
        part = slice(start, start + COLUMNS)
        found[0, part] = thumbnails[part].mean(axis=(1, 2), dtype=np.float32)
        found[1, part] = thumbnails[part].std(axis=(1, 2), dtype=np.float32)
    return found


def flat(thumbnails: Thumbnails) -> Bool[np.ndarray, "n"]:
    """Which thumbnails have too little contrast to be compared."""
    return np.asarray(moments(thumbnails)[1] < FLAT)


@dataclass(frozen=True)
class Alike:
    """For each query the images that are most similar to it, the most similar first.

    Args:
        positions: of the images among those that were searched.
        similarity: -1 to 1; 0 with a flat thumbnail.
        mirrored: whether the image is more similar when it is mirrored.
    """

    positions: Int64[np.ndarray, "m k"]
    similarity: Float32[np.ndarray, "m k"]
    mirrored: Bool[np.ndarray, "m k"]


def most_alike(
    queries: Thumbnails, among: Thumbnails, k: int = 1, *, leave_out: Int64[np.ndarray, "m"] | None = None
) -> Alike:
    """The k images that are most similar to each query. Every pair is compared.

    Args:
        queries: thumbnails that are looked for.
        among: the thumbnails that are searched.
        k: how many are wanted; all, where there are fewer.
        leave_out: for each query the position of an image that does not count: its own, where it is among them.
    """
    return most_alike_of(Points.of_thumbnails(queries), Points.of_thumbnails(among), k, leave_out=leave_out)


def most_alike_of(a: "Points", b: "Points", k: int = 1, *, leave_out: Int64[np.ndarray, "m"] | None = None) -> Alike:
    """`most_alike` of points: the k of `b` that are most similar to each of `a`."""
    k = min(k, len(b) - (leave_out is not None))
    best = torch.full((len(a), max(k, 0)), -math.inf)
    where = torch.zeros(len(a), max(k, 0), dtype=torch.int64)
    if k < 1:
        return Alike(where.numpy(), best.numpy(), where.bool().numpy())
    own = None if leave_out is None else torch.from_numpy(np.asarray(leave_out, np.int64))
    for rows, columns, similar in blocks(a, b):
        if own is not None:
            at = own[rows] - columns.start
            inside = torch.nonzero((at >= 0) & (at < similar.shape[1]))[:, 0]
            similar[inside, at[inside]] = -math.inf
        values, found = similar.topk(min(k, similar.shape[1]))
        both = torch.cat([best[rows], values], dim=1)
        places = torch.cat([where[rows], found + columns.start], dim=1)
        best[rows], chosen = both.topk(k)
        where[rows] = places.gather(1, chosen)
    differences = torch.stack([(a.odd * b.odd[where[:, i]]).sum(1) for i in range(k)], dim=1)
    return Alike(where.numpy(), best.clamp(-1, 1).numpy(), (differences < 0).numpy())


def join(roots: NDArray[np.int64], one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
    """Makes one cluster of the two of each pair. `roots` has the first member of each point's cluster; in place."""
    while True:
        a, b = roots[one], roots[other]
        apart = a != b
        if not apart.any():
            return
        one, other = one[apart], other[apart]
        low, high = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
        np.minimum.at(roots, high, low)
        while (roots[roots] != roots).any():
            roots[:] = roots[roots]


def _cosines() -> Float32[Tensor, "side side"]:
    """The orthonormal cosine transform of a row of pixels (DCT-II); a row of it for each frequency."""
    frequency, pixel = torch.arange(SIDE, dtype=torch.float64)[:, None], torch.arange(SIDE, dtype=torch.float64)
    waves = torch.cos(math.pi * frequency * (pixel + 0.5) / SIDE) * math.sqrt(2 / SIDE)
    waves[0] /= math.sqrt(2)
    return waves.float()


def _weights() -> Float32[Tensor, "side side"]:
    """The square root of each coefficient's frequency; 0 for the mean."""
    squares = torch.arange(SIDE).float().square()
    return (squares[:, None] + squares).pow(0.25)


@dataclass(frozen=True)
class Points:
    """What is compared: the similarity of two is the product of their even parts plus the absolute value of that of
    their odd ones.

    Args:
        even: of a thumbnail's weighted transform at unit length, that of even horizontal frequency; of a vector all.
        odd: that of odd frequency, which changes its sign where an image is mirrored; of a vector nothing.
    """

    even: Float32[Tensor, "n d"]
    odd: Float32[Tensor, "n e"]

    @classmethod
    def of_vectors(cls, vectors: Float32[Tensor, "n d"], centre: Float32[Tensor, "d"]) -> "Points":
        """Vectors of an encoder, whose similarity is the cosine of the angle between them, seen from a centre.

        Features may all point nearly the same way; seen from their mean they do not. One that lies at the centre is
        like no other.
        """
        rows = vectors - centre
        length = rows.norm(dim=1, keepdim=True)
        rows /= length.masked_fill(length == 0, torch.inf)
        return cls(rows, rows[:, :0])

    def take(self, rows: Int64[np.ndarray, "m"]) -> "Points":
        """Some of them."""
        chosen = torch.from_numpy(np.asarray(rows, np.int64))
        return Points(self.even[chosen], self.odd[chosen])

    @classmethod
    def of_thumbnails(cls, thumbnails: Thumbnails) -> "Points":
        """Thumbnails. Zeros of flat ones."""
        n, cosines, weights = len(thumbnails), _cosines(), _weights()
        even, odd = torch.empty(2, n, SIDE * SIDE // 2)
        for start in range(0, n, COLUMNS):
            part = slice(start, start + COLUMNS)
            x = cosines @ torch.from_numpy(thumbnails[part]).float() @ cosines.T * weights
            length = x.flatten(1).norm(dim=1)
            length[torch.from_numpy(flat(thumbnails[part]))] = torch.inf
            x /= length[:, None, None]
            even[part], odd[part] = x[:, :, 0::2].flatten(1), x[:, :, 1::2].flatten(1)
        return cls(even, odd)

    def __len__(self) -> int:
        return len(self.even)


def blocks(a: Points, b: Points) -> Iterator[tuple[slice, slice, Any]]:
    """Blocks of rows of `a` and of `b`, and the similarities of every pair of them. Each block is written over the one
    before."""
    room = torch.empty(2, min(ROWS, len(a)) * min(COLUMNS, len(b)))
    for first in range(0, len(a), ROWS):
        rows = slice(first, min(first + ROWS, len(a)))
        for start in range(0, len(b), COLUMNS):
            columns = slice(start, min(start + COLUMNS, len(b)))
            shape = rows.stop - rows.start, columns.stop - columns.start
            similar, differences = (part[: shape[0] * shape[1]].view(shape) for part in room)
            torch.mm(a.even[rows], b.even[columns].T, out=similar)
            torch.mm(a.odd[rows], b.odd[columns].T, out=differences)
            yield rows, columns, similar.add_(differences.abs_())
