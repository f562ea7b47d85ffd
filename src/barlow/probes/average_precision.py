"""Average precision of a ranking, by each of the three conventions that are in use. They are three numbers."""

from collections.abc import Callable, Mapping

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
    precision, gained, total = _curve(scores, positive, counts)
    return _share((gained * _envelope(precision)).sum(axis=1), total)


def eleven_point_average_precision(
    scores: np.ndarray, positive: np.ndarray, counts: np.ndarray | None = None
) -> np.ndarray:
    """The mean of the highest precision at a recall of at least 0, 0.1, …, 1.

    Source: M. Everingham et al., "The PASCAL Visual Object Classes Challenge 2007", the official rule of that year.
    Convention: equal scores are one threshold. Arguments and result as for `average_precision`.
    """
    precision, gained, total = _curve(scores, positive, counts)
    envelope, found = _envelope(precision), np.cumsum(gained, axis=1)
    points = []
    for tenth in range(11):
        reached = 10 * found >= tenth * total[:, None]  # in whole numbers: 3 of 10 is a recall of 0.3
        first = reached.argmax(axis=1)
        points.append(np.where(reached.any(axis=1), envelope[np.arange(len(envelope)), first], 0.0))
    return _share(np.mean(points, axis=0) * total, total)


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


def prevalence(labels: np.ndarray) -> float:
    """The mean over labels of the share of images that have it: the mean average precision of a random order of many
    images. Labels that no image has are left out, as in `macro_average_precision`."""
    positive, judged = (labels == 1).sum(axis=0), (labels != UNJUDGED).sum(axis=0)
    return float((positive[positive > 0] / judged[positive > 0]).mean()) if (positive > 0).any() else float("nan")


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
