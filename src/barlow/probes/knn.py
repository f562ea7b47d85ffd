"""Nearest neighbours: an image gets the class of the training images most like it. Nothing is fitted."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from barlow.probes.features import FeatureSet, check
from barlow.probes.intervals import Score
from barlow.probes.metrics import Predicted, measure
from barlow.probes.neighbours import most_similar, nearest
from barlow.types import Features


def votes(
    weights: Float[Tensor, "m k"], positions: Int64[Tensor, "m k"], labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Adds up the neighbours' votes: each test row's share for every class, and the class of each column.

    Where an image may have several labels, the share is that of the neighbours that have the label, and the classes are
    None.
    """
    weights = weights.double().cpu()
    weights = weights / weights.sum(dim=1, keepdim=True)
    chosen = positions.cpu().numpy()
    if labels.ndim == 2:
        rows = [
            torch.einsum("mk,mkc->mc", w, torch.from_numpy(labels[i].astype(np.float64)))
            for w, i in zip(weights.split(1024), np.split(chosen, range(1024, len(chosen), 1024)), strict=True)
        ]
        return torch.cat(rows).numpy(), None
    classes, columns = np.unique(labels, return_inverse=True)
    share = torch.zeros(len(chosen), len(classes), dtype=torch.float64)
    share.scatter_add_(1, torch.from_numpy(columns[chosen]), weights)
    return share.numpy(), classes.astype(np.int64)


@dataclass(frozen=True)
class WeightedKNN:
    """The k training images of highest cosine vote for their class, each with weight exp(cos / temperature).

    Source: Z. Wu et al., "Unsupervised feature learning via non-parametric instance discrimination" (CVPR 2018),
    section 3.4, with temperature 0.07; k = 20 as in later self-supervised work (the paper has 200, for ImageNet).
    Convention: features are scaled to unit length and not centred. Of classes with equal votes the smallest number
    wins. Where an image may have several labels, the score of a label is the weighted share of neighbours that have it.

    Args:
        k: number of neighbours. With fewer training images, all of them vote.
        temperature: of the vote, above 0. A small one listens to the nearest neighbours only.
    """

    k: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if self.k < 1 or not self.temperature > 0:
            raise ValueError(
                f"k {self.k} and temperature {self.temperature}; use k of at least 1 and a temperature above 0"
            )

    def predict(self, train: FeatureSet, test: Features) -> Predicted:
        check(train, test)
        k = min(self.k, len(train))
        cosines, positions = most_similar(train.features, test.to(train.features), k)
        # Relative to the best cosine the shares are the same, and nothing overflows at a small temperature.
        weights = ((cosines - cosines[:, :1]).double() / self.temperature).exp()
        shares, classes = votes(weights, positions, train.labels)
        return Predicted(shares, classes, {"k": k, "temperature": self.temperature, "distance": "cosine"})

    def __call__(self, train: FeatureSet, test: FeatureSet) -> dict[str, Score]:
        return measure(self.predict(train, test.features), test.labels)


@dataclass(frozen=True)
class EuclideanKNN:
    """The k training images at the smallest Euclidean distance vote for their class, each with weight 1.

    Source: the released evaluation of W-MSE (Ermolov et al., ICML 2021), with k = 5, on features as they are.
    Convention: of classes with equal votes the smallest number wins. Where an image may have several labels, the score
    of a label is the share of neighbours that have it.

    Args:
        k: number of neighbours. With fewer training images, all of them vote.
    """

    k: int = 5

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is {self.k}; use at least 1")

    def predict(self, train: FeatureSet, test: Features) -> Predicted:
        check(train, test)
        k = min(self.k, len(train))
        distances, positions = nearest(train.features, test.to(train.features), k)
        shares, classes = votes(torch.ones_like(distances), positions, train.labels)
        return Predicted(shares, classes, {"k": k, "distance": "euclidean"})

    def __call__(self, train: FeatureSet, test: FeatureSet) -> dict[str, Score]:
        return measure(self.predict(train, test.features), test.labels)
