"""W-MSE by loops, from section 3 of arXiv 2007.06346: one slice, Cholesky's factor and the substitution by hand."""

import torch
from torch import Tensor


def cholesky(sigma: list[list[Tensor]]) -> list[list[Tensor]]:
    """L with L Lᵀ = sigma, row by row (Cholesky and Banachiewicz)."""
    d = len(sigma)
    factor: list[list[Tensor]] = [[] for _ in range(d)]
    for i in range(d):
        for j in range(i + 1):
            rest = sigma[i][j] - sum(factor[i][m] * factor[j][m] for m in range(j))
            factor[i].append(torch.sqrt(rest) if i == j else rest / factor[j][j])
    return factor


def whitened_rows(z: Tensor, shrinkage: float = 0.0, *, constant_covariance: bool = False) -> Tensor:
    """L⁻¹ (z - mean). `constant_covariance` takes L for a constant: a wrong gradient that tests must tell apart."""
    k, d = z.shape
    columns = [z[:, j] - z[:, j].sum() / k for j in range(d)]
    sigma = [
        [(1 - shrinkage) * columns[i].dot(columns[j]) / (k - 1) + (shrinkage if i == j else 0) for j in range(d)]
        for i in range(d)
    ]
    if constant_covariance:
        sigma = [[entry.detach() for entry in row] for row in sigma]
    factor = cholesky(sigma)
    solved: list[Tensor] = []
    for i in range(d):
        solved.append((columns[i] - sum(factor[i][m] * solved[m] for m in range(i))) / factor[i][i])
    return torch.stack(solved, dim=1)


def w_mse(
    za: Tensor,
    zb: Tensor,
    slice_rows: int | None = None,
    shrinkage: float = 0.0,
    *,
    constant_covariance: bool = False,
) -> dict[str, Tensor]:
    n, d = za.shape
    k = slice_rows or 2 * d
    total = za.new_zeros(())
    for start in range(0, n, k):
        wa, wb = (
            whitened_rows(z[start : start + k], shrinkage, constant_covariance=constant_covariance) for z in (za, zb)
        )
        for i in range(k):
            cosine = wa[i].dot(wb[i]) / torch.sqrt(wa[i].dot(wa[i]) * wb[i].dot(wb[i]))
            total = total + (2 - 2 * cosine) / n
    return {"distance": total}
