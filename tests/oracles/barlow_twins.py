"""Barlow Twins by loops, from equations 1 and 2 of arXiv 2103.03230, the variants from its table 5, and the released
code's conventions."""

import torch
from torch import Tensor


def _centred_columns(rows: Tensor) -> list[Tensor]:
    n, d = rows.shape
    return [rows[:, j] - rows[:, j].sum() / n for j in range(d)]


def standardised_columns(z: Tensor, eps: float) -> list[Tensor]:
    n = len(z)
    return [column / (column.dot(column) / n + eps) ** 0.5 for column in _centred_columns(z)]


def _columns(z: Tensor, eps: float, normalization: str) -> list[Tensor]:
    if normalization == "none":
        return _centred_columns(z)
    columns = standardised_columns(z, eps)
    if normalization == "samples":
        rows = [torch.stack([column[i] for column in columns]) for i in range(len(z))]
        rows = [row * (len(columns) / row.dot(row)) ** 0.5 for row in rows]
        columns = _centred_columns(torch.stack(rows))
    return columns


def barlow_twins(
    za: Tensor,
    zb: Tensor,
    *,
    invariance: float = 1.0,
    redundancy: float = 0.0051,
    eps: float = 1e-5,
    normalization: str = "batch",
) -> dict[str, Tensor]:
    n, d = za.shape
    a, b = _columns(za, eps, normalization), _columns(zb, eps, normalization)
    on_diagonal, off_diagonal = za.new_zeros(()), za.new_zeros(())
    for i in range(d):
        for j in range(d):
            correlation = a[i].dot(b[j]) / n
            if i == j:
                on_diagonal = on_diagonal + (1 - correlation) ** 2
            else:
                off_diagonal = off_diagonal + correlation**2
    return {"invariance": invariance * on_diagonal, "redundancy": redundancy * off_diagonal}
