"""Gaussian blur, in the form that is fastest for the images at hand."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from barlow.types import Images
from barlow.views.keys import Keys
from barlow.views.ops import _opencv
from barlow.views.ops._op import Op, between, changed, check_probability, checked_range

__all__ = ["GaussianBlur"]


@dataclass(frozen=True)
class GaussianBlur(Op):
    """Blurs with a Gaussian of standard deviation uniform in ``sigma`` pixels, with probability ``p``; edges reflect.

    Source: BYOL's code (kernel 23, whatever the sigma), Barlow Twins' (Pillow, whose radius is the standard deviation).
    Deviation: an image with a side of fewer than 12 pixels cannot be reflected 11 pixels deep. There the kernel's
        radius is side − 1.

    Args:
        p: probability.
        sigma: smallest and largest standard deviation in pixels.
    """

    p: float
    sigma: tuple[float, float] = (0.1, 2.0)

    RADIUS: ClassVar[int] = 11  # of BYOL's kernel of 23
    # In standard deviations. What lies beyond has 6e-7 of a Gaussian's weight, less than the rounding of the sum.
    CUT: ClassVar[int] = 5
    # Outputs for each matrix product, for large images on a CPU where OpenCV is not installed. Few, or the matrix would
    # be mostly zeros. 16 floats fill a register of 512 bits; other numbers are a quarter slower.
    BLOCK: ClassVar[int] = 16

    def __post_init__(self) -> None:
        check_probability("gaussian_blur", self.p)
        object.__setattr__(self, "sigma", checked_range("gaussian_blur: sigma", self.sigma))

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Whether each image is blurred, and its standard deviation."""
        uniform = keys.uniforms(0, 2)
        return uniform[0] < self.p, between(uniform[1], *self.sigma)

    def apply(self, x: Images, blurred: np.ndarray, sigmas: np.ndarray) -> Images:
        """See the class."""
        if x.device.type != "cpu" or max(x.shape[2:]) <= _opencv.LARGE:
            return changed(x, blurred, lambda some: self._blur_whole(some, sigmas[blurred]))
        by_opencv = x.dtype == torch.float32 and _opencv.opencv() is not None
        if by_opencv and not _opencv.interleaved(x):
            x = x.contiguous()  # OpenCV writes whole planes only
        blur = self._blur_by_opencv if by_opencv else self._blur_in_blocks
        for i in np.flatnonzero(blurred):
            blur(x[i : i + 1], float(sigmas[i]))
        return x

    def _blur_by_opencv(self, x: Float[Tensor, "1 c h w"], sigma: float) -> None:
        """Blurs one image in place, with as few taps as its sigma needs."""
        kernels = []
        for side in x.shape[2:]:
            weights = _gaussian_weights(np.array([sigma]), self._radius(sigma, side))[0, :-1]
            kernels.append(np.concatenate([weights[:0:-1], weights]))
        _opencv.convolve(x, *kernels)

    def _radius(self, sigma: float, side: int) -> int:
        """How many pixels on each side count, along an axis of ``side`` pixels."""
        return min(math.ceil(self.CUT * sigma), self.RADIUS, side - 1)

    def _blur_whole(self, x: Images, sigmas: np.ndarray) -> Images:
        """Blurs a batch by matrix products: one matrix for all rows of an image, and one for all its columns."""
        n, c, h, w = x.shape
        across = self._matrix(sigmas, w, x)
        down = across if h == w else self._matrix(sigmas, h, x)
        rows = torch.bmm(x.view(n, c * h, w), across).view(n, c, h, w)
        for channel in range(c):
            x[:, channel] = torch.bmm(down.transpose(1, 2), rows[:, channel])
        return x

    def _matrix(self, sigmas: np.ndarray, side: int, like: Images) -> Float[Tensor, "n side side"]:
        radius = min(self.RADIUS, side - 1)
        weights = _gaussian(sigmas, radius, like)
        ways = [weights.index_select(1, way) for way in _mirrored(side, radius, like.device)]
        return ways[0].add_(ways[1]).add_(ways[2]).view(-1, side, side)

    def _blur_in_blocks(self, x: Float[Tensor, "1 c h w"], sigma: float) -> None:
        """Blurs one image in place, with as few taps as its sigma needs.

        Rows, and then columns, are cut into blocks of outputs. One small matrix takes the pixels around any block to
        its outputs.
        """
        x = x[0]
        c, h, w = x.shape
        # For height and width each: the number of blocks (the last one is filled up with zeros), and the radius.
        block = self.BLOCK
        high, wide = math.ceil(h / block), math.ceil(w / block)
        deep, r = self._radius(sigma, h), self._radius(sigma, w)
        rows = x.new_empty(c, h, wide * block + 2 * r)
        rows[..., r : r + w] = x
        rows[..., :r] = x[..., 1 : r + 1].flip(-1)
        rows[..., r + w : 2 * r + w] = x[..., w - r - 1 : w - 1].flip(-1)
        rows[..., 2 * r + w :] = 0.0
        band = _band(sigma, r, block, x)
        windows = rows.view(c * h, -1).unfold(-1, block + 2 * r, block).transpose(0, 1)
        blurred = torch.bmm(windows, band.expand(wide, -1, -1)).view(wide, c, h, block)

        columns = x.new_empty(c, high * block + 2 * deep, wide * block)
        columns[:, deep : deep + h].view(c, h, wide, block).copy_(blurred.permute(1, 2, 0, 3))
        columns[:, :deep] = columns[:, deep + 1 : 2 * deep + 1].flip(1)
        columns[:, deep + h : 2 * deep + h] = columns[:, h - 1 : deep + h - 1].flip(1)
        columns[:, 2 * deep + h :] = 0.0
        band = band if deep == r else _band(sigma, deep, block, x)
        exact = (high * block, wide * block) == (h, w)
        out = x if exact else x.new_empty(c, high * block, wide * block)
        for channel in range(c):
            windows = columns[channel].unfold(0, block + 2 * deep, block).transpose(1, 2)
            torch.bmm(band.t().expand(high, -1, -1), windows, out=out[channel].view(high, block, -1))
        if not exact:
            x.copy_(out[:, :h, :w])


def _gaussian(sigmas: np.ndarray, radius: int, like: Tensor) -> Float[Tensor, "n taps"]:
    return torch.from_numpy(_gaussian_weights(sigmas, radius)).to(like.device, like.dtype)


def _gaussian_weights(sigmas: np.ndarray, radius: int) -> Float[np.ndarray, "n taps"]:
    """Each kernel's weights at distances 0 to ``radius``, followed by the 0 of every pixel further away."""
    # In float64, and rounded once at the end. At the smallest sigmas the outer weights underflow to 0, as they should.
    kernel = np.exp(-0.5 * np.square(np.arange(radius + 2) / sigmas[:, None]))
    kernel[:, -1] = 0.0
    kernel /= kernel[:, :1] + 2.0 * kernel[:, 1:].sum(axis=1, keepdims=True)
    return kernel.astype(np.float32)


def _band(sigma: float, radius: int, block: int, like: Tensor) -> Float[Tensor, "window {block}"]:
    """The matrix that takes the pixels around a block to the outputs of the block."""
    weights = _gaussian(np.array([sigma]), radius, like)[0]
    return weights.index_select(0, _distances(block, radius)).view(block + 2 * radius, block)


# The pipeline works in inference mode. A tensor that is kept from call to call must not be made there, because callers
# outside of it could not use it.
@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _distances(block: int, radius: int) -> Int64[Tensor, "entries"]:
    """How far each pixel around a block is from each output of the block."""
    distance = np.abs(np.arange(block + 2 * radius)[:, None] - radius - np.arange(block)[None, :])
    return torch.from_numpy(np.minimum(distance, radius + 1).ravel())


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _mirrored(side: int, radius: int, device: torch.device) -> Int64[Tensor, "3 entries"]:
    """How far each pixel is from each output: directly, and as seen in the mirror at either edge.

    The pixel at an edge is the mirror, so it does not appear in it.
    """
    pixel, output = np.arange(side)[:, None], np.arange(side)[None, :]
    left = np.where(pixel > 0, pixel + output, side)
    right = np.where(pixel < side - 1, 2 * (side - 1) - pixel - output, side)
    distances = np.minimum([np.abs(pixel - output), left, right], radius + 1)
    return torch.from_numpy(distances.reshape(3, -1)).to(device)
