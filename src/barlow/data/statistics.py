"""The mean and standard deviation of each channel, measured on the user's own images, for pixels in [0, 1]."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from barlow.data.decoded import row_blocks
from barlow.data.decoding import Array, UnreadableImage
from barlow.data.inventory import in_threads
from barlow.data.sources import ImageSource
from barlow.types import Pixels
from barlow.views.keys import permutation

HELD_LIMIT = 10_000
STREAMED_LIMIT = 1_000
"""How many images are measured, in memory and from files. The means of single images differ by about 0.25, so the mean
over these images has a standard error of 0.0025 and of 0.008."""

SMALLEST_STD = 1 / 255
"""One grey level. A channel that is constant would have a standard deviation of 0, and nothing can be divided by it."""

Statistics = tuple[list[float], list[float]]


def measure(pixels: Pixels, *, seed: int = 0, limit: int = HELD_LIMIT) -> Statistics:
    """Mean and standard deviation of images in memory: of all, or of `limit` that the seed chooses.

    The sums are of integers, so they are exact.
    """
    chosen = torch.from_numpy(_choose(len(pixels), limit, seed))
    total = torch.zeros(pixels.shape[1], dtype=torch.int64)
    squares = torch.zeros_like(total)
    for part in chosen.split(256):
        values = pixels[part.to(pixels.device)].to(torch.int64)
        total += values.sum((0, 2, 3)).cpu()
        squares += values.square().sum((0, 2, 3)).cpu()
    count = len(chosen) * pixels.shape[2] * pixels.shape[3]
    return _finish([int(t) / count for t in total], [int(s) / count for s in squares])


def measure_source(
    source: ImageSource,
    ids: NDArray[np.int64],
    *,
    seed: int = 0,
    limit: int = STREAMED_LIMIT,
    min_side: int = 0,
    workers: int = 2,
) -> Statistics:
    """Mean and standard deviation of a sample of images that are read from files. Every image weighs the same, large or
    small."""

    def moments(index: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        try:
            image: Array = source.read(index, min_side)
        except UnreadableImage:  # the inventory and the loader report these, and decide what happens
            return None
        total, squares = np.zeros((2, image.shape[2]), np.int64)
        for top, bottom in row_blocks(*image.shape[:2]):
            values = image[top:bottom].reshape(-1, image.shape[2]).astype(np.int64)
            total += values.sum(0)
            squares += np.square(values).sum(0)
        count = image.shape[0] * image.shape[1]
        return total / count, squares / count

    chosen = [int(ids[k]) for k in _choose(len(ids), limit, seed)]
    measured = [m for m in in_threads(moments, chosen, workers) if m is not None]
    if not measured:
        raise ValueError(f"none of {len(chosen)} images of {source.name} can be read any more: is the disk mounted?")
    channels = range(len(measured[0][0]))
    means, squares = ([math.fsum(m[k][c] for m in measured) / len(measured) for c in channels] for k in (0, 1))
    return _finish(means, squares)


def _choose(count: int, limit: int, seed: int) -> NDArray[np.int64]:
    if count == 0:
        raise ValueError("no images to measure: give at least one")
    return np.arange(count) if count <= limit else np.sort(np.asarray(permutation(seed, 0, count)[:limit], np.int64))


def _finish(means: Sequence[float], squares: Sequence[float]) -> Statistics:
    """From the moments of values in 0..255 to those of values in [0, 1]. The variance is the biased one (over n)."""
    stds = [math.sqrt(max(s - m * m, 0.0)) / 255 for m, s in zip(means, squares, strict=True)]
    return [m / 255 for m in means], [max(std, SMALLEST_STD) for std in stds]
