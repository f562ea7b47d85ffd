"""Predictions from several draws of training images: few labels, drawn again and again."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from barlow.probes.average_precision import CONVENTIONS, macro_average_precision
from barlow.probes.intervals import Difference, Score, over_draws
from barlow.probes.metrics import Predicted, compared_right, measured_right, right_answers, value_of_right

ROUNDING = 1e-12
"""Values of draws that are no farther apart are one value."""


@dataclass(frozen=True)
class Drawn:
    """What was predicted after each draw.

    Its numbers are means over the draws. The interval is over the draws too, on the same test images: with few labels
    it is the draw that decides. Where all draws have the same value, they say nothing of how far it can be trusted, and
    the interval is over the test images: of a single draw, of draws that all have the same images because a class has
    no more of them, and where everything is right after every draw.

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
        values = self._values(labels)
        of_images = self._over_images(values, lambda draw: self._measured_after(draw, labels))
        found = {}
        for name, each in values.items():
            mean, low, high = of_images[name] if name in of_images else over_draws(each)
            found[name] = Score(mean, max(0.0, low), min(1.0, high), len(labels))
        return found

    def compared(self, other: "Drawn", labels: np.ndarray) -> dict[str, Difference]:
        """The mean difference of every metric, paired draw by draw: equal seeds draw the same training images."""
        worse = other._values(labels)
        values = {name: each - worse[name] for name, each in self._values(labels).items()}
        of_images = self._over_images(values, lambda draw: self._compared_after(draw, other, labels))
        found = {}
        for name, each in values.items():
            mean, low, high = of_images[name] if name in of_images else over_draws(each)
            found[name] = Difference(mean, max(-1.0, low), min(1.0, high), len(labels))
        return found

    def _over_images(
        self, values: Mapping[str, np.ndarray], after: Callable[[int], Mapping[str, Score] | Mapping[str, Difference]]
    ) -> dict[str, tuple[float, float, float]]:
        """Of metrics that have one value after all draws: it, and the mean ends of the intervals over the test images.

        A mean over draws moves with the test images no more than each of them does on average, so such an interval is
        rather too wide than too narrow. Where all draws give the same answers it is exactly that of one of them.
        """
        alike = [name for name, each in values.items() if np.ptp(each) <= ROUNDING]
        if not alike:
            return {}
        draws = [after(draw) for draw in range(self._draws())]
        return {
            name: (
                _mean([draw[name].value for draw in draws]),
                _mean([draw[name].low for draw in draws]),
                _mean([draw[name].high for draw in draws]),
            )
            for name in alike
        }

    def _draws(self) -> int:
        given = self.scores if self.answers is None else self.answers
        assert given is not None
        return len(given)

    def _measured_after(self, draw: int, labels: np.ndarray) -> dict[str, Score]:
        """Every metric after one draw, with intervals over the test images."""
        if self.answers is None:
            return self._labelled(draw).measured(labels)
        return measured_right(right_answers(self.answers[draw], labels, self.classes), labels)

    def _compared_after(self, draw: int, other: "Drawn", labels: np.ndarray) -> dict[str, Difference]:
        if self.answers is None or other.answers is None:
            return self._labelled(draw).compared(other._labelled(draw), labels)
        mine, theirs = (right_answers(each, labels, self.classes) for each in (self.answers[draw], other.answers[draw]))
        return compared_right(mine, theirs, labels)

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


def _mean(values: Sequence[float]) -> float:
    """The mean; of equal values exactly that value."""
    return values[0] if len(set(values)) == 1 else math.fsum(values) / len(values)
