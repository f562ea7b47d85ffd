"""Cross-entropy by loops over rows and classes."""

from collections.abc import Sequence

import torch
from torch import Tensor


def surprisal(right: Tensor, others: Sequence[Tensor]) -> Tensor:
    """-log (exp right / (exp right + Σ exp others)), as log (1 + Σ exp(others - right)): no digits of small ones go."""
    ratios = right.new_zeros(())
    for other in others:
        ratios = ratios + torch.exp(other - right)
    return torch.log1p(ratios)


def cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    total = logits.new_zeros(())
    for row, right in zip(logits, classes.tolist(), strict=True):
        total = total + surprisal(row[right], [row[k] for k in range(len(row)) if k != right])
    return total / len(logits)
