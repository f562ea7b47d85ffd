"""How long a detector is trained, with which rates and at which sizes: the papers' schedules as data, and a short one.

The papers train on eight GPUs for most of a day. The short schedule compares encoders on a small machine: after few
steps what an encoder brings along shows, and after many a detector from scratch has caught up on a small set.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A course of training.

    Args:
        steps: updates.
        batch_size: images in each.
        optimizer: SGD with momentum, or AdamW.
        rate: the peak.
        momentum: of SGD.
        weight_decay: of all that is trained, norms and biases too, as in detectron2.
        warmup_steps: in which the rate rises linearly to the peak,
        warmup_from: from this part of it.
        drops: steps from which on the rate is a tenth of what it was. Without any it falls by half a cosine to zero.
        sides: the shorter side of a training image in pixels is one of these, drawn for each image.
        test_side: of a test image.
        longest: side that an image may have; of a long one the shorter side is smaller.
        rpn_weight: of the two terms of the proposals in the loss.
        designs: the detectors that it is for.
        source: where the numbers come from.
    """

    steps: int
    batch_size: int
    optimizer: Literal["sgd", "adamw"]
    rate: float
    momentum: float = 0.9
    weight_decay: float
    warmup_steps: int
    warmup_from: float
    drops: tuple[int, ...] = ()
    sides: tuple[int, ...]
    test_side: int
    longest: int
    rpn_weight: float = 1.0
    designs: tuple[str, ...]
    source: str

    def rate_at(self, step: int) -> float:
        """The rate of the update that follows `step` updates.

        Convention: detectron2's. The warm-up multiplies what the drops have left.
        """
        warm = 1.0
        if step < self.warmup_steps:
            done = step / self.warmup_steps
            warm = self.warmup_from * (1 - done) + done
        if self.drops:
            return self.rate * warm * 0.1 ** sum(step >= drop for drop in self.drops)
        return self.rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def optimizer_of(self, network: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of all that is trained in a network."""
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if self.optimizer == "sgd":
            return torch.optim.SGD(trained, self.rate, self.momentum, weight_decay=self.weight_decay)
        return torch.optim.AdamW(trained, self.rate, weight_decay=self.weight_decay)


_LARGE = {"test_side": 800, "longest": 1333}
_VOC = {"steps": 24_000, "batch_size": 16, "optimizer": "sgd", "weight_decay": 1e-4, "drops": (18_000, 22_000)}
_VOC |= {"sides": tuple(range(480, 801, 32)), "designs": ("c4",), **_LARGE}
_COCO = {"steps": 90_000, "batch_size": 16, "optimizer": "sgd", "weight_decay": 1e-4, "drops": (60_000, 80_000)}
_COCO |= {"sides": tuple(range(640, 801, 32)), **_LARGE}

SCHEDULES = {
    "short": Schedule(
        steps=100,
        batch_size=2,
        optimizer="adamw",
        rate=1e-3,
        weight_decay=0.01,
        warmup_steps=10,
        warmup_from=0.1,
        sides=(240,),
        test_side=240,
        longest=320,
        designs=("small_fpn", "fpn", "c4"),
        source="ours, for comparisons on a small machine; it has no counterpart in the papers",
    ),
    "moco_voc": Schedule(
        **_VOC,  # type: ignore[arg-type]
        rate=0.02,
        warmup_steps=100,
        warmup_from=0.001,
        source="MoCo's configuration for detectron2 (VOC07+12 trainval, tested on VOC07)",
    ),
    "barlow_twins_voc": Schedule(
        **_VOC,  # type: ignore[arg-type]
        rate=0.1,
        warmup_steps=1000,
        warmup_from=0.333,
        source="Barlow Twins (arXiv 2103.03230), appendix C: MoCo's with another rate and warm-up",
    ),
    "vicreg_voc": Schedule(
        **_VOC,  # type: ignore[arg-type]
        rate=0.1,
        warmup_steps=1000,
        warmup_from=0.333,
        rpn_weight=0.2,
        source="VICReg (arXiv 2105.04906), appendix C: Barlow Twins' with less weight on the proposals",
    ),
    "barlow_twins_coco": Schedule(
        **_COCO,  # type: ignore[arg-type]
        rate=0.03,
        warmup_steps=1000,
        warmup_from=0.001,
        designs=("c4",),
        source="Barlow Twins (arXiv 2103.03230), appendix C: the 1× schedule with rate 0.03, the rest detectron2's",
    ),
    "vicreg_coco": Schedule(
        **_COCO,  # type: ignore[arg-type]
        rate=0.04,
        warmup_steps=50,
        warmup_from=0.001,
        designs=("fpn",),
        source="VICReg (arXiv 2105.04906), appendix C; where the warm-up starts is not said, and is detectron2's",
    ),
}


def chosen_schedule(name: str, steps: int | None, design: str) -> Schedule:
    """The schedule of a name.

    Args:
        name: of `SCHEDULES`.
        steps: another number of them, for `short`.
        design: of the detector.

    Raises:
        ValueError: there is none of this name; it is not for this detector; or a paper's is asked for with other steps.
    """
    if name not in SCHEDULES:
        raise ValueError(f"no schedule {name!r}; there are {', '.join(SCHEDULES)}, or a number of steps")
    schedule = SCHEDULES[name]
    if design not in schedule.designs:
        raise ValueError(f"the schedule {name} is for {' and '.join(schedule.designs)}, and not for {design}")
    if steps is None or steps == schedule.steps:
        return schedule
    if name != "short":
        raise ValueError(f"the schedule {name} has {schedule.steps} steps, as published: other steps are for short")
    if steps < 1:
        raise ValueError(f"{steps} steps: a number of steps is at least 1")
    return replace(schedule, steps=steps, warmup_steps=min(schedule.warmup_steps, steps // 10))
