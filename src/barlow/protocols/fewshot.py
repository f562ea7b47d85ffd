"""A few labelled images a class, drawn 100 times: the class whose mean is nearest."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from barlow.probes.drawn import Drawn
from barlow.probes.features import FeatureSet, check
from barlow.probes.intervals import Score
from barlow.probes.metrics import highest, measure
from barlow.probes.splits import of_each_class
from barlow.protocols import check_labels
from barlow.types import Features

__all__ = ["FewShot"]


@dataclass(frozen=True)
class FewShot:
    """Some images of every class are drawn, and a test image gets the class whose mean of these is nearest.

    It is repeated for many draws, and all test images are classified after each. The number is the mean over the draws,
    with an interval over the draws. Where no class has more images than are asked for, every draw has the same ones,
    and the interval is over the test images.

    Source: Y. Wang et al., "SimpleShot: revisiting nearest-neighbor classification for few-shot learning" (2019), with
    its CL2N features: a mean is taken off, and each row is scaled to unit length. Nearest means need no setting that
    would have to be chosen, and the paper found them as good as the methods of its time that adapt a network to each
    task; logistic regression on one image a class has nothing to choose its penalty by.
    Convention: Euclidean distance to the mean of the scaled rows; of equally near classes the smallest number wins. A
    class with fewer images than are asked for gives all it has, in every draw. The images of draw i depend on the seed,
    i and the training labels only, so encoders are compared on the same draws.
    Deviation: the paper draws tasks of five classes and fifteen test images each, from classes that the network has not
    seen. Here every task has all classes and all test images, so the numbers are lower than those of five-way tables.
    The mean that is taken off is that of all training images (whose labels are not looked at), in place of that of the
    classes that the network was trained on.

    Args:
        shots: images of each class.
        draws: how many times they are drawn.
        seed: of the draws.
    """

    shots: int = 5
    draws: int = 100
    seed: int = 0

    label: ClassVar[str] = "{}-shot"
    parameter: ClassVar[str | None] = "shots"
    usual: ClassVar[tuple[float, ...]] = (1, 5, 10)
    several_labels: ClassVar[bool] = False
    trains_encoder: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.shots < 1 or self.draws < 1:
            raise ValueError(f"{self.shots} shots and {self.draws} draws; use at least 1 of each")

    def predict(self, train: FeatureSet, test: Features) -> Drawn:
        check(train, test)
        check_labels({f"fewshot:{self.shots}": self}, train.several_labels)
        mean = train.features.double().mean(dim=0)
        x, z = _directions(train.features, mean), _directions(test.to(train.features), mean)
        classes = np.unique(train.labels).astype(np.int64)
        answers = np.empty((self.draws, len(test), min(5, len(classes))), np.int64)
        for draw in range(self.draws):
            rows = of_each_class(train.labels, self.shots, self.seed, draw)
            means = torch.stack([x[members].mean(dim=0) for members in rows])
            likeness = z @ means.T - means.square().sum(dim=1) / 2
            answers[draw] = classes[highest(likeness.cpu().numpy(), answers.shape[2])]
        fewest = int(np.unique(train.labels, return_counts=True)[1].min())
        notes = {"draws": self.draws, "images_a_class": self.shots, "fewest_of_a_class": min(fewest, self.shots)}
        return Drawn(answers, None, len(classes), notes)

    def __call__(self, train: FeatureSet, test: FeatureSet) -> dict[str, Score]:
        return measure(self.predict(train, test.features), test.labels)


def _directions(features: Features, mean: Tensor) -> Tensor:
    """Rows minus the mean, at unit length: in float64 to that point, for features that point nearly the same way."""
    return torch.cat([F.normalize(rows.double() - mean, dim=1).float() for rows in features.split(8192)])
