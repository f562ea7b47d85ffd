"""Average precision of a ranking, by each of the three conventions that are in use. They are three numbers."""

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np

UNJUDGED = -1
"""In rows of zeros and ones: nobody says whether the image has this label, as for VOC's "difficult" objects. The image
takes no part in what is measured for the label; protocols that do not say otherwise learn from it as from a 0."""

Average = Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray]
"""Scores (n,), which are positive (n,), how often each is counted (b, n) → (b,) average precisions."""


def average_precision(scores: np.ndarray, positive: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """The sum over thresholds of the recall gained times the precision there, without interpolation.

    Convention: equal scores are one threshold, so that their order cannot matter. scikit-learn's
    `average_precision_score` is the same.

    Args:
        scores: (n,) one score per image.
        positive: (n,) whether the image has the label.
        counts: (b, n) how often each image is counted in each of b resamples. By default each is counted once.

    Returns:
        (b,) average precisions, NaN where no image is positive.
    """
    precision, gained, total = _curve(scores, positive, counts)
    return _share((gained * precision).sum(axis=1), total)


def envelope_average_precision(
    scores: np.ndarray, positive: np.ndarray, counts: np.ndarray | None = None
) -> np.ndarray:
    """The area under the highest precision that is reached at each recall or a larger one.

    Source: the rule of the PASCAL VOC challenge from 2010 on. VISSL, whose numbers the papers print, scores VOC07 by it
    too.
    Convention: equal scores are one threshold. Arguments and result as for `average_precision`.
    """
    return _area_below_envelope(*_curve(scores, positive, counts))


def eleven_point_average_precision(
    scores: np.ndarray, positive: np.ndarray, counts: np.ndarray | None = None
) -> np.ndarray:
    """The mean of the highest precision at a recall of at least 0, 0.1, …, 1.

    Source: M. Everingham et al., "The PASCAL Visual Object Classes Challenge 2007", the official rule of that year.
    Convention: equal scores are one threshold. Arguments and result as for `average_precision`.
    """
    return _at_eleven_points(*_curve(scores, positive, counts))


CONVENTIONS: Mapping[str, Average] = {
    "map": average_precision,
    "map_envelope": envelope_average_precision,
    "map_11_point": eleven_point_average_precision,
}
"""The means over the labels, by the name of the metric."""


def macro_average_precision(
    scores: np.ndarray, labels: np.ndarray, counts: np.ndarray | None = None, average: Average = average_precision
) -> np.ndarray:
    """The mean of average precision over the labels that at least one (drawn) image has.

    Args:
        scores: (n, k).
        labels: (n, k) ones and zeros, and `UNJUDGED`.
        counts: as for `average_precision`.
        average: the convention.
    """
    each = []
    for score, label in zip(scores.T, labels.T, strict=True):
        judged = label != UNJUDGED
        drawn = counts if counts is None or judged.all() else counts[:, judged]
        each.append(average(score[judged], label[judged] == 1, drawn))
    there = ~np.isnan(each)
    total = np.where(there, each, 0.0).sum(axis=0)
    return np.divide(total, there.sum(axis=0), out=np.full_like(total, np.nan), where=there.any(axis=0))


def by_chance(right: int, n: int) -> float:
    """The mean of `average_precision` over all orders of n images of which so many are right, exactly.

    It is near the share of right ones where there are many images, and above it where there are few.

    Convention: 0 where none is right.

    Example:
        >>> round(by_chance(30, 300), 3)
        0.116
    """
    if right < 1:
        return 0.0
    first = float((1 / np.arange(1, n + 1)).sum()) / n
    return first if n == 1 else (right - 1) / (n - 1) * (1 - first) + first


ORDERS = 256
"""Random orders that the chance of a convention with an envelope is the mean of; of many images there are fewer."""


@lru_cache(maxsize=1024)
def _by_drawn_orders(convention: str, right: int, n: int) -> float:
    """The mean of a convention over random orders, always the same ones."""
    generator = np.random.default_rng([right, n])
    orders = max(32, min(ORDERS, 2**21 // n))
    keys = generator.random((orders, n))
    places = np.sort(np.argpartition(keys, right - 1, axis=1)[:, :right], axis=1) + 1
    found = np.broadcast_to(np.arange(1.0, right + 1), places.shape)
    gained, total = np.ones(places.shape), np.full(orders, float(right))
    return float(_OF_CURVE[convention](found / places, gained, total).mean())


def chance(labels: np.ndarray, convention: str) -> float:
    """The mean average precision of a random order: of no interpolation exactly, of the other conventions in a few
    hundred random orders. Labels that no image has are left out, as in `macro_average_precision`.

    Args:
        labels: (n, k) ones and zeros, and `UNJUDGED`.
        convention: a name of `CONVENTIONS`.
    """
    right, judged = (labels == 1).sum(axis=0), (labels != UNJUDGED).sum(axis=0)
    pairs = [(int(r), int(n)) for r, n in zip(right, judged, strict=True) if r]
    if not pairs:
        return float("nan")
    if convention == "map":
        return float(np.mean([by_chance(*pair) for pair in pairs]))
    return float(np.mean([_by_drawn_orders(convention, *pair) for pair in pairs]))


def _curve(
    scores: np.ndarray, positive: np.ndarray, counts: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At each threshold, from the highest: precision and positives gained, (b, t); and all positives, (b,)."""
    order = np.argsort(-scores, kind="stable")
    weight = np.ones((1, len(scores))) if counts is None else counts[:, order].astype(np.float64)
    if not len(scores):
        return weight, weight, np.zeros(len(weight))
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    seen = np.cumsum(weight, axis=1)[:, ends]
    found = np.cumsum(weight * positive[order], axis=1)[:, ends]
    precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
    return precision, np.diff(found, axis=1, prepend=0.0), found[:, -1]


def _envelope(precision: np.ndarray) -> np.ndarray:
    return np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]


def _share(sums: np.ndarray, total: np.ndarray) -> np.ndarray:
    return np.divide(sums, total, out=np.full_like(total, np.nan), where=total > 0)


def _area_below_envelope(precision: np.ndarray, gained: np.ndarray, total: np.ndarray) -> np.ndarray:
    return _share((gained * _envelope(precision)).sum(axis=1), total)


def _at_eleven_points(precision: np.ndarray, gained: np.ndarray, total: np.ndarray) -> np.ndarray:
    envelope, found = _envelope(precision), np.cumsum(gained, axis=1)
    points = []
    for tenth in range(11):
        reached = 10 * found >= tenth * total[:, None]  # in whole numbers: 3 of 10 is a recall of 0.3
        first = reached.argmax(axis=1)
        points.append(np.where(reached.any(axis=1), envelope[np.arange(len(envelope)), first], 0.0))
    return _share(np.mean(points, axis=0) * total, total)


_OF_CURVE = {"map_envelope": _area_below_envelope, "map_11_point": _at_eleven_points}
"""What becomes of a curve, by the name of the metric."""
