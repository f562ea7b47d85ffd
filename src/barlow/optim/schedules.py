"""Rates over a run: pure functions of (step, total), as multiples of the peak rate.

`schedule(step, total)` is the rate of the update that follows `step` updates; a run makes `total` of them, so the last
one is made with `schedule(total - 1, total)`.
"""

import math
from dataclasses import dataclass


def _check(step: int, total: int, warmup_steps: int) -> None:
    if not 0 <= step <= total:
        raise ValueError(f"step {step} of {total}: give a step from 0 to {total}")
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps {warmup_steps} is negative; give 0 for no warm-up")


@dataclass(frozen=True)
class WarmupCosine:
    """Linear from `start` to the peak, then half a cosine down to `floor`, updated every step.

    In the warm-up: start + (1 − start) · step / warmup.
    After it: floor + (1 − floor) · ½(1 + cos(π (step − warmup) / (total − warmup))).

    Source: Barlow Twins and VICReg, released code (`adjust_learning_rate`): 10 epochs of warm-up from 0, floor 0.001.
    solo-learn on CIFAR: 10 epochs of warm-up from 3e-5 to 0.3 (`start` 1e-4), floor 0.

    Convention: the first update is made at rate `start`, the update after the warm-up at the peak, the last one
    slightly above the floor (the floor itself would be reached one step later).

    Deviation: solo-learn's warm-up divides by warmup − 1, so that its last update too is made at the peak.

    Args:
        warmup_steps: updates before the peak is reached.
        floor: last rate as a part of the peak, in [0, 1].
        start: rate of the first update as a part of the peak, in [0, 1]; of no use without a warm-up.
    """

    warmup_steps: int
    floor: float
    start: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.start <= 1:
            raise ValueError(f"start {self.start} is a part of the peak rate; give a number in [0, 1]")

    def __call__(self, step: int, total: int) -> float:
        _check(step, total, self.warmup_steps)
        if step < self.warmup_steps:
            return self.start + (1 - self.start) * step / self.warmup_steps
        if total == self.warmup_steps:
            return 1.0
        progress = (step - self.warmup_steps) / (total - self.warmup_steps)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class StepDrops:
    """Linear warm-up, the peak, and a drop by `factor` at each of `drops_at`.

    Source: W-MSE, released code (`train.py`): warm-up over 500 updates, × 0.2 at epochs E − 50 and E − 25.

    Convention: the warm-up is the authors' (step + 1) / warmup_steps: the first update already moves, and the peak is
    reached with the last update of the warm-up. The update at a step of `drops_at` is the first made at the lower rate.

    Args:
        warmup_steps: updates of warm-up.
        drops_at: steps, in any order; a step given twice drops twice.
        factor: in (0, 1).
    """

    warmup_steps: int
    drops_at: tuple[int, ...]
    factor: float

    def __call__(self, step: int, total: int) -> float:
        _check(step, total, self.warmup_steps)
        warm = (step + 1) / self.warmup_steps if step < self.warmup_steps else 1.0
        return warm * self.factor ** sum(step >= drop for drop in self.drops_at)
