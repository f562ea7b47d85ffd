"""An encoder as the backbone of a detector: its feature maps by stride, or a ResNet cut before its last stage."""

import copy
from collections import OrderedDict
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from barlow.nets.handed_out import HandedOut
from barlow.nets.modes import in_eval_mode
from barlow.nets.preprocessing import Preprocessing
from barlow.printable import one_line

STRIDES = (4, 8, 16, 32)
"""Of the maps that a pyramid takes, as far as the network has them."""

NEEDED = (4, 8, 16)
"""Of these strides it must have maps. A ResNet whose stem keeps more of small images has none of stride 32."""

BLANK = (64, 96)
"""Height and width of the image that strides are measured on. It is no square, as the images of a detector are none."""

BatchNorm = Literal["trained", "frozen"]

Maps = OrderedDict[str, Tensor]


class UnfitBackbone(ValueError):
    """A network cannot be the backbone that was asked for."""


def plain_network(encoder: nn.Module) -> Any:
    """A copy of an encoder's network, without what pools its stages and whitens its features.

    Raises:
        UnfitBackbone: it is for other images than those of three channels and 8 bits.
    """
    expected: Any = getattr(encoder, "preprocessing", None)
    assert isinstance(expected, Preprocessing), "an encoder says what it expects of an image"
    if expected.channels != 3 or expected.value_range is not None:
        bits = "8" if expected.value_range is None else "more than 8"
        raise UnfitBackbone(
            f"the encoder takes images of {expected.channels} channels and {bits} bits; detection reads colour images "
            "of 8 bits: give an encoder for those"
        )
    return copy.deepcopy(encoder.network if isinstance(encoder, HandedOut) else encoder)


class Stages(nn.Module):
    """A timm network's maps of strides 4, 8, 16, and of 32 where it has one: the last map of each.

    Strides are measured, not read: a ResNet with another stem has other strides than timm says.

    Args:
        network: a timm network; used as it is, not copied.
        name: what messages call it.

    Attributes:
        channels: of each map.
        strides: of each map.

    Raises:
        UnfitBackbone: the network does not give its maps, or has none of a stride that is needed.
    """

    def __init__(self, network: Any, name: str) -> None:
        super().__init__()
        self.network = network
        shapes = _shapes(network, name)
        by_stride = {BLANK[0] // height: i for i, (_, height, _) in enumerate(shapes) if BLANK[0] % height == 0}
        if missing := [stride for stride in NEEDED if stride not in by_stride]:
            there, needed = (", ".join(map(str, strides)) for strides in (sorted(by_stride), missing))
            raise UnfitBackbone(
                f"{name} has maps of strides {there}, and none of {needed}: a pyramid needs strides 4, 8 and 16, as "
                "ResNets, EfficientNets, RegNets and ConvNeXts have them"
            )
        self.strides = [stride for stride in STRIDES if stride in by_stride]
        self.indices = [by_stride[stride] for stride in self.strides]
        self.channels = [shapes[i][0] for i in self.indices]

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Maps:
        """The maps by their stride."""
        maps = self.network.forward_intermediates(x, indices=self.indices, intermediates_only=True)
        return OrderedDict((str(stride), each) for stride, each in zip(self.strides, maps, strict=True))


def _shapes(network: Any, name: str) -> list[tuple[int, int, int]]:
    """Channels, height and width of each map that a network gives of a blank image."""
    if not hasattr(network, "forward_intermediates"):
        raise UnfitBackbone(
            f"{name} does not give its feature maps (timm's forward_intermediates): take another encoder"
        )
    try:
        with torch.no_grad(), in_eval_mode(network):
            maps = network.forward_intermediates(torch.zeros(1, 3, *BLANK), intermediates_only=True)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise UnfitBackbone(
            f"{name} cannot be the backbone of a detector, whose images have many sizes: {one_line(error)}"
        ) from error
    return [(each.shape[1], each.shape[2], each.shape[3]) for each in maps]


def cut_before_last_stage(network: Any, name: str) -> tuple[nn.Module, nn.Module, int, int]:
    """A ResNet's layers up to its third stage, its fourth, and how many channels either gives.

    Raises:
        UnfitBackbone: it is no ResNet, or its third stage has another stride than 16.
    """
    from timm.models.resnet import ResNet

    if not isinstance(network, ResNet):
        raise UnfitBackbone(
            f"{name} is a {type(network).__name__}: the detector C4 has a ResNet's last stage as its head; take fpn or "
            "small_fpn"
        )
    shapes = _shapes(network, name)
    if (stride := BLANK[0] // shapes[3][1]) != 16:
        raise UnfitBackbone(
            f"{name} has a stem for small images, so that its third stage has stride {stride} and not 16: take fpn or "
            "small_fpn"
        )
    timms: Any = network
    early = OrderedDict((part, getattr(timms, part)) for part in ("conv1", "bn1", "act1", "maxpool"))
    early |= {f"layer{number}": getattr(timms, f"layer{number}") for number in (1, 2, 3)}
    return nn.Sequential(early), timms.layer4, shapes[3][0], shapes[4][0]


def freeze_norms(network: nn.Module) -> list[nn.Module]:
    """Freezes scales and shifts of batch norm, and returns the layers: in training they are to stay in eval mode."""
    norms: list[nn.Module] = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        for parameter in norm.parameters():
            parameter.requires_grad_(False)
    return norms
