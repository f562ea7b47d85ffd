"""Weights and description as barlow writes them, with an entry for torch.hub: all that the encoder hands out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from barlow import storage
from barlow.exports._protocol import Material, Use
from barlow.nets.handed_out import HandedOut
from barlow.seals import sealed, sha256

__all__ = ["Safetensors"]

_HUB = """\
import torch

encoder = torch.hub.load(folder, "encoder", source="local")


def features(images):
    return encoder(images)
"""

_BARLOW = """\
import barlow

encoder = barlow.load_encoder(folder)


def features(images):
    return encoder(images)
"""


@dataclass(frozen=True)
class Safetensors:
    """`model.safetensors` and `config.json`, which `barlow.load_encoder` reads, and `hubconf.py`.

    `hubconf.py` builds the network with timm and needs no barlow, so that the folder outlives it.
    """

    about: str = "barlow.load_encoder, and torch.hub.load without barlow"

    def refuses(self, material: Material) -> str | None:
        if material.is_custom:
            return f"{material.name} was given in Python, and cannot be built again from a description"
        return None

    def files(self, material: Material) -> dict[str, bytes]:
        weights = storage.tensors_bytes(material.tensors())
        config = {key: value for key, value in material.config.items() if key not in ("sha256", "model_sha256")}
        return {
            "model.safetensors": weights,
            "config.json": storage.json_bytes(sealed({**config, "model_sha256": sha256(weights)})),
            "hubconf.py": Path(__file__).with_name("_hub_entry.py").read_bytes(),
            "hub.json": storage.json_bytes(_built(material)),
        }

    def uses(self, material: Material) -> list[Use]:
        return [Use("torch.hub", _HUB, True, "torch"), Use("barlow", _BARLOW, True, "barlow", beside="barlow")]

    def notes(self, material: Material) -> list[str]:
        return []


def _built(material: Material) -> dict[str, Any]:
    """What `hubconf.py` builds: a call of timm's `create_model`, and what is changed then."""
    encoder, replaced = material.encoder, None
    if material.stem is not None:
        conv: Any = material.network.conv1
        assert isinstance(conv, nn.Conv2d)
        replaced = {"channels": conv.in_channels, "width": conv.out_channels, **material.stem._asdict()}
    more = isinstance(encoder, HandedOut)
    return {
        "name": material.name,
        "arguments": material.arguments,
        "stem": replaced,
        "handed_out": more,
        "indices": encoder.indices if isinstance(encoder, HandedOut) else [],
        "whitened": sum(encoder.widths)
        if isinstance(encoder, HandedOut) and isinstance(encoder.whiten, nn.Linear)
        else None,
    }
