"""Evaluation of frozen features: (train features, test features) → {metric: value with interval}."""

from collections.abc import Mapping
from typing import Protocol

from barlow.probes.features import FeatureSet
from barlow.probes.intervals import Score
from barlow.probes.knn import EuclideanKNN, WeightedKNN
from barlow.probes.linear import LinearAdam, LinearSGD
from barlow.probes.logistic import Logistic
from barlow.probes.metrics import Predicted, measure
from barlow.types import Features

__all__ = ["DEFAULT_PROBES", "PROBES", "FeatureSet", "Predicted", "Probe", "Score", "measure"]


class Probe(Protocol):
    """A way of reading features: a frozen dataclass, constructible without arguments.

    Contract (tests/contracts/test_probes.py checks all in PROBES):
      1. `predict` does not get the test labels, so nothing can be fitted to them. Whatever has to be chosen is chosen
         on a part of `train`. A probe that trains may hand over the answers of every epoch (`Predicted.by_epoch`).
         `measure` then reports the best epoch apart; top-1 and top-5 are always the last epoch's;
      2. calling the probe is `measure(predict(train, test.features), test.labels)`;
      3. a test row's scores depend on that row and `train` only, and equal inputs give equal scores;
      4. a `train` with one class is a ValueError, and images with several labels are accepted.
    """

    def predict(self, train: FeatureSet, test: Features) -> Predicted: ...

    def __call__(self, train: FeatureSet, test: FeatureSet) -> dict[str, Score]: ...


PROBES: Mapping[str, type[Probe]] = {
    "knn": WeightedKNN,
    "knn5_euclidean": EuclideanKNN,
    "logistic": Logistic,
    "linear_sgd": LinearSGD,
    "linear_adam": LinearAdam,
}
"""Every probe by its kind."""

DEFAULT_PROBES = ("knn", "knn5_euclidean", "logistic", "linear_sgd")
"""The probes of an evaluation that names none. The others repeat one paper's protocol and take longer."""
