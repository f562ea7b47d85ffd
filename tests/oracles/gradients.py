"""Losses and gradients side by side."""

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[..., dict[str, Tensor]]


def loss_and_gradients(objective: Loss, *views: Tensor) -> tuple[float, list[Tensor]]:
    """The loss and its gradient with respect to every view, in float64."""
    leaves = [z.detach().clone().requires_grad_() for z in views]
    loss = sum(objective(*leaves).values())
    return loss.item(), [g.double() for g in torch.autograd.grad(loss, leaves)]


def terms_and_gradients(objective: Loss, *views: Tensor) -> dict[str, tuple[float, list[Tensor]]]:
    """Every term with its gradient, apart: a large term must not hide a small one."""
    leaves = [z.detach().clone().requires_grad_() for z in views]
    found = {}
    for name, term in objective(*leaves).items():
        gradients = torch.autograd.grad(term, leaves, retain_graph=True, allow_unused=True)
        found[name] = (
            term.item(),
            [torch.zeros_like(z).double() if g is None else g.double() for g, z in zip(gradients, leaves, strict=True)],
        )
    return found


def relative_error(gradients: list[Tensor], reference: list[Tensor]) -> float:
    """‖g - r‖ / ‖r‖ over all views together; 0 where both are 0."""
    difference = sum(float((g - r).square().sum()) for g, r in zip(gradients, reference, strict=True))
    size = sum(float(r.square().sum()) for r in reference)
    if difference == 0:
        return 0.0
    return (difference / size) ** 0.5 if size else float("inf")
