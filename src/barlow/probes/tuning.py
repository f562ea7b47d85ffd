"""A whole network that is trained on labelled images: an encoder, and a linear layer on top of it."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from barlow.data.labelled import LabelledSet
from barlow.nets.seeding import seeded
from barlow.probes.features import embed
from barlow.probes.progress import Progress
from barlow.types import Images
from barlow.views.keys import permutation

MOMENTUM = 0.9
"""Of SGD, in the papers' fine-tuning."""


@dataclass(frozen=True)
class Rates:
    """Learning rates of the first update."""

    encoder: float
    head: float


@dataclass(frozen=True)
class Schedule:
    """How long a network is tuned, and in which batches.

    Args:
        batch: images of an update, at most.
        updates: of the weights. Each takes the rates times (1 + cos(π update / updates)) / 2.
    """

    batch: int
    updates: int

    def rows(self, images: int) -> int:
        """How many of so many images are in an update, so that the batches of an epoch have about the same size."""
        return -(-images // -(-images // self.batch))


@dataclass(frozen=True)
class Unlabelled:
    """Test images without their labels: what a protocol that needs pixels is given of them.

    Args:
        count: how many there are.
        views: batches of their centre views, of this many images.
    """

    count: int
    views: Callable[[int], Iterator[Images]]


class Diverged(ValueError):
    """The loss is no longer a number."""


class Tuned(nn.Module):
    """An encoder and a linear layer, whose weights are N(0, 0.01²) at first and whose biases are 0."""

    def __init__(self, encoder: nn.Module, width: int, classes: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Images) -> Float[Tensor, "n k"]:
        return self.head(self.encoder(x))


def tuned(
    encoder: nn.Module,
    images: LabelledSet,
    targets: np.ndarray,
    classes: int,
    rates: Rates,
    schedule: Schedule,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
) -> Tuned:
    """A copy of an encoder that was trained, with a linear layer, by SGD on the cross-entropy of augmented views.

    All layers are in train mode, and nothing is decayed. Every image is cropped and flipped anew in each epoch.

    Args:
        encoder: images to features. It is not changed.
        images: to learn from.
        targets: (n,) the class of each, from 0.
        classes: how many there are.
        rates: of the first update.
        schedule: batches, and how many of them.
        seed: of the layer, of the order of the images, of their views, and of what the network draws.
        device: where to train.
        progress: counts the updates.

    Raises:
        Diverged: the loss is not finite after an update.
    """
    network = copy.deepcopy(encoder).to(device)
    width = embed(network, images.take(np.arange(1)).views(1), device).shape[1]
    with seeded(seed, "head"):
        model = Tuned(network, width, classes).to(device).requires_grad_(True)
    _lay_out(model)
    optimizer = torch.optim.SGD(
        [
            {"params": list(model.encoder.parameters()), "lr": rates.encoder},
            {"params": list(model.head.parameters()), "lr": rates.head},
        ],
        momentum=MOMENTUM,
    )
    model.train()
    with seeded(seed, "tuning", device):
        for update, (views, rows) in enumerate(_batches(images, schedule, seed, device)):
            share = (1 + math.cos(math.pi * update / schedule.updates)) / 2
            for group, rate in zip(optimizer.param_groups, (rates.encoder, rates.head), strict=True):
                group["lr"] = rate * share
            loss = F.cross_entropy(
                model(views.to(device, memory_format=torch.channels_last)), torch.from_numpy(targets[rows]).to(device)
            )
            if not math.isfinite(loss.item()):
                raise Diverged(
                    f"fine-tuning diverged after {update} updates at rates {rates.encoder:g} (encoder) and "
                    f"{rates.head:g} (linear layer); give smaller ones"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if progress is not None:
                progress.more()
    return model


def _lay_out(model: nn.Module) -> None:
    """Kernels get the memory order of the views, so that no update has to turn them."""
    for weights in model.parameters():
        if weights.ndim == 4:
            weights.data = weights.data.contiguous(memory_format=torch.channels_last)


def _batches(
    images: LabelledSet, schedule: Schedule, seed: int, device: torch.device
) -> Iterator[tuple[Images, np.ndarray]]:
    """Batches of augmented views with the positions of their images, epoch after epoch, until there are enough.

    The batches of an epoch have about the same size. One of a single image is left out: batch norm has nothing to
    measure there.
    """
    n, left, epoch = len(images), schedule.updates, 0
    images = replace(images, held=None)  # crops are read from the originals; nothing is gained by moving centre views
    size = schedule.rows(n)
    while left:
        order = permutation(seed, epoch, n)
        start = 0
        for views in images.take(order).augmented_views(size, seed, epoch, device):
            rows = order[start : start + len(views)]
            start += len(views)
            if len(rows) > 1 or n == 1:
                yield views, rows
                left -= 1
            if not left:
                return
        epoch += 1
