"""Weights under torchvision's names, for its ResNets."""

from dataclasses import dataclass

from barlow import storage
from barlow.exports._protocol import Material, Use

__all__ = ["Torchvision"]

NETWORKS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
"""Networks that both libraries have under one name, with one set of tensors; the proof looks whether that is so."""


@dataclass(frozen=True)
class Torchvision:
    """A state dict as those of torchvision's own weights, without the classifier."""

    about: str = "torchvision.models' ResNets, by load_state_dict"

    def refuses(self, material: Material) -> str | None:
        if material.name not in NETWORKS:
            return f"torchvision has no network with the tensors of {material.name}; it has {', '.join(NETWORKS)}"
        if options := material.config.get("options"):
            return f"torchvision's {material.name} has no options {options}"
        if material.stem is not None and material.stem.lightness:
            return f"its stem is {material.replaced_stem}, which torchvision's have not: --to safetensors, or onnx"
        return None

    def files(self, material: Material) -> dict[str, bytes]:
        return {"model.safetensors": storage.tensors_bytes(material.tensors(handed_out=False))}

    def uses(self, material: Material) -> list[Use]:
        return [Use("torchvision", _program(material), not material.hands_out_more, "torchvision")]

    def notes(self, material: Material) -> list[str]:
        if material.replaced_stem is None:
            return []
        return [
            f"Its stem is {material.replaced_stem}: without the lines that change `conv1` and `maxpool` the weights do "
            "not fit, and torchvision says so."
        ]


def _program(material: Material) -> str:
    stem, channels = material.stem, material.preprocessing.channels
    changes = ""
    if stem is not None:
        changes = (
            f"network.conv1 = torch.nn.Conv2d({channels}, 64, kernel_size={stem.side}, stride={stem.stride}, "
            f"padding={stem.padding}, bias=False)\n"
        )
        changes += "" if stem.pooled else "network.maxpool = torch.nn.Identity()\n"
    elif channels != 3:
        changes = f"network.conv1 = torch.nn.Conv2d({channels}, 64, kernel_size=7, stride=2, padding=3, bias=False)\n"
    return f"""\
import torch
import torchvision
from safetensors.torch import load_file

network = torchvision.models.{material.name}(weights=None)
network.fc = torch.nn.Identity()
{changes}network.load_state_dict(load_file(f"{{folder}}/model.safetensors"))
network.eval()


def features(images):
    return network(images)
"""
