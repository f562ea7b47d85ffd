"""Stems: the first layers of a ResNet, which shrink an image before the residual blocks see it.

timm's ResNets start with a 7×7 convolution of stride 2 and a max-pool of stride 2: an image of 32 pixels is down to 8
before the first block. Small images want a stem that keeps more of them.
"""

import sys
from typing import Any, NamedTuple

from torch import Tensor, nn

from barlow.colour_spaces import lightness
from barlow.types import Images


class Stem(NamedTuple):
    """A convolution in the place of a network's own stem."""

    side: int
    stride: int
    padding: int
    pooled: bool
    """Whether the max-pool stays."""
    lightness: bool = False
    """Whether it sees nothing but the lightness of an image, which it takes in sRGB from 0 to 1."""


STEMS: dict[str, Stem | None] = {
    "as_is": None,
    "small": Stem(3, 1, 1, False),
    "small_padded": Stem(3, 1, 2, False),
    "small_pooled": Stem(3, 1, 1, True),
    "strided": Stem(3, 2, 1, False),
    "plain": Stem(7, 2, 3, True),
    "small_lightness": Stem(3, 1, 1, False, True),
    "strided_lightness": Stem(3, 2, 1, False, True),
    "plain_lightness": Stem(7, 2, 3, True, True),
}
"""The stems by name.

`as_is` is the network's own stem. `small_padded` is for weights of solo-learn's networks for CIFAR, whose maps have 34
pixels where the image has 32. Weights do not show that. `plain` is the usual stem in the place of a deep one. timm has
it with 64 channels only, and a deep one with any number: the networks of doubled width that VICReg and SwAV released
are `resnet50` with options `stem_type: deep` and `stem_width: 64`, and this stem.

`small_lightness` and the like are for colorization, whose network has to guess the colours that it does not see. They
take images of three channels, so that the network can be used as any other.
"""

RGB = 3


class LightnessConv2d(nn.Conv2d):
    """A convolution of an image's lightness, which it computes itself: L / 50 - 1, from -1 to 1.

    Convention: it takes sRGB from 0 to 1, so a recipe with it has a mean of 0 and a deviation of 1. Numbers outside are
    taken for 0 or 1. Its weights are those of a convolution of one channel.
    """

    def forward(self, x: Images) -> Tensor:
        return super().forward(lightness(x.clamp(0.0, 1.0)) / 50.0 - 1.0)


LAB = "lab_"
"""How the names of networks begin that turn an image into Lab and see its lightness and its colour apart."""


def networks() -> Any:
    """timm, with our own networks beside its own (`lab_halves`). Both are imported when first asked for."""
    from barlow.nets import lab_halves

    return lab_halves.timm


def takes_small_stem(name: str) -> bool:
    """Whether timm's network of this name is a ResNet, so that its stem can be replaced. Nothing is built for that."""
    timm = networks()
    from timm.models import model_entrypoint
    from timm.models.resnet import ResNet

    if not timm.is_model(name):
        return False
    # timm has several files that build ResNets (ResNeXt, SE-ResNet, SK-ResNet, Res2Net, ...). They all import the
    # class, and files of other networks do not.
    return getattr(sys.modules[model_entrypoint(name).__module__], "ResNet", None) is ResNet


def replace_stem(network: nn.Module, name: str, in_channels: int, stem: str) -> None:
    """Puts one of the `STEMS` in the place of a ResNet's own.

    A deep stem (three convolutions, as in resnet10t) is replaced whole.

    Args:
        network: changed in place.
        name: of the network, for the error message.
        in_channels: of the images.
        stem: any of `STEMS` but `as_is`.

    Raises:
        ValueError: the network is not a ResNet; a stem of lightness for images that are not RGB.
    """
    from timm.models.resnet import ResNet

    from barlow.nets.lab_halves import LabHalves

    if isinstance(network, LabHalves):
        for half, seen in network.halves():
            replace_stem(half, name, seen, stem)
        return
    if not isinstance(network, ResNet):
        raise ValueError(
            f"stem {stem!r} is for ResNets; {name} is a {type(network).__name__}, which has as_is only"
            + (" (for small images give options patch_size)" if hasattr(network, "patch_embed") else "")
        )
    encoder: Any = network
    chosen = STEMS[stem]
    assert chosen is not None
    width = len(encoder.bn1.weight)  # of whatever norm it is
    if chosen.lightness and in_channels != RGB:
        raise ValueError(
            f"stem {stem!r} sees the lightness of RGB images, and these have {in_channels} channels: give stem "
            f"{stem.removesuffix('_lightness')!r}"
        )
    convolution = LightnessConv2d if chosen.lightness else nn.Conv2d
    encoder.conv1 = convolution(
        1 if chosen.lightness else in_channels,
        width,
        kernel_size=chosen.side,
        stride=chosen.stride,
        padding=chosen.padding,
        bias=False,
    )
    nn.init.kaiming_normal_(encoder.conv1.weight, mode="fan_out", nonlinearity="relu")
    if not chosen.pooled:
        encoder.maxpool = nn.Identity()


def sees_lightness(stem: str) -> bool:
    """Whether a stem takes sRGB from 0 to 1, and sees its lightness alone."""
    known = STEMS.get(stem)
    return known is not None and known.lightness


def belongs_to_stem(parameter: str) -> bool:
    """Whether a tensor of a ResNet, by its name, is of the part that `replace_stem` replaces."""
    of_network = parameter.removeprefix("lightness.").removeprefix("colour.")  # of a network of two halves
    return of_network.startswith(("conv1.", "maxpool."))  # not bn1, which has the same width in every stem
