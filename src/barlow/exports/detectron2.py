"""A ResNet under detectron2's names, and the keys of its configuration; compared with its code, not run by it.

Source: detectron2's `tools/convert-torchvision-to-d2.py` (names, file, configuration), `modeling/backbone/resnet.py`
(RES2_OUT_CHANNELS of ResNet-18 and -34, NUM_GROUPS and WIDTH_PER_GROUP) and `checkpoint/detection_checkpoint.py`, which
reads a file whose name ends in `.pkl` as a pickle and matches names by their ends.
"""

import pickle
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from barlow.exports._protocol import Material, Use

__all__ = ["Detectron2"]

NETWORKS = {
    "resnet18": {"DEPTH": 18, "RES2_OUT_CHANNELS": 64},
    "resnet34": {"DEPTH": 34, "RES2_OUT_CHANNELS": 64},
    "resnet50": {"DEPTH": 50},
    "resnet101": {"DEPTH": 101},
    "resnet152": {"DEPTH": 152},
    "resnext50_32x4d": {"DEPTH": 50, "NUM_GROUPS": 32, "WIDTH_PER_GROUP": 4},
    "resnext101_32x8d": {"DEPTH": 101, "NUM_GROUPS": 32, "WIDTH_PER_GROUP": 8},
    "wide_resnet50_2": {"DEPTH": 50, "WIDTH_PER_GROUP": 128},
    "wide_resnet101_2": {"DEPTH": 101, "WIDTH_PER_GROUP": 128},
}
"""Networks that detectron2 can build, with what its section MODEL.RESNETS has to say of them."""

_PROGRAM = '''\
import pickle

import torch
import torch.nn.functional as F
import yaml

with open(f"{folder}/model.pkl", "rb") as file:  # detectron2 reads it so: open no pickle of a stranger
    weights = {name: torch.from_numpy(array) for name, array in pickle.load(file)["model"].items()}
with open(f"{folder}/detectron2.yaml") as file:
    groups = yaml.safe_load(file)["MODEL"]["RESNETS"]["NUM_GROUPS"]


def conv(x, name, stride=1, padding=0, groups=1):
    """detectron2's Conv2d with its norm inside."""
    norm = [weights[f"{name}.norm.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(F.conv2d(x, weights[f"{name}.weight"], None, stride, padding, 1, groups), *norm)


def block(x, name, stride):
    """BasicBlock, or BottleneckBlock with its stride in the 3×3 convolution."""
    shortcut = conv(x, f"{name}.shortcut", stride) if f"{name}.shortcut.weight" in weights else x
    if f"{name}.conv3.weight" in weights:
        y = conv(conv(x, f"{name}.conv1").relu(), f"{name}.conv2", stride, 1, groups).relu()
        return (conv(y, f"{name}.conv3") + shortcut).relu()
    return (conv(conv(x, f"{name}.conv1", stride, 1).relu(), f"{name}.conv2", 1, 1) + shortcut).relu()


def features(images):
    """The mean of res5, as detectron2 computes it."""
    x = F.max_pool2d(conv(images, "stem.conv1", 2, 3).relu(), 3, 2, 1)
    for stage in (2, 3, 4, 5):
        number = 0
        while f"res{stage}.{number}.conv1.weight" in weights:
            x = block(x, f"res{stage}.{number}", 2 if number == 0 and stage > 2 else 1)
            number += 1
    return x.mean((2, 3))
'''


@dataclass(frozen=True)
class Detectron2:
    """`model.pkl` and `detectron2.yaml`."""

    about: str = "detectron2's MODEL.WEIGHTS, for ResNets"

    def refuses(self, material: Material) -> str | None:
        if material.name not in NETWORKS:
            return f"detectron2 does not build {material.name}; it has {', '.join(NETWORKS)}"
        if options := material.config.get("options"):
            return f"detectron2's {material.name} has no options {options}"
        if (stem := material.replaced_stem) is not None:
            return (
                f"its stem is {stem}, and detectron2's ResNets have a 7×7 one (small images get it; a run with "
                "--encoder.stem as_is has that)"
            )
        return None

    def files(self, material: Material) -> dict[str, bytes]:
        found = material.tensors(handed_out=False)
        # Its frozen batch norm has no such counter, and nothing is normalised by it.
        arrays = {renamed(name): t.numpy() for name, t in found.items() if not name.endswith("num_batches_tracked")}
        content = {"model": arrays, "__author__": "barlow", "matching_heuristics": True}
        return {
            "model.pkl": pickle.dumps(content, protocol=2),
            "detectron2.yaml": yaml.safe_dump(_configuration(material), sort_keys=False).encode(),
        }

    def uses(self, material: Material) -> list[Use]:
        return [Use("detectron2's names", _PROGRAM, not material.hands_out_more, "", beside="nothing")]

    def notes(self, material: Material) -> list[str]:
        return [
            "detectron2 itself was not run: names, shapes and the order of computation were compared with its code, by "
            "the forward pass above.",
            "In detectron2: `cfg.merge_from_file('detectron2.yaml')` and `MODEL.WEIGHTS: model.pkl`. It normalises "
            "images by PIXEL_MEAN and PIXEL_STD itself.",
            "`model.pkl` is a pickle, because detectron2 reads nothing else under these names.",
        ]


def renamed(name: str) -> str:
    """detectron2's name of one of torchvision's tensors.

    Example:
        >>> renamed("layer1.0.bn3.bias"), renamed("conv1.weight"), renamed("layer2.0.downsample.1.weight")
        ('res2.0.conv3.norm.bias', 'stem.conv1.weight', 'res3.0.shortcut.norm.weight')
    """
    found = re.match(r"layer([1-4])\.", name)
    rest = name[found.end() :] if found else name
    rest = re.sub(r"bn([1-3])\.", r"conv\1.norm.", rest)
    rest = rest.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
    return f"res{int(found[1]) + 1}.{rest}" if found else f"stem.{rest}"


def _configuration(material: Material) -> dict[str, Any]:
    """What differs from detectron2's defaults."""
    seen = material.preprocessing
    low, high = seen.value_range or (0.0, 255.0)
    mean, std = (np.asarray(values) * (high - low) for values in (seen.mean, seen.std))
    return {
        "MODEL": {
            "WEIGHTS": "model.pkl",
            "PIXEL_MEAN": [float(value) for value in mean + low],
            "PIXEL_STD": [float(value) for value in std],
            "RESNETS": {"NUM_GROUPS": 1, **NETWORKS[material.name], "STRIDE_IN_1X1": False},
        },
        "INPUT": {"FORMAT": "RGB" if seen.channels == 3 else "L" if seen.channels == 1 else f"{seen.channels} bands"},
    }
