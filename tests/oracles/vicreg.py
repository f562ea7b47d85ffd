"""VICReg by loops, from section 4 of arXiv 2105.04906 with the sums and means of the released code, of
Algorithm 1, or of equations 5-6."""

import torch
from torch import Tensor


def _hinge_and_covariance(z: Tensor, gamma: float, eps: float) -> tuple[Tensor, Tensor]:
    n, d = z.shape
    hinge, off_diagonal = z.new_zeros(()), z.new_zeros(())
    columns = [z[:, j] - z[:, j].sum() / n for j in range(d)]
    for i in range(d):
        std = torch.sqrt(columns[i].dot(columns[i]) / (n - 1) + eps)
        if std < gamma:
            hinge = hinge + (gamma - std) / d
        for j in range(d):
            if i != j:
                off_diagonal = off_diagonal + (columns[i].dot(columns[j]) / (n - 1)) ** 2 / d
    return hinge, off_diagonal


def vicreg(
    za: Tensor,
    zb: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    gamma: float = 1.0,
    eps: float = 1e-4,
    convention: str = "code",
) -> dict[str, Tensor]:
    n, d = za.shape
    distance = za.new_zeros(())
    for i in range(n):
        squared = ((za[i] - zb[i]) ** 2).sum()
        distance = distance + (squared / n if convention == "equations" else squared / (n * d))
    (hinge_a, covariance_a), (hinge_b, covariance_b) = (_hinge_and_covariance(z, gamma, eps) for z in (za, zb))
    return {
        "invariance": invariance * distance,
        "variance": variance * (hinge_a + hinge_b) / (2 if convention == "code" else 1),
        "covariance": covariance * (covariance_a + covariance_b),
    }
