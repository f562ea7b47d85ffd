"""A linear layer trained by Adam for 500 epochs: W-MSE's protocol."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from barlow.probes.features import EpochFeatures, FeatureSet
from barlow.probes.intervals import Score
from barlow.probes.metrics import Predicted, measure
from barlow.protocols._layer import Layer, check_settings, first_epoch
from barlow.types import Features

__all__ = ["LinearAdam"]


@dataclass(frozen=True)
class LinearAdam:
    """A linear layer trained by Adam on the cross-entropy: the protocol of W-MSE's Table 1, on features embedded once.

    Every step of epoch e has the learning rate lr · (last_lr / lr)^(e / epochs). The reported number is the last
    epoch's, as in the paper.

    Source: W-MSE, released code (`eval/sgd.py`): 500 epochs, batch size 1000, weight decay 5e-6 added to the gradient,
    learning rate from 1e-2 to 1e-6. Weights and biases start as PyTorch's Linear does, uniform in ±1/√features.
    Deviation: the authors drop the last, short batch of an epoch. Here it is kept, so that small sets can be evaluated.
    The paper's sets are multiples of 1,000, where it makes no difference.
    Convention: as in `LinearSGD`.

    Args:
        epochs: passes over the training set.
        batch_size: images per step.
        lr: learning rate of the first epoch.
        last_lr: learning rate that one more epoch would have.
        weight_decay: this times the parameters is added to their gradient.
        seed: of the first weights and the order of the images.
        device: where it trains; by default where the features are.
    """

    label: ClassVar[str] = "Adam"
    parameter: ClassVar[str | None] = None
    usual: ClassVar[tuple[float, ...]] = ()
    several_labels: ClassVar[bool] = True
    trains_encoder: ClassVar[bool] = False

    epochs: int = 500
    batch_size: int = 1000
    lr: float = 1e-2
    last_lr: float = 1e-6
    weight_decay: float = 5e-6
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        check_settings(self.epochs, self.batch_size, self.weight_decay, lr=self.lr, last_lr=self.last_lr)

    def rate(self, epoch: int) -> float:
        """The rate of an epoch, counted from 0."""
        return self.lr * (self.last_lr / self.lr) ** (epoch / self.epochs)

    def predict(self, train: FeatureSet | EpochFeatures, test: Features) -> Predicted:
        first = first_epoch(train, test)
        bound = 1 / math.sqrt(first.features.shape[1])
        layer = Layer(
            first, lambda shape, draws: bound * (2 * torch.rand(shape, generator=draws) - 1), self.seed, self.device
        )
        optimizer = torch.optim.Adam(layer.parameters, self.lr, weight_decay=self.weight_decay)
        for _ in layer.train(optimizer, self.rate, first, train, self.epochs, self.batch_size, self.seed):
            pass
        return layer.predicted(test, {"epochs": self.epochs, "lr": self.lr, "last_lr": self.last_lr})

    def __call__(self, train: FeatureSet | EpochFeatures, test: FeatureSet) -> dict[str, Score]:
        return measure(self.predict(train, test.features), test.labels)
