"""The 5 nearest neighbours by Euclidean distance vote: W-MSE's protocol."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from barlow.probes.features import FeatureSet, check, squarable
from barlow.probes.intervals import Score
from barlow.probes.metrics import Predicted, measure
from barlow.probes.neighbours import nearest
from barlow.protocols._votes import votes
from barlow.types import Features

__all__ = ["EuclideanKNN"]


@dataclass(frozen=True)
class EuclideanKNN:
    """The k training images at the smallest Euclidean distance vote for their class, each with weight 1.

    Source: the released evaluation of W-MSE (Ermolov et al., ICML 2021), with k = 5, on features as they are.
    Convention: of classes with equal votes the smallest number wins. Where an image may have several labels, the score
    of a label is the share of neighbours that have it.
    Deviation: none.

    Args:
        k: number of neighbours. With fewer training images, all of them vote.
    """

    label: ClassVar[str] = "5-NN"
    parameter: ClassVar[str | None] = None
    usual: ClassVar[tuple[float, ...]] = ()
    several_labels: ClassVar[bool] = True
    trains_encoder: ClassVar[bool] = False

    k: int = 5

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is {self.k}; use at least 1")

    def predict(self, train: FeatureSet, test: Features) -> Predicted:
        check(train, test)
        k = min(self.k, len(train))
        queries, factor = test.to(train.features), squarable(train.features, test)
        searched = train.features if factor == 1 else train.features * factor
        distances, positions = nearest(searched, queries if factor == 1 else queries * factor, k)
        shares, classes = votes(torch.ones_like(distances), positions, train.labels)
        return Predicted(shares, classes, {"k": k, "distance": "euclidean"})

    def __call__(self, train: FeatureSet, test: FeatureSet) -> dict[str, Score]:
        return measure(self.predict(train, test.features), test.labels)
