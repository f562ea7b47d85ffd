"""Losses by a memory bank as loops over rows, from equations 2-8 of arXiv 1805.01978 and the released code.

A bank is a list of rows, by id. Negatives are given: a list of ids for each row of the batch, or None for all others.
"""

import torch
from oracles.classification import surprisal
from oracles.directions import dot
from torch import Tensor

EPS = 1e-7


def scores(z: Tensor, right: int, negatives: list[int] | None, bank: list[Tensor], temperature: float) -> list[Tensor]:
    """Of one embedding: with its own row, then with the others."""
    others = [j for j in range(len(bank)) if j != right] if negatives is None else negatives
    length = dot(z, z) ** 0.5
    return [dot(z, bank[j]) / length / temperature for j in (right, *others)]


def constant(z: Tensor, ids: list[int], negatives: list[list[int]], bank: list[Tensor], temperature: float) -> Tensor:
    """Z: the mean of exp(score) over a batch and its draws, times the number of images."""
    total, count = 0.0, 0
    for row, right, others in zip(z.detach(), ids, negatives, strict=True):
        for score in scores(row, right, others, bank, temperature):
            total, count = total + float(torch.exp(score)), count + 1
    return torch.tensor(total / count * len(bank), dtype=torch.float64)


def estimated(
    z: Tensor,
    ids: list[int],
    negatives: list[list[int]],
    bank: list[Tensor],
    temperature: float,
    z_constant: Tensor,
    eps: float = EPS,
) -> Tensor:
    """Noise-contrastive estimation: a mean over the rows, a sum over the negatives."""
    total = z.new_zeros(())
    for row, right, others in zip(z, ids, negatives, strict=True):
        share = len(others) / len(bank)
        likely, *unlikely = (torch.exp(s) / z_constant for s in scores(row, right, others, bank, temperature))
        total = total - torch.log(likely / (likely + share + eps))
        for p in unlikely:
            total = total - torch.log(share / (p + share + eps))
    return total / len(z)


def softmax(
    z: Tensor, ids: list[int], negatives: list[list[int]] | None, bank: list[Tensor], temperature: float
) -> Tensor:
    """Cross-entropy over the row's own image and its negatives."""
    total = z.new_zeros(())
    for i, (row, right) in enumerate(zip(z, ids, strict=True)):
        first, *others = scores(row, right, None if negatives is None else negatives[i], bank, temperature)
        total = total + surprisal(first, others)
    return total / len(z)


def written(bank: list[Tensor], ids: list[int], z: Tensor, momentum: float) -> list[Tensor]:
    """The bank after a step: an image that comes twice moves towards the mean of both its directions."""
    after = list(bank)
    for image in set(ids):
        own = [row / dot(row, row) ** 0.5 for row, of in zip(z.detach(), ids, strict=True) if of == image]
        moved = momentum * bank[image] + (1 - momentum) * sum(own[1:], own[0]) / len(own)
        after[image] = moved / dot(moved, moved) ** 0.5
    return after
