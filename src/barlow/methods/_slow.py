"""Slow copies: networks that follow others and are not trained."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

Schedule = Literal["cosine", "constant"]


def check_momentum(momentum: float, schedule: str) -> None:
    """Raises ValueError for a momentum outside [0, 1), or an unknown schedule."""
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}: give a number in [0, 1), 0.996 for example")
    if schedule not in ("cosine", "constant"):
        raise ValueError(f"momentum_schedule is {schedule!r}: choose one of cosine, constant")


@torch.no_grad()
def follow(
    slow: Iterable[nn.Parameter], online: Iterable[nn.Parameter], momentum: float, schedule: str, progress: float
) -> None:
    """Moves the slow parameters: slow ← τ slow + (1 - τ) online, with τ = `momentum`, or on a cosine from there to 1.

    Args:
        slow: changed in place.
        online: in the same order.
        momentum: (τ) at the start.
        schedule: "cosine": 1 - (1 - momentum) (1 + cos(π · progress)) / 2; or "constant".
        progress: share of the run that was done before this update.
    """
    keep = momentum
    if schedule == "cosine":
        keep = 1 - (1 - momentum) * (1 + math.cos(math.pi * progress)) / 2
    torch._foreach_lerp_(list(slow), list(online), 1 - keep)
