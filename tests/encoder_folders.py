"""Folders of encoders for tests: untrained, with weights and statistics that no layer starts with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from barlow import storage
from barlow.distributed import World
from barlow.nets import weights
from barlow.nets.building import build_encoder
from barlow.nets.handed_out import HandedOut, Stages, handed_out
from barlow.nets.preprocessing import Preprocessing
from barlow.seals import sha256
from barlow.size import Size, height_width

SMALL = {"layers": [1, 1, 1, 1], "channels": [32, 64, 128, 256]}
"""Of the default small encoder."""


def written(
    folder: Path,
    name: str,
    *,
    channels: int = 3,
    size: Size = 32,
    stem: str = "as_is",
    options: Mapping[str, Any] | None = None,
    stages: Stages = "last",
    whiten: float | None = None,
    value_range: tuple[float, float] | None = None,
) -> Path:
    """An encoder folder, as a run writes it."""
    network = build_encoder(
        name, in_channels=channels, image_size=size, stem=stem, zero_init_last=False, options=options
    )
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(0.1 * torch.randn(module.num_features, generator=generator))  # type: ignore[union-attr]
            module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=generator))  # type: ignore[union-attr]
    made = handed_out(network.eval(), stages, whiten).eval()
    if isinstance(made, HandedOut) and whiten is not None:
        views = (torch.randn(64, channels, *height_width(size), generator=generator) for _ in range(4))
        made.fit(views, whiten, World(torch.device("cpu")))
    seen = Preprocessing(
        size,
        0.9,
        "bilinear",
        tuple(0.4 + 0.01 * i for i in range(channels)),
        tuple(0.2 + 0.01 * i for i in range(channels)),
        channels,
        value_range,
    )
    tensors, config = weights.packed(
        made,
        name=name,
        stem=stem,
        zero_init_last=False,
        options=dict(options or {}),
        seed=0,
        preprocessing=seen,
        stages=stages,
        whiten=whiten,
    )
    data = storage.tensors_bytes(tensors)
    storage.write_bytes(folder / "model.safetensors", data)
    storage.write_sealed(folder / "config.json", {**config, "model_sha256": sha256(data)})
    return folder
