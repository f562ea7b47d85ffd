"""The range of values of a set: which number of its files is black, and which is white.

A file of 16 bits does not say what its numbers mean. A camera of 12 bits ends at 4,095, a microscope's export may end
at 255, and reflectances are often ten thousand times a fraction. Scaled by the bits of the file, the second becomes
black throughout. So the range is looked for in the numbers, and it is one for the whole set: were each image stretched
by itself, a bright one and a dark one would look alike.

The rule: of the numbers of a sample of images, take the quantiles at 0.1 % and 99.9 %, and go beyond them on either
side by as much as they are apart, but not beyond the smallest and the largest number.

Why this rule. A range that is too wide costs little: images are held in 65,536 levels, and are normalised by their own
mean and deviation. One that is too narrow clips what may matter most, such as bright spots in a dark field. So nothing
is clipped but numbers that lie three times as far out as 99.8 % of all do: hot pixels, saturated ones in a few frames,
missing values. They would otherwise set the range by themselves. What share is clipped is told.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from barlow.data.counting import LOOKED_AT, Counted, not_shown, over
from barlow.data.decoding import Stored, UnreadableImage
from barlow.data.folder import FolderSource
from barlow.data.inventory import in_threads
from barlow.data.last_words import kept_from_the_screen
from barlow.data.stored import ValueRange
from barlow.views.keys import permutation

IMAGES = 256
"""How many images are looked at, of a large set."""

VALUES = 16_384
"""How many numbers of each image count, evenly spread over it; every image counts the same, large or small."""

QUANTILES = (0.001, 0.999)


@dataclass(frozen=True)
class FoundRange:
    """A range of values, and what it was found by.

    Args:
        ends: the numbers that become black and white.
        images: how many were looked at.
        clipped: the share of their numbers that lies outside.
        kinds: the types of their numbers, such as "uint16".
    """

    ends: ValueRange
    images: int
    clipped: float
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class _Sample:
    values: Float64[np.ndarray, "k"]
    least: float
    most: float
    kind: str


def find_range(
    source: FolderSource, *, seed: int = 0, workers: int = 2, counted: Counted = not_shown
) -> FoundRange | None:
    """The range of the images that have more than 8 bits, signs or fractions; None if no such image can be read.

    Args:
        source: what to look at.
        seed: chooses the sample.
        workers: threads that decode.
        counted: told how many images have been looked at.
    """

    def look(index: int) -> _Sample | None:
        try:
            stored = source.stored(index)
        except UnreadableImage:
            return None
        return None if stored is None or not stored.deep else _sample(stored)

    count = len(source)
    chosen = np.arange(count) if count <= IMAGES else np.sort(np.asarray(permutation(seed, 0, count))[:IMAGES])
    with kept_from_the_screen():
        looks = over(in_threads(look, chosen.tolist(), workers), LOOKED_AT, len(chosen), counted)
        samples = [s for s in looks if s is not None]
    if not samples:
        return None
    pooled = np.concatenate([s.values for s in samples])
    ends = range_of(pooled, min(s.least for s in samples), max(s.most for s in samples))
    clipped = float(((pooled < ends[0]) | (pooled > ends[1])).mean())
    return FoundRange(ends, len(samples), clipped, tuple(sorted({s.kind for s in samples})))


def range_of(values: Float64[np.ndarray, "k"], least: float, most: float) -> ValueRange:
    """The rule above.

    Args:
        values: a sample of the numbers.
        least: the smallest of all numbers.
        most: the largest of all.
    """
    low, high = (float(q) for q in np.quantile(values, QUANTILES))
    apart = high - low
    if apart == 0:  # nearly all are equal, as in a dark field with a few spots: then these spots are what there is
        low, high = least, most
    else:
        low, high = max(least, low - apart), min(most, high + apart)
    if float(least).is_integer() and float(most).is_integer():
        low, high = float(np.floor(low)), float(np.ceil(high))
    return (low, high) if low < high else (low, low + 1.0)


def _sample(stored: Stored) -> _Sample | None:
    every = stored.measured()
    finite = np.isfinite(every) if every.dtype.kind == "f" else np.ones(every.shape, bool)
    if stored.nodata is not None:
        finite &= every != stored.nodata
    numbers = every[finite]
    if not numbers.size:
        return None
    spread = np.linspace(0, numbers.size - 1, min(VALUES, numbers.size)).astype(np.int64)
    return _Sample(numbers[spread].astype(np.float64), float(numbers.min()), float(numbers.max()), str(every.dtype))
