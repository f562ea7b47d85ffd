"""What a probe predicted, and how right it was."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from barlow.probes.intervals import Difference, Score, bootstrap, paired, wilson

TOP_FIVE_FROM = 10
"""Top-5 is reported from this number of classes on. With fewer, more than half of all guesses would be right."""

BEST_EPOCH = "best_epoch_top1"
"""The one metric that is chosen on the test images themselves. It is never the reported number and has no gain."""


@dataclass(frozen=True)
class Predicted:
    """Scores of test images, made without knowing their labels.

    Args:
        scores: one row per test image, one column per class (or label): probabilities or shares of votes, in [0, 1].
        classes: the class number of each column, ascending, or None where an image may have several labels.
        notes: what the probe chose on the way, for the record (k, regularisation strength, whether it converged).
        by_epoch: for a probe that trains, the class number of each test image after each epoch. The last row agrees
            with `scores`, so the reported number is the last epoch's, whatever the others were.
    """

    scores: Float64[np.ndarray, "n k"]
    classes: Int64[np.ndarray, "k"] | None
    notes: Mapping[str, Any] = field(default_factory=dict)
    by_epoch: Int64[np.ndarray, "epochs n"] | None = None

    def __post_init__(self) -> None:
        assert self.by_epoch is None or np.array_equal(self.by_epoch[-1], self.predictions), "scores of the last epoch"

    @property
    def predictions(self) -> np.ndarray:
        """The class with the highest score of each image. Of classes with equal scores it is the smallest number."""
        if self.classes is None:
            raise ValueError("with several labels an image there is no single prediction; read the scores")
        return self.classes[self.scores.argmax(axis=1)]

    @property
    def confidence(self) -> np.ndarray:
        """The score of the prediction."""
        return self.scores.max(axis=1)


def measure(predicted: Predicted, labels: np.ndarray) -> dict[str, Score]:
    """Compares predictions with the test labels.

    Convention: the metrics are `top1` and, from ten classes on, `top5`, with Wilson's interval. Where an image may have
    several labels the metric is `map`, the macro mean average precision, with a bootstrap interval. In top-5 a class
    counts only if its score is above 0: a class that got no vote was not among the answers. A test image of a class
    that the training set lacks is not left out but counts as an error of the probe. A probe that trains has
    `best_epoch_top1` too, the highest top-1 that any epoch has on these images, as the papers print it. Its interval is
    that of one epoch, and does not account for the choice.
    """
    n = len(labels)
    if predicted.classes is None:
        return {"map": _mean_average_precision(predicted.scores, labels)}
    hits = {name: int(right.sum()) for name, right in _right(predicted, labels).items()}
    if predicted.by_epoch is not None:
        hits[BEST_EPOCH] = int(_hits_by_epoch(predicted.by_epoch, labels).max())
    return {name: wilson(count, n) for name, count in hits.items()}


def compare(predicted: Predicted, other: Predicted, labels: np.ndarray) -> dict[str, Difference]:
    """How much better one prediction is than another of the same test images, metric by metric.

    Convention: the intervals are paired. Images that both get right, or both get wrong, say nothing about which of the
    two is better, so such an interval is narrower than those of the two scores let one think. `best_epoch_top1` is left
    out, because it was chosen on these images.

    Args:
        predicted: the one that is judged.
        other: what it is compared with.
        labels: of the test images of both.
    """
    if predicted.classes is None:
        mine, theirs = predicted.scores, other.scores
        value = float(macro_average_precision(mine, labels)[0] - macro_average_precision(theirs, labels)[0])

        def difference(counts: np.ndarray) -> np.ndarray:
            return macro_average_precision(mine, labels, counts) - macro_average_precision(theirs, labels, counts)

        return {"map": _bootstrapped(difference, value, len(labels))}
    ours, others = _right(predicted, labels), _right(other, labels)
    return {name: paired(ours[name], others[name]) for name in ours}


def compare_means(
    predictions: Sequence[Predicted], others: Sequence[Predicted], labels: np.ndarray
) -> dict[str, Difference]:
    """How much better some predictions are than others on average, as for encoders of several seeds each.

    Of one each this is `compare`. Of more, the interval is a bootstrap over the test images, each with all predictions
    of it: so it says what the choice of images explains, and nothing about further seeds.
    """
    if len(predictions) == len(others) == 1:
        return compare(predictions[0], others[0], labels)
    if predictions[0].classes is None:

        def mean(of: Sequence[Predicted], counts: np.ndarray | None = None) -> np.ndarray:
            return np.mean([macro_average_precision(each.scores, labels, counts) for each in of], axis=0)

        value = float(mean(predictions)[0] - mean(others)[0])
        return {
            "map": _bootstrapped(lambda counts: mean(predictions, counts) - mean(others, counts), value, len(labels))
        }
    ours, theirs = ([_right(each, labels) for each in of] for of in (predictions, others))
    found = {}
    for name in ours[0]:
        each = np.mean([right[name] for right in ours], axis=0) - np.mean([right[name] for right in theirs], axis=0)
        found[name] = _bootstrapped(partial(_mean_of_drawn, each), float(each.mean()), len(each))
    return found


def _mean_of_drawn(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    mean: np.ndarray = counts @ values / len(values)
    return mean


def _bootstrapped(statistic: Callable[[np.ndarray], np.ndarray], value: float, n: int) -> Difference:
    low, high = bootstrap(statistic, n)
    return Difference(value, min(low, value), max(high, value), n)


def _right(predicted: Predicted, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Which test images are right, by metric."""
    assert predicted.classes is not None
    columns = np.searchsorted(predicted.classes, labels).clip(max=len(predicted.classes) - 1)
    known = predicted.classes[columns] == labels
    right = {"top1": predicted.predictions == labels}
    if len(predicted.classes) >= TOP_FIVE_FROM:
        five = np.argsort(-predicted.scores, axis=1, kind="stable")[:, :5]
        among = (five == columns[:, None]).any(axis=1)
        right["top5"] = among & known & (predicted.scores[np.arange(len(labels)), columns] > 0)
    return right


def best_epoch(predicted: Predicted, labels: np.ndarray) -> int | None:
    """The epoch, counted from 1, that `best_epoch_top1` is about, or None for a probe without epochs.

    Of epochs that are equally good it is the first.
    """
    if predicted.by_epoch is None:
        return None
    return int(_hits_by_epoch(predicted.by_epoch, labels).argmax()) + 1


def _hits_by_epoch(by_epoch: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (by_epoch == labels).sum(axis=1)


def average_precision(scores: np.ndarray, positive: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Average precision of a ranking: the sum over thresholds of the recall gained times the precision there.

    Convention: there is no interpolation. Equal scores are one threshold, so that their order cannot matter.
    (scikit-learn's `average_precision_score` has the same convention; VOC 2007's eleven points are another one.)

    Args:
        scores: (n,) one score per image.
        positive: (n,) whether the image has the label.
        counts: (b, n) how often each image is counted in each of b resamples. By default each is counted once.

    Returns:
        (b,) average precisions, NaN where no image is positive.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    weight = np.ones((1, len(scores))) if counts is None else counts[:, order].astype(np.float64)
    seen = np.cumsum(weight, axis=1)[:, ends]
    found = np.cumsum(weight * positive[order], axis=1)[:, ends]
    gained = np.diff(found, axis=1, prepend=0.0)
    precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
    total = found[:, -1]
    return np.divide((gained * precision).sum(axis=1), total, out=np.full_like(total, np.nan), where=total > 0)


def macro_average_precision(scores: np.ndarray, labels: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """The mean of average precision over the labels that at least one (drawn) image has."""
    each = np.stack([average_precision(s, p, counts) for s, p in zip(scores.T, labels.T, strict=True)])
    there = ~np.isnan(each)
    total = np.where(there, each, 0.0).sum(axis=0)
    return np.divide(total, there.sum(axis=0), out=np.full_like(total, np.nan), where=there.any(axis=0))


def _mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> Score:
    value = float(macro_average_precision(scores, labels)[0])
    if np.isnan(value):
        raise ValueError("no test image has any label, so average precision is undefined; check the test labels")
    low, high = bootstrap(lambda counts: macro_average_precision(scores, labels, counts), len(labels))
    return Score(value, min(low, value), max(high, value), len(labels))
