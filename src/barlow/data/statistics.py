"""The mean and standard deviation of each channel, measured on the user's own images, for pixels in [0, 1]."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from barlow.data.counting import LOOKED_AT, Counted, not_shown, over
from barlow.data.decoded import row_blocks
from barlow.data.decoding import Array, UnreadableImage
from barlow.data.inventory import in_threads
from barlow.data.sources import ImageSource
from barlow.levels import white
from barlow.types import Pixels, taken
from barlow.views.keys import permutation

HELD_LIMIT = 10_000
STREAMED_LIMIT = 1_000
"""How many images are measured, in memory and from files. The means of single images differ by about 0.25, so the mean
over these images has a standard error of 0.0025 and of 0.008."""

SMALLEST_STD = 1 / 255
"""One grey level, for 8 bits; for 16 it is one of theirs. A channel that is constant would have a standard deviation of
0, and nothing can be divided by it."""

Statistics = tuple[list[float], list[float]]


def measure(pixels: Pixels, *, seed: int = 0, limit: int = HELD_LIMIT) -> Statistics:
    """Mean and standard deviation of images in memory: of all, or of `limit` that the seed chooses.

    The sums are of integers, so they are exact.
    """
    chosen = torch.from_numpy(_choose(len(pixels), limit, seed))
    total, squares = [0] * pixels.shape[1], [0] * pixels.shape[1]
    for part in chosen.split(256):
        values = taken(pixels, part.to(pixels.device)).to(torch.int64)
        # Of 64 bits the sum over an image is; that over all of them may not be, where the pixels have 16.
        for sums, each in ((total, values), (squares, values.square())):
            for channel, of_images in enumerate(each.sum((2, 3)).T.tolist()):
                sums[channel] += sum(of_images)
    count = len(chosen) * pixels.shape[2] * pixels.shape[3]
    return _finish([t / count for t in total], [s / count for s in squares], white(pixels))


def measure_source(
    source: ImageSource,
    ids: NDArray[np.int64],
    *,
    seed: int = 0,
    limit: int = STREAMED_LIMIT,
    min_side: int = 0,
    workers: int = 2,
    counted: Counted = not_shown,
) -> Statistics:
    """Mean and standard deviation of a sample of images that are read from files. Every image weighs the same, large or
    small. `counted` is told how many of the sample have been read."""

    def moments(index: int) -> tuple[NDArray[np.float64], NDArray[np.float64], int] | None:
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
        return total / count, squares / count, white(image)

    chosen = [int(ids[k]) for k in _choose(len(ids), limit, seed)]
    each_measured = over(in_threads(moments, chosen, workers), LOOKED_AT, len(chosen), counted)
    measured = [m for m in each_measured if m is not None]
    if not measured:
        raise ValueError(f"none of {len(chosen)} images of {source.name} can be read any more: is the disk mounted?")
    means, squares, largest = zip(*measured, strict=True)
    averages = [[math.fsum(of_channel) / len(each) for of_channel in np.stack(each, 1)] for each in (means, squares)]
    return _finish(averages[0], averages[1], largest[0])


def _choose(count: int, limit: int, seed: int) -> NDArray[np.int64]:
    if count == 0:
        raise ValueError("no images to measure: give at least one")
    return np.arange(count) if count <= limit else np.sort(np.asarray(permutation(seed, 0, count)[:limit], np.int64))


def _finish(means: Sequence[float], squares: Sequence[float], largest: int) -> Statistics:
    """From the moments of values in 0..largest to those in [0, 1]. The variance is the biased one (over n)."""
    stds = [math.sqrt(max(s - m * m, 0.0)) / largest for m, s in zip(means, squares, strict=True)]
    smallest = SMALLEST_STD if largest == 255 else 1 / largest
    return [m / largest for m in means], [max(std, smallest) for std in stds]
