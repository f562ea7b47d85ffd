"""What a protocol predicted, and how right it was."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float64, Int64

from barlow.probes.average_precision import CONVENTIONS, macro_average_precision
from barlow.probes.intervals import (
    Difference,
    Score,
    bootstrap,
    bootstrap_on_logits,
    mean_of_differences,
    mean_of_shares,
    paired,
    wilson,
)

TOP_FIVE_FROM = 10
"""Top-5 is reported from this number of classes on. With fewer, more than half of all guesses would be right."""

UNEVEN = 1.5
"""`balanced_top1` is reported where the largest class of the test images has more than so many times the images of the
smallest. Where the classes are alike it says what top-1 says, and would only fill the table."""

BEST_EPOCH, BALANCED = "best_epoch_top1", "balanced_top1"
"""The first is the one metric that is chosen on the test images themselves. It is never the reported number and has no
gain."""


class Prediction(Protocol):
    """What a protocol says of the test images without knowing their labels, to be set beside them.

    It is `Predicted` of one set of training images, `barlow.probes.drawn.Drawn` of several draws of them, or
    `barlow.probes.ranked.Ranked` of a search.
    """

    @property
    def notes(self) -> Mapping[str, Any]:
        """What was chosen on the way, for the record."""
        ...

    def measured(self, labels: np.ndarray) -> dict[str, Score]:
        """Every metric, by name."""
        ...

    def compared(self, other: Any, labels: np.ndarray) -> dict[str, Difference]:
        """How much better it is than another prediction of its own kind, metric by metric, with paired intervals."""
        ...


def measure(prediction: Prediction, labels: np.ndarray) -> dict[str, Score]:
    """Compares a prediction with the test labels: every metric by name, with its interval."""
    return prediction.measured(labels)


def compare(prediction: Prediction, other: Prediction, labels: np.ndarray) -> dict[str, Difference]:
    """How much better one prediction is than another of the same protocol and test images, metric by metric.

    Convention: the intervals are paired. Images that both get right, or both get wrong, say nothing about which of the
    two is better, so such an interval is narrower than those of the two scores let one think. `best_epoch_top1` is left
    out, because it was chosen on these images.

    Args:
        prediction: the one that is judged.
        other: what it is compared with.
        labels: of the test images of both.
    """
    return prediction.compared(other, labels)


def compare_means(
    predictions: Sequence[Prediction], others: Sequence[Prediction], labels: np.ndarray
) -> dict[str, Difference]:
    """How much better some predictions are than others on average, as for encoders of several seeds each.

    Convention: the mean of `compare` over all pairs of one and another, and of the ends of its intervals. As a mean
    varies no more than what it is of does on average, this interval is rather too wide. It is about the choice of test
    images, as that of a single pair is, and says nothing about further seeds.
    """
    pairs = [compare(one, other, labels) for one in predictions for other in others]
    found = {}
    for name in pairs[0]:
        value, low, high = (
            math.fsum(getattr(pair[name], end) for pair in pairs) / len(pairs) for end in ("value", "low", "high")
        )
        found[name] = Difference(value, low, high, pairs[0][name].n)
    return found


@dataclass(frozen=True)
class Predicted:
    """Scores of test images, made without knowing their labels.

    Args:
        scores: one row per test image, one column per class (or label): probabilities or shares of votes, in [0, 1].
        classes: the class number of each column, ascending, or None where an image may have several labels.
        notes: what the protocol chose on the way, for the record (k, regularisation strength, whether it converged).
        by_epoch: for a protocol that trains, the class number of each test image after each epoch. The last row agrees
            with `scores`, so the reported number is the last epoch's, whatever the others were.
        conventions: where an image may have several labels, the metrics, of `average_precision.CONVENTIONS`. The scores
            may then be any numbers.
    """

    scores: Float64[np.ndarray, "n k"]
    classes: Int64[np.ndarray, "k"] | None
    notes: Mapping[str, Any] = field(default_factory=dict)
    by_epoch: Int64[np.ndarray, "epochs n"] | None = None
    conventions: Sequence[str] = ("map",)

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

    def measured(self, labels: np.ndarray) -> dict[str, Score]:
        """Every metric, by name.

        Convention: the metrics are `top1` and, from ten classes on, `top5`, with Wilson's interval; where the classes
        of the test images are uneven (`UNEVEN`), `balanced_top1` too, the mean over the classes of the share that is
        right. Where an image may have several labels the metric is `map`, the macro mean average precision, with a
        bootstrap interval on the scale of logits (`bootstrap_on_logits`). In top-5 a class counts only if its score is
        above 0: a class that got no vote was not among the answers. A test image of a class that the training set lacks
        is not left out but counts as an error. A protocol that trains has `best_epoch_top1` too, the highest top-1 that
        any epoch has on these images, as the papers print it. Its interval is that of one epoch, and does not account
        for the choice.
        """
        if self.classes is None:
            return {name: _mean_average_precision(self.scores, labels, name) for name in self.conventions}
        found = measured_right(right_answers(self.answers, labels, len(self.classes)), labels)
        if self.by_epoch is not None:
            found[BEST_EPOCH] = wilson(int(_hits_by_epoch(self.by_epoch, labels).max()), len(labels))
        return found

    def compared(self, other: "Predicted", labels: np.ndarray) -> dict[str, Difference]:
        """How much better it is, metric by metric: `compare`."""
        if self.classes is None or other.classes is None:
            return {name: _gain_of_map(self.scores, other.scores, labels, name) for name in self.conventions}
        mine = right_answers(self.answers, labels, len(self.classes))
        return compared_right(mine, right_answers(other.answers, labels, len(other.classes)), labels)

    @property
    def answers(self) -> Int64[np.ndarray, "n five"]:
        """The five classes of the highest scores of each image, or as many as there are, best first. -1 stands for a
        class whose score is 0: it was not among the answers."""
        assert self.classes is not None
        five = highest(self.scores, 5)
        answered = np.take_along_axis(self.scores, five, axis=1) > 0
        answered[:, 0] = True
        return np.where(answered, self.classes[five], -1)


def highest(scores: np.ndarray, count: int) -> Int64[np.ndarray, "n count"]:
    """The columns of the highest scores of each row, or all if there are no more; of equal scores the first column."""
    left = scores.copy()
    best = np.empty((len(scores), min(count, scores.shape[1])), np.int64)
    for place in range(best.shape[1]):
        best[:, place] = left.argmax(axis=1)
        np.put_along_axis(left, best[:, place : place + 1], -np.inf, axis=1)
    return best


def right_answers(answers: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """Which test images are right, by metric.

    Args:
        answers: (n, 5) the best classes of each image, or as many as there are, best first.
        labels: (n,) the true ones.
        classes: how many classes there were to choose from.
    """
    right = {"top1": answers[:, 0] == labels}
    if classes >= TOP_FIVE_FROM:
        right["top5"] = (answers == labels[:, None]).any(axis=1)
    return right


def measured_right(right: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, Score]:
    """The scores of answers of which is known which are right."""
    found = {name: wilson(int(hits.sum()), len(labels)) for name, hits in right.items()}
    if uneven(labels):
        rows = [labels == c for c in np.unique(labels)]
        found[BALANCED] = mean_of_shares([wilson(int(right["top1"][r].sum()), int(r.sum())) for r in rows])
    return found


def value_of_right(right: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, float]:
    """The same without intervals."""
    found = {name: float(hits.mean()) for name, hits in right.items()}
    if uneven(labels):
        found[BALANCED] = float(np.mean([right["top1"][labels == c].mean() for c in np.unique(labels)]))
    return found


def compared_right(
    mine: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], labels: np.ndarray
) -> dict[str, Difference]:
    """The differences of two lists of answers of which is known which are right."""
    found = {name: paired(right, theirs[name]) for name, right in mine.items()}
    if uneven(labels):
        rows = [labels == c for c in np.unique(labels)]
        found[BALANCED] = mean_of_differences([paired(mine["top1"][r], theirs["top1"][r]) for r in rows])
    return found


def uneven(labels: np.ndarray) -> bool:
    """Whether the classes of test images differ so much in size that top-1 is mostly about the large ones."""
    counts = np.unique(labels, return_counts=True)[1]
    return bool(counts.max() > UNEVEN * counts.min())


def best_epoch(predicted: Predicted, labels: np.ndarray) -> int | None:
    """The epoch, counted from 1, that `best_epoch_top1` is about, or None for a probe without epochs.

    Of epochs that are equally good it is the first.
    """
    if predicted.by_epoch is None:
        return None
    return int(_hits_by_epoch(predicted.by_epoch, labels).argmax()) + 1


def _hits_by_epoch(by_epoch: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (by_epoch == labels).sum(axis=1)


def _mean_average_precision(scores: np.ndarray, labels: np.ndarray, convention: str) -> Score:
    average = CONVENTIONS[convention]
    value = float(macro_average_precision(scores, labels, None, average)[0])
    if np.isnan(value):
        raise ValueError("no test image has any label, so average precision is undefined; check the test labels")
    right = int((labels == 1).sum())
    low, high = bootstrap_on_logits(
        lambda counts: macro_average_precision(scores, labels, counts, average), value, len(labels), right
    )
    return Score(value, min(low, value), max(high, value), len(labels))


def _gain_of_map(mine: np.ndarray, theirs: np.ndarray, labels: np.ndarray, convention: str) -> Difference:
    average = CONVENTIONS[convention]

    def gain(counts: np.ndarray | None) -> np.ndarray:
        better, worse = (macro_average_precision(scores, labels, counts, average) for scores in (mine, theirs))
        return np.asarray(better - worse)

    value = float(gain(None)[0])
    low, high = bootstrap(gain, len(labels))
    return Difference(value, min(low, value), max(high, value), len(labels))
