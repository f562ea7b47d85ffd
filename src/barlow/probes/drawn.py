"""Predictions from several draws of training images: few labels, drawn again and again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from barlow.probes.average_precision import CONVENTIONS, macro_average_precision
from barlow.probes.intervals import Difference, Score, over_draws
from barlow.probes.metrics import Predicted, compared_right, measured_right, right_answers, value_of_right


@dataclass(frozen=True)
class Drawn:
    """What was predicted after each draw.

    Its numbers are means over the draws. The interval is over the draws too, on the same test images: with few labels
    it is the draw that decides. Of a single draw it is over the test images, as there is nothing else to go by.

    Args:
        answers: the five best classes of each test image (or as many as there are) after each draw, best first; None
            where an image may have several labels.
        scores: where an image may have several labels, a score for each of them after each draw.
        classes: how many classes or labels there are.
        notes: for the record.
        conventions: as of `Predicted`.
    """

    answers: Int64[np.ndarray, "draws n five"] | None
    scores: Float64[np.ndarray, "draws n k"] | None
    classes: int
    notes: Mapping[str, Any] = field(default_factory=dict)
    conventions: Sequence[str] = ("map",)

    def __post_init__(self) -> None:
        assert (self.answers is None) != (self.scores is None), "classes, or several labels an image"

    def measured(self, labels: np.ndarray) -> dict[str, Score]:
        """The mean of every metric over the draws."""
        if self.scores is not None and len(self.scores) == 1:
            return self._labelled(0).measured(labels)
        if self.answers is not None and len(self.answers) == 1:
            return measured_right(right_answers(self.answers[0], labels, self.classes), labels)
        found = {}
        for name, values in self._values(labels).items():
            mean, low, high = over_draws(values)
            found[name] = Score(mean, max(0.0, low), min(1.0, high), len(labels))
        return found

    def compared(self, other: "Drawn", labels: np.ndarray) -> dict[str, Difference]:
        """The mean difference of every metric, paired draw by draw: equal seeds draw the same training images."""
        if self.scores is not None and len(self.scores) == 1:
            return self._labelled(0).compared(other._labelled(0), labels)
        if self.answers is not None and other.answers is not None and len(self.answers) == 1:
            mine, theirs = (right_answers(each.answers[0], labels, self.classes) for each in (self, other))  # type: ignore[index]
            return compared_right(mine, theirs, labels)
        found, worse = {}, other._values(labels)
        for name, values in self._values(labels).items():
            mean, low, high = over_draws(values - worse[name])
            found[name] = Difference(mean, max(-1.0, low), min(1.0, high), len(labels))
        return found

    def _labelled(self, draw: int) -> Predicted:
        assert self.scores is not None
        return Predicted(self.scores[draw], None, conventions=self.conventions)

    def _values(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Every metric of each draw, (draws,)."""
        if self.answers is not None:
            each = [value_of_right(right_answers(a, labels, self.classes), labels) for a in self.answers]
            return {name: np.array([values[name] for values in each]) for name in each[0]}
        assert self.scores is not None
        return {
            name: np.concatenate([macro_average_precision(s, labels, None, CONVENTIONS[name]) for s in self.scores])
            for name in self.conventions
        }
