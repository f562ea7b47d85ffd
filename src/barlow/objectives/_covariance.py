"""VICReg's variances and the sum of squares of its covariances, with a gradient written by hand.

`plain_covariance_energies` says what is computed, in two lines with torch's gradient. The tests compare
`covariance_energies` with it. Written by hand, the gradient takes fewer passes over the batch, and uses n × n matrices
where there are fewer rows than features.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from barlow.linalg import Scalar, center, covariance, prefers_gram, without_diagonal
from barlow.objectives._gradients import add_product_, as_factor, first_derivative_only, off_diagonal_squares_
from barlow.objectives._inputs import check_non_negative, few_in_float64
from barlow.types import Embedding


def plain_covariance_energies(z: Embedding) -> tuple[Float[Tensor, "d"], Scalar]:
    """The variances and Σᵢ Σ_{j≠i} covᵢⱼ², as the paper writes them and with torch's gradient."""
    c = covariance(z)
    return c.diagonal(), without_diagonal(c).square().sum()


def covariance_energies(
    z: Embedding, *, gram: bool | None = None, products: torch.dtype | None = None
) -> tuple[Float[Tensor, "d"], Scalar]:
    """The variances of the features, and the energy of their covariances: the sum of squares Σᵢ Σ_{j≠i} covᵢⱼ².

    Convention: unbiased, divisor n - 1. Variances are summed and returned in float64 (on mps, which has none, in the
        precision of z), the energy in the precision of z.

    Args:
        z: a batch, centred or not.
        gram: forces the n × n form (True) or the d × d form (False). By default the cheaper one is taken. Both have the
            same value and the same gradient.
        products: precision in which matrices are multiplied. By default, and for narrow batches always (see `NARROW`),
            it is the precision of z.
    """
    if gram is None:
        gram = prefers_gram(*z.shape, crossed=False)
    variance, energy = _CovarianceEnergies.apply(z, gram, products)
    return variance, energy


def hinge_and_covariance(z: Embedding, gamma: float, eps: float) -> tuple[Scalar, Scalar]:
    """VICReg's two terms of one view, without weights: v(z) = mean over features of max(0, gamma - √(var + eps)), and
    c(z) = Σᵢ Σ_{j≠i} covᵢⱼ² / d.

    Raises:
        ValueError: a feature is constant and eps is 0.
    """
    exact = few_in_float64(z)
    variance, off_diagonal = covariance_energies(exact, products=z.dtype)
    if eps == 0 and bool((variance == 0).any()):
        raise ValueError("a feature is constant over the batch and eps is 0: use eps > 0 (1e-4 in the paper)")
    return (gamma - (variance + eps).sqrt()).relu().mean(), off_diagonal / z.shape[1]


def check_hinge(gamma: float, eps: float) -> None:
    """Raises ValueError for a gamma or an eps that cannot be."""
    check_non_negative(gamma=gamma, eps=eps)
    if gamma == 0:
        raise ValueError("gamma is 0: give the standard deviation that features should keep (1 in the paper)")


class _CovarianceEnergies(torch.autograd.Function):
    """The variances v of the centred X, and the energy E = ‖C‖² with C = XᵀX / (n - 1) without its diagonal.

    v has the gradient 2 X / (n - 1), and E has 4 X C / (n - 1).

    With the Gram matrix G = X Xᵀ / (n - 1), E = ‖G‖² - Σ vⱼ². That difference cancels where the features are nearly
    decorrelated and n is near d. There G is near τ P, where P is the projection that centres and τ is the mean of the
    n - 1 eigenvalues of G. So the means are taken out of both sums: τ out of the eigenvalues, and the mean v̄ out of the
    d variances. What this leaves over is known exactly:

        E = ‖G - τP‖² - Σ (vⱼ - v̄)² + tr² (1/(n - 1) - 1/d), tr = Σ vⱼ

    Both squares are stationary at τ and v̄, so no gradient passes through these means. X gets 4 (G - τP) X / (n - 1),
    and v gets -2 (v - v̄) + 2 tr (1/(n - 1) - 1/d). All these gradients have mean 0 over the rows.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, gram: bool, products: torch.dtype | None) -> tuple[Tensor, Tensor]:
        n, d = z.shape
        x = center(z)
        variance = x.square().sum(dim=0, dtype=x.dtype if x.device.type == "mps" else torch.float64) / (n - 1)
        factor = as_factor(x, products)
        if gram:
            trace = variance.sum()
            mean_eigenvalue = trace / (n - 1)
            matrix = (factor @ factor.T).div_(n - 1).add_(mean_eigenvalue / n)
            matrix.diagonal().sub_(mean_eigenvalue)
            spread = variance - trace / d
            rank_excess = trace * ((d - n + 1) / (d * (n - 1)))
            energy = matrix.square().sum() - spread.square().sum() + rank_excess * trace
            v_slope = (rank_excess - spread).mul_(2)
        else:
            matrix = (factor.T @ factor).div_(n - 1)
            energy = off_diagonal_squares_(matrix).sum()
            v_slope = None
        ctx.save_for_backward(x, matrix, v_slope)
        ctx.gram, ctx.products = gram, products
        ctx.set_materialize_grads(False)
        return variance, energy.to(z.dtype)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, g_variance: Tensor | None, g_energy: Tensor | None) -> tuple[Tensor | None, None, None]:
        x, matrix, v_slope = ctx.saved_tensors
        n = len(x)
        weights = [] if g_variance is None else [g_variance]
        if v_slope is not None and g_energy is not None:
            weights.append(v_slope * g_energy)
        gradient = x * torch.mul(sum(weights), 2 / (n - 1)).to(x.dtype) if weights else torch.zeros_like(x)
        if g_energy is not None:
            factor = as_factor(x, ctx.products)
            weighted = matrix * (g_energy * (4 / (n - 1))).to(matrix.dtype)
            add_product_(gradient, *((weighted, factor) if ctx.gram else (factor, weighted)))
        return gradient, None, None
