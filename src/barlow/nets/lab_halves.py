"""Encoders of two halves: one network sees the lightness of an image, the other its colour.

They are known by name beside timm's networks: `lab_resnet18`, `lab_resnet26` and `lab_resnet50`. This file needs timm;
`barlow.nets.stems.networks` imports it where networks are looked up.
"""

from typing import Any

import timm
import torch
from timm.models import register_model
from timm.models.resnet import ResNet  # by this `takes_small_stem` knows the file
from torch import Tensor, nn

from barlow import colour_spaces
from barlow.types import Features, Images

MEAN, DEVIATION = (50.0, 6.025, -6.690), (50.0, 92.208, 101.168)
"""Of L, a and b. Source: HobbitLong/CMC at 7b227be, train_CMC.py."""

HALF = (32, 64, 128, 256)
"""Channels of the stages: half of a ResNet's own."""

__all__ = ["LabHalves", "ResNet", "lab_resnet18", "lab_resnet26", "lab_resnet50"]


class LabHalves(nn.Module):
    """Two ResNets of half the width: `lightness` sees L of CIE Lab, `colour` sees a and b.

    The features are those of `lightness`, then as many of `colour`.

    Source: Tian et al., Contrastive Multiview Coding (arXiv 1906.05849), section 4; HobbitLong/CMC at 7b227be,
        models/resnet.py and train_CMC.py.
    Convention: images are RGB in [0, 1], so that a recipe's mean is 0 and its std 1. L, a and b are normalised here.
    Deviation: the stem of each half is as wide as a whole ResNet's.

    Args:
        name: of timm's network that each half is.
        in_chans: of the images: 3.
        num_classes: 0: there is no classifier.
        channels: of the stages of each half.
        options: further arguments of both halves.

    Raises:
        ValueError: images of another number of channels, or a classifier.
    """

    def __init__(
        self, name: str, *, in_chans: int = 3, num_classes: int = 0, channels: tuple[int, ...] = HALF, **options: Any
    ) -> None:
        super().__init__()
        if in_chans != 3:
            raise ValueError(f"{in_chans} channels: lab_{name} takes RGB images, set --data.channels 3")
        if num_classes:
            raise ValueError(f"{num_classes} classes: lab_{name} has no classifier")
        halves: list[Any] = [
            timm.create_model(name, in_chans=seen, num_classes=0, channels=channels, **options) for seen in (1, 2)
        ]
        self.lightness, self.colour = halves
        self.num_features: int = sum(half.num_features for half in halves)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(3, 1, 1), persistent=False)

    def forward(self, x: Images) -> Features:
        # Planar: the last bits of a colour must not depend on how its batch lies in memory.
        lab = (colour_spaces.lab(x.contiguous()) - self.get_buffer("mean")) / self.get_buffer("deviation")
        features: Tensor = torch.cat([self.lightness(lab[:, :1]), self.colour(lab[:, 1:])], dim=1)
        return features

    def halves(self) -> tuple[tuple[nn.Module, int], tuple[nn.Module, int]]:
        """Both networks, each with the number of channels that it sees."""
        return (self.lightness, 1), (self.colour, 2)


def _built(name: str, options: dict[str, Any]) -> LabHalves:
    """As timm's `create_model` asks for a network, with arguments that are about weights, of which there are none."""
    about_weights = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
    return LabHalves(name, **{key: value for key, value in options.items() if key not in about_weights})


@register_model
def lab_resnet18(**options: Any) -> LabHalves:
    """256 + 256 features."""
    return _built("resnet18", options)


@register_model
def lab_resnet26(**options: Any) -> LabHalves:
    """1024 + 1024 features, with fewer blocks than `lab_resnet50`."""
    return _built("resnet26", options)


@register_model
def lab_resnet50(**options: Any) -> LabHalves:
    """1024 + 1024 features: CMC's network."""
    return _built("resnet50", options)
