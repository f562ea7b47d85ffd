"""Loads the encoder of this folder. It needs torch, timm and safetensors, and no barlow.

    encoder = torch.hub.load(FOLDER, "encoder", source="local")   # (n, channels, height, width) to (n, features)

`preprocessing.json` says what the encoder expects of an image, and README.md what it is.
"""

import json
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

dependencies = ["torch", "timm", "safetensors"]


class Encoder(nn.Module):
    """A timm network, the spatial means of its earlier stages before its own features, and a last linear layer.

    Args:
        network: without a classifier.
        indices: of timm's feature maps that are averaged; none: its own features alone.
        width: of the features, if a linear layer follows (whitening).
    """

    def __init__(self, network: nn.Module, indices: list[int], width: int | None) -> None:
        super().__init__()
        self.network, self.indices = network, indices
        self.whiten: nn.Module = nn.Identity() if width is None else nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        if not self.indices:
            features: Tensor = self.whiten(self.network(x))
            return features
        final, maps = self.network.forward_intermediates(x, indices=self.indices)  # type: ignore[operator]
        own = self.network.forward_head(final)  # type: ignore[operator]
        features = self.whiten(torch.cat([*(each.mean((2, 3)) for each in maps), own], 1))
        return features


class LightnessConv2d(nn.Conv2d):
    """A convolution of L / 50 - 1, where L is CIE Lab's lightness of sRGB from 0 to 1 (D65)."""

    def forward(self, x: Tensor) -> Tensor:
        rgb = x.clamp(0.0, 1.0)
        curved = (((rgb.clamp(min=0.04045) + 0.055) / 1.055).log() * 2.4).exp()
        red, green, blue = torch.where(rgb > 0.04045, curved, rgb / 12.92).split(1, 1)
        y = red * 0.212671 + green * 0.715160 + blue * 0.072169
        root = torch.where(y > 0.008856, (y.clamp(min=0.008856).log() * (1 / 3)).exp(), 7.787 * y + 16 / 116)
        return super().forward((116 * root - 16) / 50 - 1)


def encoder(pretrained: bool = True) -> nn.Module:
    """The encoder, in eval mode.

    Args:
        pretrained: whether with its weights; without them it is as timm makes it.
    """
    folder = Path(__file__).resolve().parent
    built = json.loads((folder / "hub.json").read_text(encoding="utf-8"))
    given = built["arguments"].items()
    arguments: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given}
    network: Any = timm.create_model(built["name"], num_classes=0, **arguments)
    if built["stem"] is not None:
        stem = built["stem"]
        convolution = LightnessConv2d if stem.get("lightness") else nn.Conv2d
        network.conv1 = convolution(
            stem["channels"], stem["width"], stem["side"], stride=stem["stride"], padding=stem["padding"], bias=False
        )
        if not stem["pooled"]:
            network.maxpool = nn.Identity()
    made = Encoder(network, built["indices"], built["whitened"]) if built["handed_out"] else network
    if pretrained:
        made.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    return made.eval()
