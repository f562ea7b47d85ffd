"""W-MSE by loops, from section 3 of arXiv 2007.06346: factor, substitution and inverse square root by hand."""

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


def inverse_square_root(sigma: Tensor) -> Tensor:
    """sigma^(-1/2), the limit of Z in Y, Z = (Y + Z⁻¹) / 2, (Z + Y⁻¹) / 2 from sigma, I (Denman and Beavers)."""
    y, z = sigma, torch.eye(len(sigma), dtype=sigma.dtype)
    for _ in range(40):
        y, z = (y + torch.linalg.inv(z)) / 2, (z + torch.linalg.inv(y)) / 2
    return z


def whitened_rows(
    z: Tensor, shrinkage: float = 0.0, whitening: str = "cholesky", *, constant_covariance: bool = False
) -> Tensor:
    """L⁻¹ (z - mean) or Σ^(-1/2) (z - mean).

    `constant_covariance` takes Σ for a constant: a wrong gradient that tests must tell apart.
    """
    k, d = z.shape
    columns = [z[:, j] - z[:, j].sum() / k for j in range(d)]
    sigma = [
        [(1 - shrinkage) * columns[i].dot(columns[j]) / (k - 1) + (shrinkage if i == j else 0) for j in range(d)]
        for i in range(d)
    ]
    if constant_covariance:
        sigma = [[entry.detach() for entry in row] for row in sigma]
    if whitening == "zca":
        root = inverse_square_root(torch.stack([torch.stack(row) for row in sigma]))
        return torch.stack(columns, dim=1) @ root
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
    whitening: str = "cholesky",
    distance: str = "cosine",
    *,
    constant_covariance: bool = False,
) -> dict[str, Tensor]:
    n, d = za.shape
    k = slice_rows or 2 * d
    total = za.new_zeros(())
    for start in range(0, n, k):
        wa, wb = (
            whitened_rows(z[start : start + k], shrinkage, whitening, constant_covariance=constant_covariance)
            for z in (za, zb)
        )
        for i in range(k):
            if distance == "euclidean":
                total = total + ((wa[i] - wb[i]) ** 2).sum() / (n * d)
                continue
            cosine = wa[i].dot(wb[i]) / torch.sqrt(wa[i].dot(wa[i]) * wb[i].dot(wb[i]))
            total = total + (2 - 2 * cosine) / n
    return {"distance": total}
