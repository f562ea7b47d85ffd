"""The 20 nearest neighbours by cosine vote, the nearest most: nothing is fitted."""

from dataclasses import dataclass
from typing import ClassVar

from barlow.probes.features import FeatureSet, check
from barlow.probes.intervals import Score
from barlow.probes.metrics import Predicted, measure
from barlow.probes.neighbours import most_similar
from barlow.protocols._votes import votes
from barlow.types import Features

__all__ = ["WeightedKNN"]


@dataclass(frozen=True)
class WeightedKNN:
    """The k training images of highest cosine vote for their class, each with weight exp(cos / temperature).

    Source: Z. Wu et al., "Unsupervised feature learning via non-parametric instance discrimination" (CVPR 2018),
    section 3.4, with temperature 0.07; k = 20 as in later self-supervised work (the paper has 200, for ImageNet).
    Convention: features are scaled to unit length and not centred. Of classes with equal votes the smallest number
    wins. Where an image may have several labels, the score of a label is the weighted share of neighbours that have it.
    Deviation: none.

    Args:
        k: number of neighbours. With fewer training images, all of them vote.
        temperature: of the vote, above 0. A small one listens to the nearest neighbours only.
    """

    label: ClassVar[str] = "kNN"
    parameter: ClassVar[str | None] = "k"
    usual: ClassVar[tuple[float, ...]] = ()
    several_labels: ClassVar[bool] = True
    trains_encoder: ClassVar[bool] = False

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
