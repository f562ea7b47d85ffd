"""Cosines by loops over the features."""

import torch
from torch import Tensor


def dot(a: Tensor, b: Tensor) -> Tensor:
    total = a.new_zeros(())
    for x, y in zip(a, b, strict=True):
        total = total + x * y
    return total


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return dot(a, b) / torch.sqrt(dot(a, a) * dot(b, b))
