"""Exemplar's two losses by loops over views, images and other images."""

from collections.abc import Sequence

import torch
from oracles import classification
from torch import Tensor


def exemplar(*z: Tensor, ids: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The mean surprisal of each view's own image, of which each has a row of weights."""
    losses = [classification.cross_entropy(torch.stack([weight @ row + bias for row in view]), ids) for view in z]
    return torch.stack(losses).mean()


def triplets(*z: Tensor, margin: float) -> Tensor:
    """The mean hinge of all pairs of an anchor and another view of its image, with semi-hard negatives."""
    u = [[row / row.norm() for row in view] for view in z]
    losses = []
    for v, view in enumerate(u):
        for i, anchor in enumerate(view):
            for w, other in enumerate(u):
                if w != v:
                    losses.append(_hinge(anchor, other[i], _of_others(u, i), margin))
    return torch.stack(losses).mean()


def _of_others(u: Sequence[Sequence[Tensor]], i: int) -> list[Tensor]:
    return [row for view in u for j, row in enumerate(view) if j != i]


def _hinge(anchor: Tensor, copy: Tensor, others: list[Tensor], margin: float) -> Tensor:
    to_copy = (anchor - copy).square().sum()
    away = [(anchor - other).square().sum() for other in others]
    further = [d for d in away if d > to_copy]
    chosen = min(further, key=_number) if further else max(away, key=_number)
    return torch.clamp(margin + to_copy - chosen, min=0.0)


def _number(distance: Tensor) -> float:
    return float(distance.detach())
