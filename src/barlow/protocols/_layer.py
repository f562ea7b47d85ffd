"""A linear layer that is trained by gradient steps on frozen features, used as they are."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from barlow.probes.features import EpochFeatures, FeatureSet, check
from barlow.probes.metrics import Predicted
from barlow.types import Features
from barlow.views.keys import permutation

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


def check_settings(epochs: int, batch_size: int, weight_decay: float, **rates: float) -> None:
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs {epochs} and batch_size {batch_size}; use at least 1 of each")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay is {weight_decay}; use 0 or more")
    for name, rate in rates.items():
        if not 0 < rate < math.inf:
            raise ValueError(f"{name} is {rate}; use a rate above 0")


def first_epoch(train: FeatureSet | EpochFeatures, test: Features) -> FeatureSet:
    first = train(0) if callable(train) else train
    check(first, test)
    return first


class Layer:
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
        self._begin_with(*(draw(shape, draws).to(self.device) for shape in ((columns, width), (columns,))))
        self.notes: dict[str, Any] = {}

    def _begin_with(self, weights: Tensor, biases: Tensor) -> None:
        self.weights, self.biases = weights, biases
        self.parameters = [weights, biases]
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)

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
                group["lr"] = rate(epoch) * group.get("share", 1.0)
            order = torch.from_numpy(permutation(seed, epoch, len(current))).to(current.features.device)
            with _one_thread(batch_size * self.weights.numel() < SMALL_STEP):
                for rows in order.split(batch_size):
                    x = current.features.index_select(0, rows).to(self.device, torch.float32)
                    self._gradient(x, targets.index_select(0, rows.to(self.device)))
                    optimizer.step()
            if not self._is_finite():
                raise _diverged(f"the weights are not finite after epoch {epoch + 1}", rate(0), current.features)
            yield epoch
        self.notes = self._fit(current.features, targets)

    def _is_finite(self) -> bool:
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters)

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
            return torch.from_numpy((labels == 1).astype(np.float32)).to(self.device)
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


class Layers(Layer):
    """One layer for each of several rates, all trained in the same pass: they begin alike, and see the same rows in the
    same order. Their weights stand below each other, so that a step is one product and not one for each.

    A layer whose rate is too high diverges by itself; the others do not notice.
    """

    def __init__(
        self,
        train: FeatureSet,
        draw: Callable[[tuple[int, ...], torch.Generator], Tensor],
        seed: int,
        device: str | None,
        rates: Sequence[float],
    ) -> None:
        super().__init__(train, draw, seed, device)
        self.rates = tuple(rates)
        self._begin_with(*(each.repeat(len(rates), *[1] * (each.ndim - 1)) for each in self.parameters))

    def groups(self) -> list[dict[str, Any]]:
        """For an optimizer: the parameters of each layer, with its rate as a `share` of what a step says."""
        parts: list[list[Tensor]] = [[] for _ in self.rates]
        for parameter in self.parameters:
            assert parameter.grad is not None
            count = len(self.rates)
            for part, values, gradient in zip(parts, parameter.chunk(count), parameter.grad.chunk(count), strict=True):
                values.grad = gradient
                part.append(values)
        return [{"params": part, "share": rate} for part, rate in zip(parts, self.rates, strict=True)]

    def scores(self, test: Features) -> list[np.ndarray | None]:
        """What each layer says of the rows, (n, k) in float64: higher is more likely. None for one that diverged."""
        logits = torch.cat([part.cpu() for part in self._logits(test)]).double()
        if self.classes is None:
            logits = logits.sigmoid()
        return [part.numpy() if bool(torch.isfinite(part).all()) else None for part in logits.chunk(len(self.rates), 1)]

    def _is_finite(self) -> bool:
        return True

    def _fit(self, features: Features, targets: Tensor) -> dict[str, Any]:
        return {}

    def _gradient(self, x: Tensor, targets: Tensor) -> None:
        error = torch.addmm(self.biases, x, self.weights.T).unflatten(1, (len(self.rates), -1))
        if self.classes is None:
            error = error.sigmoid_().sub_(targets[:, None])
        else:
            error = error.softmax(dim=2)
            error[torch.arange(len(x), device=self.device), :, targets] -= 1
        error = error.flatten(1) / len(x)
        torch.mm(error.T, x, out=self.weights.grad)
        torch.sum(error, dim=0, out=self.biases.grad)


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss, summed over images (and labels)."""
    if targets.ndim == 2:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    return F.cross_entropy(logits, targets, reduction="sum")


class Diverged(ValueError):
    """Weights or scores are no longer numbers."""


def _diverged(what: str, lr: float, features: Features) -> Diverged:
    size = float(features.cpu().double().square().mean().sqrt())
    return Diverged(
        f"a linear probe diverged: {what}, at lr {lr:g} on features of root mean square {size:.2g}, which are used as "
        "they are; give a smaller lr, divide the features by a constant, or choose others (--protocol knn,linear)"
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
