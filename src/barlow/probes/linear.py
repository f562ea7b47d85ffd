"""The papers' linear evaluations: a linear layer is trained by gradient steps on frozen features, used as they are."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from barlow.probes.features import FeatureSet, check
from barlow.probes.intervals import Score
from barlow.probes.metrics import Predicted, measure
from barlow.types import Features
from barlow.views.keys import permutation

EpochFeatures = Callable[[int], FeatureSet]
"""Gives the features that an epoch (counted from 0) trains on, for example those of augmented views, embedded anew."""

ROWS = 8192
"""How many rows are scored at a time. For 1,000 classes that is 32 MiB of logits."""

SMALL_STEP = 2**26
"""A step of fewer multiplications than this runs on one thread.

For example, 256 rows of 512 features for 10 classes (2**20) take 0.4 ms on one thread. Two threads save a fifth of
that. But where another process has the second core they take 20 times as long, because they wait for each other. The
largest step measured, 256 × 2,048 × 100 (under 2**26), takes 3 ms on one thread.
"""


DEEPEST = 700.0
"""How far logits may lie below the highest one. exp(−745) is 0 in float64, and top-5 does not count a score of 0."""


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

    epochs: int = 100
    batch_size: int = 256
    lr: float = 0.3
    momentum: float = 0.9
    weight_decay: float = 1e-6
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        _check(self.epochs, self.batch_size, self.weight_decay, lr=self.lr)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}; use at least 0 and less than 1")

    def rate(self, epoch: int) -> float:
        """The rate of an epoch, counted from 0."""
        return self.lr * (1 + math.cos(math.pi * epoch / self.epochs)) / 2

    def predict(self, train: FeatureSet | EpochFeatures, test: Features) -> Predicted:
        first = _first(train, test)
        layer = _Layer(first, lambda shape, draws: 0.01 * torch.randn(shape, generator=draws), self.seed, self.device)
        layer.biases.zero_()
        optimizer = torch.optim.SGD(layer.parameters, self.lr, self.momentum, weight_decay=self.weight_decay)
        by_epoch = [
            layer.answers(test)
            for _ in layer.train(optimizer, self.rate, first, train, self.epochs, self.batch_size, self.seed)
        ]
        notes = {"epochs": self.epochs, "lr": self.lr, "embedded": "each epoch" if callable(train) else "once"}
        return layer.predicted(test, notes, by_epoch)

    def __call__(self, train: FeatureSet | EpochFeatures, test: FeatureSet) -> dict[str, Score]:
        return measure(self.predict(train, test.features), test.labels)


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

    epochs: int = 500
    batch_size: int = 1000
    lr: float = 1e-2
    last_lr: float = 1e-6
    weight_decay: float = 5e-6
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        _check(self.epochs, self.batch_size, self.weight_decay, lr=self.lr, last_lr=self.last_lr)

    def rate(self, epoch: int) -> float:
        """The rate of an epoch, counted from 0."""
        return self.lr * (self.last_lr / self.lr) ** (epoch / self.epochs)

    def predict(self, train: FeatureSet | EpochFeatures, test: Features) -> Predicted:
        first = _first(train, test)
        bound = 1 / math.sqrt(first.features.shape[1])
        layer = _Layer(
            first, lambda shape, draws: bound * (2 * torch.rand(shape, generator=draws) - 1), self.seed, self.device
        )
        optimizer = torch.optim.Adam(layer.parameters, self.lr, weight_decay=self.weight_decay)
        for _ in layer.train(optimizer, self.rate, first, train, self.epochs, self.batch_size, self.seed):
            pass
        return layer.predicted(test, {"epochs": self.epochs, "lr": self.lr, "last_lr": self.last_lr})

    def __call__(self, train: FeatureSet | EpochFeatures, test: FeatureSet) -> dict[str, Score]:
        return measure(self.predict(train, test.features), test.labels)


def _check(epochs: int, batch_size: int, weight_decay: float, **rates: float) -> None:
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs {epochs} and batch_size {batch_size}; use at least 1 of each")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay is {weight_decay}; use 0 or more")
    for name, rate in rates.items():
        if not 0 < rate < math.inf:
            raise ValueError(f"{name} is {rate}; use a rate above 0")


def _first(train: FeatureSet | EpochFeatures, test: Features) -> FeatureSet:
    first = train(0) if callable(train) else train
    check(first, test)
    return first


class _Layer:
    """Weights (k, f) and biases (k,), the loop that trains them, and what they answer.

    The gradient is written out: the softmax (or sigmoid) minus the target, times the features. For 10 classes autograd
    takes 1.3 times as long.
    """

    def __init__(
        self,
        train: FeatureSet,
        draw: Callable[[tuple[int, ...], torch.Generator], Tensor],
        seed: int,
        device: str | None,
    ) -> None:
        labels, width = train.labels, train.features.shape[1]
        self.device = train.features.device if device is None else torch.device(device)
        self.classes = None if train.several_labels else np.unique(labels).astype(np.int64)
        columns = labels.shape[1] if self.classes is None else len(self.classes)
        draws = torch.Generator().manual_seed(seed)
        self.weights, self.biases = (draw(shape, draws).to(self.device) for shape in ((columns, width), (columns,)))
        self.parameters = [self.weights, self.biases]
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.notes: dict[str, Any] = {}

    def train(
        self,
        optimizer: torch.optim.Optimizer,
        rate: Callable[[int], float],
        first: FeatureSet,
        later: FeatureSet | EpochFeatures,
        epochs: int,
        batch_size: int,
        seed: int,
    ) -> Iterator[int]:
        """Trains, and yields the number of each epoch when it is over."""
        current, targets = first, self._targets(first.labels)
        for epoch in range(epochs):
            if epoch and callable(later):
                current = later(epoch)
                targets = self._targets(current.labels)
            for group in optimizer.param_groups:
                group["lr"] = rate(epoch)
            order = torch.from_numpy(permutation(seed, epoch, len(current))).to(current.features.device)
            with _one_thread(batch_size * self.weights.numel() < SMALL_STEP):
                for rows in order.split(batch_size):
                    x = current.features.index_select(0, rows).to(self.device, torch.float32)
                    self._gradient(x, targets.index_select(0, rows.to(self.device)))
                    optimizer.step()
            if not all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters):
                raise _diverged(f"the weights are not finite after epoch {epoch + 1}", rate(0), current.features)
            yield epoch
        self.notes = self._fit(current.features, targets)

    def answers(self, test: Features) -> np.ndarray | None:
        """The class of each row, or None where an image may have several labels."""
        if self.classes is None:
            return None
        return self.classes[torch.cat([logits.argmax(dim=1) for logits in self._logits(test)]).cpu().numpy()]

    def predicted(
        self, test: Features, notes: dict[str, Any], by_epoch: list[np.ndarray | None] | None = None
    ) -> Predicted:
        """The scores that the last weights give, together with the answers that were collected after every epoch."""
        logits = torch.cat([part.cpu() for part in self._logits(test)]).double()
        if not bool(torch.isfinite(logits).all()):
            raise _diverged("the scores of the test images are not finite", notes["lr"], test)
        notes = {**notes, **self.notes}
        if self.classes is None:
            return Predicted(logits.sigmoid().numpy(), None, notes)
        spread = (logits.amax(dim=1) - logits.amin(dim=1)).clamp(min=DEEPEST)
        scores = (logits * (DEEPEST / spread)[:, None]).softmax(dim=1).numpy()
        if by_epoch is None:
            return Predicted(scores, self.classes, notes)
        answers = np.stack([answer for answer in by_epoch if answer is not None])
        answers[-1] = self.classes[scores.argmax(axis=1)]  # scores that differ only in float32 may be equal here
        return Predicted(scores, self.classes, notes, answers)

    def _targets(self, labels: np.ndarray) -> Tensor:
        """The column of each image's class, (n,), or zeros and ones (n, k) where an image may have several labels."""
        if self.classes is None:
            return torch.from_numpy(labels.astype(np.float32)).to(self.device)
        return torch.from_numpy(np.searchsorted(self.classes, labels)).to(self.device)

    def _gradient(self, x: Tensor, targets: Tensor) -> None:
        error = torch.addmm(self.biases, x, self.weights.T)
        if self.classes is None:
            error = error.sigmoid_().sub_(targets)
        else:
            error = error.softmax(dim=1)
            error[torch.arange(len(x), device=self.device), targets] -= 1
        error /= len(x)
        torch.mm(error.T, x, out=self.weights.grad)
        torch.sum(error, dim=0, out=self.biases.grad)

    def _logits(self, features: Features) -> Iterator[Tensor]:
        for rows in features.split(ROWS):
            yield torch.addmm(self.biases, rows.to(self.device, torch.float32), self.weights.T)

    def _fit(self, features: Features, targets: Tensor) -> dict[str, Any]:
        """The mean loss on the training set, and whether it is above the loss of the class frequencies alone."""
        total = 0.0
        for logits, t in zip(self._logits(features), targets.split(ROWS), strict=True):
            total += float(_loss(logits, t))
        if self.classes is None:
            frequencies = targets.mean(dim=0).logit(eps=1e-6)
        else:
            frequencies = targets.bincount(minlength=len(self.classes)).float().log()
        best = sum(float(_loss(frequencies.expand(len(t), -1), t)) for t in targets.split(ROWS))
        loss, best = total / len(targets), best / len(targets)
        # On features that say nothing, the noise of the last steps alone may make it a hundredth more.
        return {"train_loss": loss, "worse_than_class_frequencies": loss > 1.01 * best}


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss, summed over images (and labels)."""
    if targets.ndim == 2:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    return F.cross_entropy(logits, targets, reduction="sum")


def _diverged(what: str, lr: float, features: Features) -> ValueError:
    size = float(features.cpu().double().square().mean().sqrt())
    return ValueError(
        f"a linear probe diverged: {what}, at lr {lr:g} on features of root mean square {size:.2g}, which are used as "
        "they are; give a smaller lr, divide the features by a constant, or choose other probes (--probes knn logistic)"
    )


@contextlib.contextmanager
def _one_thread(wanted: bool) -> Iterator[None]:
    threads = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
