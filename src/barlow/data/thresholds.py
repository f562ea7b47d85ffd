"""From which similarity on two images of a set are copies of each other: calibrated on the set's own pairs.

A constant would be wrong for most sets. Two photos of different things have a similarity of 0.3, two scans of
different heads one of 0.9; and one encoder spreads the images of a set over all directions, another over few.

**Distinct images.** The share of a set's pairs that are more similar than s falls, for s near 1, as a power of
1 − s: so many other points lie within a distance of a point as a power of that distance, whose exponent is the
dimension of the set as the measure sees it, and 1 − s is the square of a distance. So the power is fitted where there
are many pairs, and the threshold is where it promises `FALSE` pairs for each image. On photos that is right to some
hundredths (docs/search.md); of directions drawn evenly, it is a little too high (tests/data/test_thresholds.py).

It is fitted where copies hardly count: of n images with one copy each, one pair in n is of copies, and the fit begins
where ten times as many pairs are. Images that are as like another one of the set as its copies are to it
(`Copies.typical`) are first left out.

**Copies.** Some of the set's own images are altered (`barlow.data.altered`), and compared with themselves. Where even
those that are found hardest are more similar than that threshold, it is moved half of the way to them: fewer pairs are
then taken for copies that are not, and nearly no copy is missed. And the share of copies above it is what is told.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from barlow.data.near_duplicates import Points, blocks, clusters_of
from barlow.views.keys import permutation

FALSE = 1 / 1000
"""False pairs that are promised for each image, of all measures together.

A promise by a fit that goes on over three decades: of 600 photos of Imagenette two or three pairs were false, in each
of three draws (`experiments/duplicates.py --seed 1`, 2 and 3), where 0.6 are promised.
"""

SAMPLE = 1_000
"""Images that are compared with all others to learn how similar distinct ones are."""

FEWEST = 20
"""Of fewer distinct images there is nothing to be learned."""

HARDEST = 0.05
"""The share of copies, of those of the kind that is found hardest, that may be missed."""

BEGINS, WIDE = 10.0, 10.0
"""The fit begins where one pair in n / `BEGINS` is more similar, and ends where `WIDE` times as many are."""

CLOSEST = 1e-6
"""1 − s below which similarities are rounding."""

_EDGES = np.linspace(-1.0, -math.log(CLOSEST), 3_001)
"""Of a histogram over −log(1 − s), in which the power is a straight line."""


@dataclass(frozen=True)
class Copies:
    """How similar copies of some images are to their originals.

    Args:
        similarity: by the way in which they were altered, one for each image.
    """

    similarity: Mapping[str, Float[np.ndarray, "n"]]

    @property
    def typical(self) -> float:
        """The median, of the kind of copy in the middle."""
        return float(np.median([np.median(each) for each in self.similarity.values()]))

    @property
    def hardest(self) -> float:
        """What nearly all copies reach, of the kind that is found hardest."""
        return min(float(np.quantile(each, HARDEST)) for each in self.similarity.values())

    def found(self, threshold: float) -> dict[str, float]:
        """The share of each kind above a threshold."""
        return {name: float((each > threshold).mean()) for name, each in self.similarity.items()}


@dataclass(frozen=True)
class Threshold:
    """From which similarity on two images are copies.

    Args:
        value: above which they are.
        found: the share of altered copies above it, by kind: what it will find.
        distinct: what the tail of distinct pairs alone would give; None where there were too few images.
    """

    value: float
    found: dict[str, float]
    distinct: float | None


def within(points: Points, copies: Copies, measures: int = 1) -> Threshold:
    """The threshold for pairs of one set.

    Args:
        points: its images.
        copies: of some of them.
        measures: among how many the false pairs are divided.
    """
    several = points.take(np.unique(clusters_of(points, copies.typical)))
    kept = several if 2 * len(several) >= len(points) else points
    n = len(kept)
    rows = np.sort(permutation(0, 0, n)[:SAMPLE])
    some = kept.take(rows)
    counts = _counted(some, kept)
    counts[-1] -= int(
        (some.even.square().sum(1) + some.odd.square().sum(1) > 0.5).sum()
    )  # each was compared with itself
    return _between(_tail(counts, n, len(points) / measures, len(points) * (len(points) - 1) / 2), copies)


def across(points: Points, others: Points, copies: Copies, measures: int = 1) -> Threshold:
    """The threshold for pairs of an image of one set and one of another."""
    rows = np.sort(permutation(0, 0, len(points))[:SAMPLE])
    counts = _counted(points.take(rows), others)
    return _between(_tail(counts, len(others), len(points) / measures, len(points) * len(others)), copies)


def _between(distinct: float | None, copies: Copies) -> Threshold:
    hardest = copies.hardest
    if distinct is None:
        value = hardest
    elif hardest > distinct:
        value = 1 - math.sqrt((1 - distinct) * (1 - hardest))
    else:
        value = distinct
    return Threshold(value, copies.found(value), distinct)


def _counted(some: Points, others: Points) -> NDArray[np.int64]:
    """A histogram of the similarities of all pairs, those beyond its ends in its first and last bin."""
    counts = np.zeros(len(_EDGES) - 1, np.int64)
    for _, _, similar in blocks(some, others):
        rising = -np.log(np.maximum(1 - similar.numpy().ravel(), CLOSEST))
        counts += np.histogram(np.clip(rising, _EDGES[0], _EDGES[-1]), _EDGES)[0]
    return counts


def _tail(counts: NDArray[np.int64], n: int, images: float, pairs: float) -> float | None:
    """The similarity above which so few distinct pairs are expected; None where that cannot be said.

    Args:
        counts: the histogram.
        n: the images that each was compared with.
        images: for each of which `FALSE` pairs are allowed.
        pairs: how many there are.
    """
    total = int(counts.sum())
    if n < FEWEST or total < FEWEST * FEWEST / 2:
        return None
    near = min(0.05, BEGINS / n)
    far = min(0.5, WIDE * near)
    above = np.cumsum(counts[::-1])[::-1] / total
    at_far, at_near = (_EDGES[int(np.searchsorted(-above, -share))] for share in (far, near))
    if at_near - at_far < 2 * (_EDGES[1] - _EDGES[0]):
        return None  # they are all alike
    exponent = math.log(far / near) / (at_near - at_far)
    return 1 - math.exp(-(at_near + math.log(near * pairs / (FALSE * images)) / exponent))


def shares(found: Mapping[str, float]) -> str:
    """As in `smaller 100 %, cropped 87 %`."""
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in found.items())


def measured(of: Iterable[tuple[str, Points]], originals: Points) -> Copies:
    """How similar copies are to their originals, row by row.

    Args:
        of: the name of each kind, and the copies as points.
        originals: in the same order.
    """
    found = {}
    for name, copies in of:
        straight = (copies.even * originals.even).sum(1) + (copies.odd * originals.odd).sum(1).abs()
        found[name] = straight.numpy().astype(np.float64)
    return Copies(found)
