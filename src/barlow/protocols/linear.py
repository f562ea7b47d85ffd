"""The papers' linear layer (`linear_sgd`) with its learning rate chosen on a part of the training images."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from barlow.probes.average_precision import macro_average_precision
from barlow.probes.features import FeatureSet, check
from barlow.probes.intervals import Score
from barlow.probes.metrics import Predicted, measure
from barlow.probes.splits import split, subset
from barlow.protocols._layer import Diverged
from barlow.protocols.linear_sgd import LinearSGD
from barlow.types import Features

__all__ = ["Linear"]

RATES = (0.003, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0, 3.0)
"""Among them Barlow Twins' 0.3 and VICReg's 0.02. Features of another scale need another rate."""


@dataclass(frozen=True)
class Linear:
    """A linear layer is trained for 100 epochs at each of several rates, in one pass, and then once more at the best.

    The rates are compared by the score on held-out training images (top-1, or mean average precision where an image may
    have several labels). The split is stratified, and of at most `selection_rows` training images. Then all training
    images are used. A rate at which training diverges is out of the question.

    Source: `linear_sgd`, which is the protocol of Barlow Twins and VICReg. That the rate depends on the encoder is seen
    in their settings: 0.3 and 0.02 for the same script.
    Convention: as of `linear_sgd`; of equally good rates the smallest is taken.
    Deviation: the papers have one rate for all encoders of a table, chosen on the images of the table.

    Args:
        rates: of the first epoch, ascending.
        selection_rows: at most this many training images are used to choose the rate.
        held_out: the part of them that scores each rate, in (0, 1).
        epochs: passes over the training set.
        seed: of the split, of the first weights and of the order of the images.
        device: where it trains; by default where the features are.
    """

    rates: tuple[float, ...] = RATES
    selection_rows: int = 10_000
    held_out: float = 0.2
    epochs: int = 100
    seed: int = 0
    device: str | None = None

    label: ClassVar[str] = "linear"
    parameter: ClassVar[str | None] = None
    usual: ClassVar[tuple[float, ...]] = ()
    several_labels: ClassVar[bool] = True
    trains_encoder: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.rates or list(self.rates) != sorted(self.rates):
            raise ValueError(f"rates are {self.rates}; use one or more positive rates, ascending")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}; use a part between 0 and 1")

    def predict(self, train: FeatureSet, test: Features) -> Predicted:
        check(train, test)
        generator = np.random.default_rng(self.seed)
        some = subset(train.labels, self.selection_rows, generator)
        fit, held = (some[part] for part in split(train.labels[some], self.held_out, generator))
        scores = {}
        if len(held):
            scores = self._scores(_part(train, fit), _part(train, held))
        possible = {rate: score for rate, score in scores.items() if score is not None}
        if scores and not possible:
            rates = ", ".join(f"{rate:g}" for rate in self.rates)
            raise Diverged(f"training diverges at every rate of {rates}; knn, logistic and svm depend on no rate")
        # Without images to choose by it is the middle one: a rate that suits nothing in particular.
        best = max(possible, key=possible.__getitem__) if possible else self.rates[len(self.rates) // 2]
        found = self._at(best).predict(train, test)
        notes = {**found.notes, "held_out_images": len(held)}
        if possible:
            notes |= {"held_out_score": possible[best], "at_edge": best in (self.rates[0], self.rates[-1])}
        return replace(found, notes=notes)

    def __call__(self, train: FeatureSet, test: FeatureSet) -> dict[str, Score]:
        return measure(self.predict(train, test.features), test.labels)

    def _at(self, rate: float) -> LinearSGD:
        return LinearSGD(epochs=self.epochs, lr=rate, seed=self.seed, device=self.device)

    def _scores(self, fit: FeatureSet, held: FeatureSet) -> dict[float, float | None]:
        """What each rate reaches on held-out images; None if training diverges."""
        found = self._at(1.0).scores_at(self.rates, fit, held.features)
        return dict(zip(self.rates, (None if each is None else _score(each, fit, held) for each in found), strict=True))


def _score(scores: np.ndarray, fit: FeatureSet, held: FeatureSet) -> float:
    """Top-1, or the mean average precision where an image may have several labels."""
    if fit.several_labels:
        return float(np.nan_to_num(macro_average_precision(scores, held.labels)[0]))
    return float((np.unique(fit.labels)[scores.argmax(axis=1)] == held.labels).mean())


def _part(features: FeatureSet, rows: np.ndarray) -> FeatureSet:
    return FeatureSet(features.features[rows], features.labels[rows], features.ids[rows])
