"""Barlow Twins by loops, from equations 1 and 2 of arXiv 2103.03230 and the released code's conventions."""

from torch import Tensor


def _standardised_columns(z: Tensor, eps: float) -> list[Tensor]:
    n, d = z.shape
    columns = []
    for j in range(d):
        mean = z[:, j].sum() / n
        variance = ((z[:, j] - mean) ** 2).sum() / n
        columns.append((z[:, j] - mean) / (variance + eps) ** 0.5)
    return columns


def barlow_twins(za: Tensor, zb: Tensor, redundancy: float = 0.0051, eps: float = 1e-5) -> dict[str, Tensor]:
    n, d = za.shape
    a, b = _standardised_columns(za, eps), _standardised_columns(zb, eps)
    on_diagonal, off_diagonal = za.new_zeros(()), za.new_zeros(())
    for i in range(d):
        for j in range(d):
            correlation = a[i].dot(b[j]) / n
            if i == j:
                on_diagonal = on_diagonal + (1 - correlation) ** 2
            else:
                off_diagonal = off_diagonal + correlation**2
    return {"invariance": on_diagonal, "redundancy": redundancy * off_diagonal}
