"""Encoders of a few thousand weights, how the tests compare and disturb them, and an odd layer."""

import torch
from torch import Tensor, nn

from barlow.nets.building import build_encoder

SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 16, 32, 64]}


def small_encoder(stem: str = "as_is", in_channels: int = 3, seed: int = 0, **options: object) -> nn.Module:
    return build_encoder(
        "resnet18", in_channels=in_channels, image_size=32, stem=stem, seed=seed, options={**SMALL, **options}
    )


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def disturb(module: nn.Module, seed: int = 1) -> nn.Module:
    """Other weights and running statistics than those an encoder starts with, so that forgetting one of them shows."""
    generator = torch.Generator().manual_seed(seed)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand(value.shape, generator=generator))
    return module


class Tailed(nn.BatchNorm2d):
    """A batch norm that does more than that."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()
