"""Files of weights as other projects write them: their names, their entries, and the networks that they come from."""

import argparse
import importlib
import os
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import barlow  # noqa: F401

torchvision: Any = importlib.import_module("torchvision")  # behind barlow, which lets it be imported beside a CPU torch
timm: Any = importlib.import_module("timm")

State = dict[str, Tensor]

PROJECTOR = {"projector.0.weight": (8, 8), "projector.1.running_mean": (8,), "projector.3.weight": (8, 8)}
MLP = {"0.weight": (8, 8), "0.bias": (8,), "2.weight": (4, 8), "2.bias": (4,)}


def called(prefix: str, state: State) -> State:
    return OrderedDict((prefix + name, value) for name, value in state.items())


def made(names: dict[str, tuple[int, ...]], prefix: str = "") -> State:
    return {prefix + name: torch.ones(shape) for name, shape in names.items()}


def other(state: State) -> State:
    """Tensors of the same names that are not those that are wanted."""
    return {name: torch.zeros_like(value) for name, value in state.items()}


def lightning(state: State) -> dict[str, Any]:
    return {
        "epoch": 99,
        "global_step": 1000,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": state,
        "loops": {"fit_loop": {}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(3)}}}],
        "hyper_parameters": {"lr": 0.1, "args": argparse.Namespace(name="a")},
    }


def sequential(state: State) -> State:
    """A torchvision ResNet as `nn.Sequential(*list(resnet.children())[:-1])` names it."""
    places = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    return {places[(parts := name.split(".", 1))[0]] + "." + parts[1]: value for name, value in state.items()}


def without_head(state: State) -> State:
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


def renamed(state: State, *pairs: tuple[str, str]) -> State:
    out = {}
    for name, value in state.items():
        for pattern, to in pairs:
            name = re.sub(f"^{pattern}", to, name)
        out[name] = value
    return out


@dataclass(frozen=True)
class Case:
    """How a project saves a ResNet of torchvision's: from its tensors, without a classifier, to what is in the file."""

    content: Callable[[State], Any]
    recognised: str
    dropped: tuple[str, ...] = ()


CASES = {
    "Barlow Twins, resnet50.pth": Case(lambda s: s, "plain names"),
    "Barlow Twins, checkpoint.pth": Case(
        lambda s: {
            "epoch": 1000,
            "model": called("module.backbone.", s)
            | called("module.", made(PROJECTOR))
            | {"module.bn.running_mean": torch.ones(8), "module.bn.running_var": torch.ones(8)},
            "optimizer": {"param_groups": [{"weight_decay_filter": os.path.join, "params": [0]}]},
        },
        "Barlow Twins",
        ("the projector", "the last batch norm", "other entries"),
    ),
    "VICReg, model.pth": Case(
        lambda s: {
            "epoch": 1000,
            "model": called("module.backbone.", s) | called("module.", made(PROJECTOR)),
            "optimizer": {"param_groups": [{"lars_adaptation_filter": os.path.join}]},
        },
        "VICReg",
        ("the projector", "other entries"),
    ),
    "MoCo v1": Case(
        lambda s: {
            "epoch": 200,
            "arch": "resnet50",
            "state_dict": called("module.encoder_q.", s | {"fc.weight": torch.ones(4, 8), "fc.bias": torch.ones(4)})
            | called("module.encoder_k.", other(s) | {"fc.weight": torch.ones(4, 8)})
            | {"module.queue": torch.ones(4, 16), "module.queue_ptr": torch.zeros(1, dtype=torch.long)},
            "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}},
        },
        "MoCo",
        ("the key encoder", "the projection head", "the queue", "other entries"),
    ),
    "MoCo v2": Case(
        lambda s: {
            "state_dict": called("module.encoder_q.", s | made(MLP, "fc."))
            | called("module.encoder_k.", other(s) | made(MLP, "fc."))
            | {"module.queue": torch.ones(4, 16), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
        },
        "MoCo",
        ("the key encoder", "the projection head", "the queue"),
    ),
    "MoCo v3": Case(
        lambda s: {
            "state_dict": called("module.base_encoder.", s | made(MLP, "fc."))
            | called("module.momentum_encoder.", other(s) | made(MLP, "fc."))
            | made(MLP, "module.predictor.")
        },
        "MoCo v3",
        ("the momentum encoder", "the projection head", "the predictor"),
    ),
    "SimSiam": Case(
        lambda s: {
            "state_dict": called("module.encoder.", s | made(MLP, "fc.") | made({"fc.6.bias": (4,)}))
            | made(MLP, "module.predictor.")
        },
        "SimSiam",
        ("the projection head", "the predictor"),
    ),
    "SwAV, released": Case(
        lambda s: called("module.", s | made(MLP, "projection_head.") | {"prototypes.weight": torch.ones(3, 4)}),
        "SwAV or DeepCluster v2",
        ("the projection head", "the prototypes"),
    ),
    "SwAV, of training": Case(
        lambda s: {
            "epoch": 10,
            "state_dict": called(
                "module.", s | made(MLP, "projection_head.") | {"prototypes.weight": torch.ones(3, 4)}
            ),
            "amp": None,
        },
        "SwAV or DeepCluster v2",
        ("the projection head", "the prototypes"),
    ),
    "DeepCluster v2": Case(
        lambda s: called(
            "module.",
            s | made(MLP, "projection_head.") | made({f"prototypes.prototypes{i}.weight": (3, 4) for i in range(3)}),
        ),
        "SwAV or DeepCluster v2",
        ("the projection head", "the prototypes"),
    ),
    "DINO, a ResNet's checkpoint.pth": Case(
        lambda s: {
            "student": called("module.backbone.", other(s)) | made({"module.head.mlp.0.weight": (4, 4)}),
            "teacher": called("module.backbone.", s)
            | made({"module.head.mlp.0.weight": (4, 4), "module.head.last_layer.weight_g": (4, 1)}),
            "optimizer": {"state": {}},
            "epoch": 100,
            "args": argparse.Namespace(arch="resnet50"),
            "dino_loss": {"center": torch.ones(1, 4)},
        },
        "DINO",
        ("the projection head", "other entries"),
    ),
    "DINO, the student alone": Case(
        lambda s: {
            "student": called("module.backbone.", s) | made({"module.head.mlp.0.weight": (4, 4)}),
            "args": argparse.Namespace(arch="resnet50"),
        },
        "DINO: names after module.backbone., in student",
        ("the projection head", "other entries"),
    ),
    "solo-learn": Case(
        lambda s: lightning(
            called("backbone.", s)
            | called("momentum_backbone.", other(s))
            | made(PROJECTOR)
            | made({"momentum_projector.0.weight": (3, 3), "predictor.0.weight": (3, 3), "queue": (3, 4)})
            | made({"classifier.weight": (10, 8), "classifier.bias": (10,), "momentum_classifier.weight": (10, 8)})
        ),
        "solo-learn",
        ("the momentum copy", "the projector", "the predictor", "the classifier", "the queue"),
    ),
    "solo-learn, older": Case(
        lambda s: lightning(
            called("encoder.", s)
            | called("momentum_encoder.", other(s))
            | made(PROJECTOR)
            | made({"classifier.bias": (9,)})
        ),
        "solo-learn",
        ("the momentum copy", "the projector", "the classifier"),
    ),
    "lightly, benchmark": Case(
        lambda s: lightning(
            called("backbone.", s)
            | made(MLP, "projection_head.layers.")
            | made({"online_classifier.linear.weight": (9, 8), "criterion.memory_bank.bank": (3, 3)})
        ),
        "lightly",
        ("the heads", "what the loss keeps"),
    ),
    "lightly, Sequential": Case(
        lambda s: lightning(
            called("backbone.", sequential(s))
            | called("backbone_momentum.", sequential(other(s)))
            | made(MLP, "projection_head.layers.")
            | made(MLP, "projection_head_momentum.layers.")
        ),
        "lightly",
        ("the momentum copy or the student", "the heads"),
    ),
    "lightly, DINO": Case(
        lambda s: lightning(
            called("student_backbone.", sequential(other(s)))
            | called("teacher_backbone.", sequential(s))
            | made(MLP, "student_head.layers.")
            | made(MLP, "teacher_head.layers.")
            | made({"criterion.center": (1, 1, 4)})
        ),
        "lightly",
        ("the student", "heads and loss"),
    ),
    "lightly, older": Case(
        lambda s: lightning(called("model.backbone.", sequential(s)) | made(MLP, "model.projection_head.layers.")),
        "lightly",
        ("the heads",),
    ),
    "lightly, the oldest": Case(
        lambda s: lightning(called("model.features.", sequential(s)) | made(MLP, "model.projection_head.")),
        "lightly",
        ("the heads",),
    ),
    "VISSL": Case(
        lambda s: {
            "phase_idx": 100,
            "iteration": 1000,
            "loss": {"total_loss": None},
            "classy_state_dict": {
                "base_model": {
                    "model": {"trunk": called("_feature_blocks.", s), "heads": made({"0.clf.0.weight": (4, 4)})},
                    "meters": {"accuracy": [1.0]},
                },
                "optimizer": {"state": {}},
            },
        },
        "VISSL",
        ("other entries",),
    ),
    "VISSL, converted": Case(lambda s: {"model_state_dict": s}, "plain names", ()),
    "mmselfsup": Case(
        lambda s: {
            "meta": {"mmselfsup_version": "1.0", "config": "model = dict()", "seed": 0},
            "state_dict": called("backbone.", s)
            | made(MLP, "neck.")
            | made({"head.predictor.weight": (3, 3), "data_preprocessor.mean": (3, 1, 1)})
            | called("target_net.0.", other(s)),
            "optimizer": {},
        },
        "mmselfsup",
        ("the neck", "the head", "the momentum copy", "what the method keeps"),
    ),
    "timm, of training": Case(
        lambda s: {
            "epoch": 3,
            "arch": "resnet18",
            "state_dict": called("module.", s | {"fc.weight": torch.ones(4, 8), "fc.bias": torch.ones(4)}),
            "optimizer": {},
            "version": 2,
            "args": argparse.Namespace(model="resnet18"),
            "metric": 0.5,
        },
        "timm's training",
        ("other entries", "the classifier"),
    ),
    "torchvision, of training": Case(
        lambda s: {
            "model": s | {"fc.weight": torch.ones(4, 8), "fc.bias": torch.ones(4)},
            "optimizer": {},
            "lr_scheduler": {},
            "epoch": 3,
            "args": argparse.Namespace(),
        },
        "torchvision's training",
        ("the classifier",),
    ),
    "torchvision": Case(
        lambda s: s | {"fc.weight": torch.ones(4, 8), "fc.bias": torch.ones(4)}, "plain names", ("the classifier",)
    ),
    "in a data-parallel wrapper": Case(lambda s: called("module.", s), "names after module."),
    "torch before 0.4.1, without counts": Case(
        lambda s: {name: value for name, value in s.items() if not name.endswith("num_batches_tracked")}, "plain names"
    ),
}


_MLP = r"(fc|projection_head|predictor|neck|layers)"

PUBLISHED = {
    r"projector\.0\.weight$": (8192, 2048),
    r"projector\.1\.running_mean$": (8192,),
    r"projector\.3\.weight$": (8192, 8192),
    r"module\.bn\.running_(mean|var)$": (8192,),
    rf"{_MLP}\.0\.weight$": (2048, 2048),
    rf"{_MLP}\.0\.bias$": (2048,),
    rf"{_MLP}\.2\.weight$": (128, 2048),
    rf"{_MLP}\.2\.bias$": (128,),
    r"encoder_[qk]\.fc\.weight$": (128, 2048),
    r"encoder_[qk]\.fc\.bias$": (128,),
    r"(^|\.)(queue|bank)$": (128, 65_536),
    r"prototypes\d*\.weight$": (3000, 128),
    r"head\.mlp\.0\.weight$": (2048, 2048),
    r"last_layer\.weight_g$": (65_536, 1),
    r"^(fc|classifier)\.weight$": (1000, 2048),
    r"^(fc|classifier)\.bias$": (1000,),
}
"""Heads, queues and prototypes as they were released beside a ResNet-50: Barlow Twins' and VICReg's projectors, MoCo's
head and queue, SwAV's prototypes, DINO's last layer."""


def published(content: Any) -> Any:
    """The same file with what is beside the encoder in its released shapes."""
    if not isinstance(content, dict):
        return content
    out = {}
    for name, value in content.items():
        shape = next((shape for pattern, shape in PUBLISHED.items() if re.search(pattern, str(name))), None)
        out[name] = torch.zeros(shape) if shape and isinstance(value, Tensor) else published(value)
    return out


def numbers_in(content: Any) -> int:
    """How many numbers the tensors of a file have."""
    if isinstance(content, Tensor):
        return content.numel()
    return sum(map(numbers_in, content.values())) if isinstance(content, dict) else 0


class Narrow(torchvision.models.ResNet):  # type: ignore[name-defined,misc]
    """torchvision's ResNet with a quarter of the channels after the stem."""

    def _make_layer(self, block: Any, planes: int, *options: Any, **more: Any) -> nn.Module:
        layer: nn.Module = super()._make_layer(block, planes // 4, *options, **more)
        return layer


class Wide(torchvision.models.ResNet):  # type: ignore[name-defined,misc]
    """torchvision's ResNet with a stem of twice the channels, as VICReg's and SwAV's wide ones have it."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, 128 if name == "inplanes" and not hasattr(self, "conv1") else value)

    def _make_layer(self, block: Any, planes: int, *options: Any, **more: Any) -> nn.Module:
        layer: nn.Module = super()._make_layer(block, planes // 8, *options, **more)
        return layer


def wide_resnet() -> nn.Module:
    """A ResNet whose stem has 128 channels."""
    torch.manual_seed(0)
    network = Wide(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1])
    network.fc = nn.Identity()
    return tempered(network)


def small_resnet(kind: str = "basic", **options: Any) -> nn.Module:
    """A narrow ResNet with one block a stage, and tensors that no initialisation gives."""
    block = {"basic": torchvision.models.resnet.BasicBlock, "bottleneck": torchvision.models.resnet.Bottleneck}[kind]
    torch.manual_seed(0)
    network = Narrow(block, [1, 1, 1, 1], **options)
    network.fc = nn.Identity()
    return tempered(network)


def tempered(network: nn.Module) -> nn.Module:
    """Changed from what it starts with, and still with features of moderate size."""
    generator = torch.Generator().manual_seed(1)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.mul_(1 + 0.3 * torch.rand(value.shape, generator=generator))
            if not name.endswith("running_var"):
                value.add_(0.02 * torch.rand(value.shape, generator=generator))
        else:
            value.add_(5)
    return network.eval()
