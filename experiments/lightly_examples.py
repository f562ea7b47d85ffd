"""What people train today: lightly's examples of Barlow Twins and SimCLR, with ResNet-18, for some steps.

Needs `pip install barlow[bench]`, which has lightly. Settings are those of its examples (barlowtwins.py, simclr.py in
examples/pytorch, at 03464db): torchvision's ResNet-18, heads of 512-2048-2048-2048 and 512-512-128, lightly's SimCLR
views, batch 256, SGD at 0.06 without momentum or decay, float32. Three things are ours: the folder of images, the side
of the views, and an end after so many steps, where the examples have ten epochs.
"""

import time
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path

import torch
from torch import Tensor, nn

WORKERS = 2
BATCH = 256


@dataclass(frozen=True)
class Trained:
    """A network, and what it took."""

    encoder: nn.Module
    """Images to (n, 512), in eval mode."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    steps: int
    seconds: float
    """From the first batch, for which the workers are started, to the end."""


def trained(kind: str, folder: Path, *, size: int, steps: int, seed: int) -> Trained:
    """An encoder as lightly's example trains it.

    Args:
        kind: barlow_twins or simclr.
        folder: images; those of sub-folders count too.
        size: side of the views in pixels.
        steps: as many, over as many epochs as that takes.
        seed: of weights and views.
    """
    import torchvision
    from lightly.data import LightlyDataset
    from lightly.loss import BarlowTwinsLoss, NTXentLoss
    from lightly.models.modules import BarlowTwinsProjectionHead, SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
    from lightly.transforms.utils import IMAGENET_NORMALIZE

    import barlow  # noqa: F401  (torchvision's import guard)

    torch.manual_seed(seed)
    resnet = torchvision.models.resnet18()
    backbone = nn.Sequential(*list(resnet.children())[:-1], nn.Flatten())
    head, criterion = {
        "barlow_twins": (BarlowTwinsProjectionHead(512, 2048, 2048), BarlowTwinsLoss()),
        "simclr": (SimCLRProjectionHead(512, 512, 128), NTXentLoss()),
    }[kind]
    model = nn.Sequential(backbone, head)
    dataset = LightlyDataset(str(folder), transform=SimCLRTransform(input_size=size))
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=min(BATCH, len(dataset)), shuffle=True, drop_last=True, num_workers=WORKERS
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    begin = None
    for views, *_ in islice(chain.from_iterable(repeat(loader)), steps):
        begin = begin or time.perf_counter()
        loss: Tensor = criterion(*(model(view) for view in views))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert begin is not None
    mean, std = (tuple(IMAGENET_NORMALIZE[name]) for name in ("mean", "std"))
    return Trained(backbone.eval(), mean, std, size, steps, time.perf_counter() - begin)
