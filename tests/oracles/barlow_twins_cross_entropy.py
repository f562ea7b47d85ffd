"""The cross-entropy form of Barlow Twins by loops, from the text beside table 5 of arXiv 2103.03230."""

import math

import torch
from oracles.barlow_twins import standardised_columns
from torch import Tensor


def without_constant(
    za: Tensor, zb: Tensor, *, redundancy: float = 1.0, temperature: float = 0.1, eps: float = 1e-5
) -> dict[str, Tensor]:
    """The two terms as the paper writes them."""
    n, d = za.shape
    a, b = standardised_columns(za, eps), standardised_columns(zb, eps)
    on_diagonal, off_diagonal = za.new_zeros(()), za.new_zeros(())
    for i in range(d):
        for j in range(d):
            correlation = a[i].dot(b[j]) / n
            if i == j:
                on_diagonal = on_diagonal + torch.exp(correlation / temperature)
            else:
                off_diagonal = off_diagonal + torch.exp(max(correlation, za.new_zeros(())) / temperature)
    return {"invariance": -torch.log(on_diagonal), "redundancy": redundancy * torch.log(off_diagonal)}


def barlow_twins_cross_entropy(
    za: Tensor, zb: Tensor, *, redundancy: float = 1.0, temperature: float = 0.1, eps: float = 1e-5
) -> dict[str, Tensor]:
    """The same less the values that they have at c = I."""
    d = za.shape[1]
    terms = without_constant(za, zb, redundancy=redundancy, temperature=temperature, eps=eps)
    return {
        "invariance": terms["invariance"] + 1 / temperature + math.log(d),
        "redundancy": terms["redundancy"] - redundancy * math.log(d * (d - 1)),
    }
