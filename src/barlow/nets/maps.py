"""Feature maps of an encoder's last stages, before they are pooled."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from barlow.nets.building import build_encoder
from barlow.nets.handed_out import earlier_stages
from barlow.nets.modes import in_eval_mode
from barlow.size import Size, height_width, words
from barlow.types import Images, MapSizes

Map = Float[Tensor, "n h w c"]


def last_stages(network: nn.Module, count: int) -> list[int]:
    """Which of timm's feature maps are those of a network's last stages, the very last one among them.

    Raises:
        ValueError: the network has no such maps, or not so many.
    """
    if not hasattr(network, "forward_intermediates") or not getattr(network, "feature_info", None):
        raise ValueError(
            f"{type(network).__name__} does not give the maps of its stages, as timm's networks do by "
            "forward_intermediates: take another encoder, resnet18 for example"
        )
    stages = [*earlier_stages(network), len(list(network.feature_info)) - 1]  # type: ignore[arg-type]
    if count > len(stages):
        raise ValueError(
            f"{count} levels, and {type(network).__name__} has {len(stages)} stages: give as many or fewer"
        )
    return stages[-count:]


def maps_of(network: nn.Module, x: Images, stages: Sequence[int], border: int = 0) -> list[Map]:
    """The maps of some stages, without so many positions at each edge."""
    timms: Any = network
    maps: list[Tensor] = timms.forward_intermediates(x, indices=list(stages), intermediates_only=True)
    return [m[:, :, border : m.shape[2] - border, border : m.shape[3] - border].permute(0, 2, 3, 1) for m in maps]


def sizes_of_maps(network: nn.Module, channels: int, size: Size, levels: int, border: int) -> MapSizes:
    """Height, width and channels of the maps of a network's last stages, measured on one blank image.

    Args:
        network: of timm's.
        channels: of the images.
        size: of the images.
        levels: how many stages.
        border: positions that are left out at each edge.

    Raises:
        ValueError: the network has no such maps, or nothing is left of one.
    """
    stages = last_stages(network, levels)
    with in_eval_mode(network), torch.no_grad():
        maps = maps_of(network, torch.zeros(1, channels, *height_width(size)), stages)
    sizes = []
    for m in maps:
        high, wide, width = m.shape[1:]
        if min(high, wide) <= 2 * border:
            raise ValueError(
                f"a map of {high} × {wide} positions, of {words(size)}-pixel images, is nothing without a border of "
                f"{border}: use --method.border {(min(high, wide) - 1) // 2}, or larger images"
            )
        sizes.append((high - 2 * border, wide - 2 * border, width))
    return sizes


def measured_maps(built: dict[str, Any], channels: int, size: Size, levels: int, border: int) -> tuple[int, MapSizes]:
    """The number of features of an encoder that is built with these arguments, and the sizes of its last maps."""
    network = build_encoder(**built, in_channels=channels, image_size=size)
    return int(network.num_features), sizes_of_maps(network, channels, size, levels, border)  # type: ignore[arg-type]
