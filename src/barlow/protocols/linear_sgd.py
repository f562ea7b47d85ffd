"""A linear layer trained by SGD for 100 epochs: the protocol of Barlow Twins and VICReg."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from barlow.probes.features import EpochFeatures, FeatureSet, check
from barlow.probes.intervals import Score
from barlow.probes.metrics import Predicted, measure
from barlow.protocols._layer import Layer, Layers, check_settings, first_epoch
from barlow.types import Features

__all__ = ["LinearSGD"]


@dataclass(frozen=True)
class LinearSGD:
    """A linear layer trained by SGD on the cross-entropy: the protocol of Barlow Twins' and VICReg's tables.

    Every step of epoch e has the learning rate lr · (1 + cos(π e / epochs)) / 2. The reported number is the last
    epoch's. The papers print their best epoch, found on the very images that the number is about. That one is reported
    apart, as `best_epoch_top1`.

    Source: Barlow Twins, released code (`evaluate.py`): 100 epochs, batch size 256, momentum 0.9, learning rate 0.3
    whatever the batch size, weight decay 1e-6 on weights and biases, weights from N(0, 0.01²), biases 0. The last,
    short batch of an epoch is kept. VICReg's code is the same; its README takes learning rate 0.02.
    Deviation: it trains on centre views that are embedded once. The papers draw a crop (8 to 100 % of the area) and a
    flip anew in each epoch; for that, give `train` as a function of the epoch.
    Convention: features are not normalised, so one learning rate does not suit every scale. `train_loss` in the notes
    is the mean loss of the last weights on the training set, and `worse_than_class_frequencies` says whether it is
    above what is reached without any feature. Where an image may have several labels, the loss is the binary
    cross-entropy, summed over the labels and averaged over the images, and there is no best epoch.

    Args:
        epochs: passes over the training set.
        batch_size: images per step.
        lr: learning rate of the first epoch.
        momentum: in [0, 1).
        weight_decay: this times the parameters is added to their gradient.
        seed: of the first weights and the order of the images.
        device: where it trains; by default where the features are.
    """

    label: ClassVar[str] = "SGD"
    parameter: ClassVar[str | None] = "lr"
    usual: ClassVar[tuple[float, ...]] = ()
    several_labels: ClassVar[bool] = True
    trains_encoder: ClassVar[bool] = False

    epochs: int = 100
    batch_size: int = 256
    lr: float = 0.3
    momentum: float = 0.9
    weight_decay: float = 1e-6
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        check_settings(self.epochs, self.batch_size, self.weight_decay, lr=self.lr)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}; use at least 0 and less than 1")

    def rate(self, epoch: int) -> float:
        """The rate of an epoch, counted from 0."""
        return self.lr * (1 + math.cos(math.pi * epoch / self.epochs)) / 2

    def predict(self, train: FeatureSet | EpochFeatures, test: Features) -> Predicted:
        first = first_epoch(train, test)
        layer = Layer(first, _drawn, self.seed, self.device)
        optimizer = torch.optim.SGD(layer.parameters, self.lr, self.momentum, weight_decay=self.weight_decay)
        by_epoch = [
            layer.answers(test)
            for _ in layer.train(optimizer, self.rate, first, train, self.epochs, self.batch_size, self.seed)
        ]
        notes = {"epochs": self.epochs, "lr": self.lr, "embedded": "each epoch" if callable(train) else "once"}
        return layer.predicted(test, notes, by_epoch)

    def __call__(self, train: FeatureSet | EpochFeatures, test: FeatureSet) -> dict[str, Score]:
        return measure(self.predict(train, test.features), test.labels)

    def scores_at(self, rates: Sequence[float], train: FeatureSet, test: Features) -> list[np.ndarray | None]:
        """What the protocol says of the test images at each of several rates, which are trained in one pass.

        Args:
            rates: in place of `lr`.
            train, test: as for `predict`.

        Returns:
            scores (n, k) for each rate; None where training diverged.
        """
        check(train, test)
        layers = Layers(train, _drawn, self.seed, self.device, rates)
        optimizer = torch.optim.SGD(layers.groups(), 1.0, self.momentum, weight_decay=self.weight_decay)
        of_one = replace(self, lr=1.0).rate
        for _ in layers.train(optimizer, of_one, train, train, self.epochs, self.batch_size, self.seed):
            pass
        return layers.scores(test)


def _drawn(shape: tuple[int, ...], draws: torch.Generator) -> Tensor:
    """Weights from N(0, 0.01²), and biases 0."""
    drawn = 0.01 * torch.randn(shape, generator=draws)
    return drawn if len(shape) == 2 else drawn.zero_()
