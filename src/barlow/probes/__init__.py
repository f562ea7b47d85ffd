"""Evaluation of frozen features: (train features, test features) → {metric: value with interval}."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch

from barlow.probes.features import FeatureSet
from barlow.probes.intervals import Score
from barlow.probes.knn import EuclideanKNN, WeightedKNN
from barlow.probes.linear import LinearAdam, LinearSGD
from barlow.probes.logistic import Logistic
from barlow.probes.metrics import Predicted, measure
from barlow.types import Features

__all__ = [
    "DEFAULT_PROBES",
    "PROBES",
    "FeatureSet",
    "LinearSGD",
    "Predicted",
    "Probe",
    "Score",
    "build_probes",
    "measure",
]


class Probe(Protocol):
    """A way of reading features: a frozen dataclass that needs no arguments.

    Contract (tests/contracts/test_probes.py checks it for all in PROBES):
      1. `predict` does not get the test labels, so nothing can be fitted to them. Whatever is chosen is chosen on a
         part of `train`. A probe that trains may hand over its predictions after every epoch (`Predicted.by_epoch`),
         from which `measure` finds the best epoch; top-1 and top-5 are always those of the last epoch;
      2. calling the probe is `measure(predict(train, test.features), test.labels)`;
      3. the scores of a test row depend on that row and `train` only; equal inputs give equal scores;
      4. a `train` of one class is a ValueError; several labels an image are accepted.
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
"""What an evaluation measures if it is not told. Missing is `linear_adam`, the protocol of one paper, which takes
longer."""


def build_probes(kinds: Sequence[str] | None = None, device: torch.device | None = None) -> dict[str, Probe]:
    """Probes by kind, with their papers' settings.

    Args:
        kinds: keys of `PROBES`; `DEFAULT_PROBES` if not given.
        device: a GPU for the probes that train. The features of each of their steps are moved there.

    Raises:
        ValueError: there is no probe of that kind.
    """
    kinds = DEFAULT_PROBES if kinds is None else kinds
    if unknown := [kind for kind in kinds if kind not in PROBES]:
        raise ValueError(f"unknown probe {unknown[0]!r}; use one or more of {', '.join(PROBES)}")
    probes: dict[str, Probe] = {}
    for kind in kinds:
        probe = PROBES[kind]()
        if isinstance(probe, LinearSGD | LinearAdam) and device is not None and device.type == "cuda":
            probe = replace(probe, device=str(device))
        probes[kind] = probe
    return probes
