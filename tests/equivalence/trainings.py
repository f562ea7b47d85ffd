"""Short trainings of every objective, in one process or in several: `trainings.py DATA OUT`, `... --resume OUT`."""

import sys
from pathlib import Path
from typing import Any

import tiny
import torch

from barlow.distributed import joined
from barlow.pretraining import pretrain

STEPS, HALF = 12, 8
_LARS = {"optim.trust": 0.001, "optim.clip": False, "optim.lr_per_256": 2.0, "optim.vectors_lr_per_256": 0.01}
RECIPES: dict[str, dict[str, Any]] = {
    "cifar10/barlow_twins": _LARS | {"encoder.whiten": 0.1, "data.executor": "streaming"},
    "cifar10/vicreg": _LARS,
    "cifar10/w_mse_4": {"objective.slice_rows": 8, "optim.lr_per_256": 0.001},
}
"""The published optimizers, LARS and Adam, at rates of which a dozen steps change the encoder by 0.2 to 0.5 per cent,
in norm.

Faster training of so small a batch multiplies any difference in rounding tenfold every few steps, in one process too.
"""
CHANGES: dict[str, Any] = tiny.SMALL | {
    "train.steps": STEPS,
    "train.batch_size": 24,
    "train.checkpoint_steps": HALF,
    "schedule.warmup_steps": 2,
    "optim.loss_weight": 1.0,
    "data.executor": "in_memory",
    "data.workers": 1,
    "data.mean": [0.5, 0.5, 0.5],
    "data.std": [0.25, 0.25, 0.25],
}


def run(data: Path, out: Path) -> None:
    for recipe, changes in RECIPES.items():
        pretrain(data, out / recipe, recipe=recipe, overrides=CHANGES | changes, progress=False)


def resume(out: Path) -> None:
    for recipe in RECIPES:
        pretrain(out=out / recipe, resume=True, progress=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined("cpu"):
        if sys.argv[1] == "--resume":
            resume(Path(sys.argv[2]))
        else:
            run(Path(sys.argv[1]), Path(sys.argv[2]))
