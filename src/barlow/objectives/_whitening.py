"""W-MSE's whitening: by Cholesky's factor, or by ZCA with the gradient of its orthogonal factor written by hand.

Cholesky whitening has torch's own gradient (`barlow.linalg.cholesky_whiten`). ZCA turns its rows by an orthogonal
matrix. `plain_orthogonal_factor` says which one, with torch's gradient, and the tests compare `orthogonal_factor` with
it. Written by hand, the gradient is also right where singular values are equal, as whitening makes them.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from barlow.linalg import cholesky_whiten
from barlow.objectives._gradients import first_derivative_only

Whitening = Literal["cholesky", "zca"]


def whiten(
    z: Float[Tensor, "*slices k d"], shrinkage: float = 0.0, *, method: Whitening = "cholesky"
) -> Float[Tensor, "*slices k d"]:
    """Maps each slice of rows to mean 0 and covariance I.

    Σ = (1 - shrinkage) cov(z) + shrinkage I,
    cholesky: w = L⁻¹ (z - mean), L Lᵀ = Σ with L lower triangular;
    zca:      w = Σ^(-1/2) (z - mean), of all whitened batches the one nearest to the centred z.

    Source: W-MSE (arXiv 2007.06346) section 3; Siarohin et al., Whitening and Coloring batch transform (arXiv
        1806.00420). zca: Higham, Functions of Matrices, chapter 8.
    Convention: divisor k - 1. Gradients flow through mean and Σ. cholesky is unchanged by shifts and by
        lower-triangular maps with a positive diagonal, but not by a permutation of the features. zca is unchanged by
        shifts and by a positive scale of the whole batch. A permutation or rotation of the features does the same to w.

    ZCA's rows are Cholesky's, turned by Lᵀ Σ^(-1/2), which is the orthogonal factor of Lᵀ. This way no eigenvalue of Σ
    is needed, and no difference of two of them, by which a gradient would be divided.

    Args:
        z: slices of k rows, each whitened on its own.
        shrinkage: weight of the identity, in [0, 1].
        method: cholesky or zca.

    Raises:
        SingularCovarianceError: a slice's covariance is singular (always so for k ≤ d), and shrinkage is too small for
            it.
    """
    white, factor = cholesky_whiten(z, shrinkage)
    return white @ orthogonal_factor(factor.mT) if method == "zca" else white


def plain_orthogonal_factor(matrix: Float[Tensor, "*slices d d"]) -> Float[Tensor, "*slices d d"]:
    """A (AᵀA)^(-1/2) by the eigenvectors of AᵀA, with torch's gradient: NaN where two eigenvalues are equal."""
    squares, vectors = torch.linalg.eigh(matrix.mT @ matrix)
    return matrix @ (vectors * squares.rsqrt()[..., None, :]) @ vectors.mT


def orthogonal_factor(matrix: Float[Tensor, "*slices d d"]) -> Float[Tensor, "*slices d d"]:
    """The orthogonal matrix nearest to an invertible one: A (AᵀA)^(-1/2), the P of the polar decomposition A = P H.

    Source: Higham, Functions of Matrices (SIAM 2008), chapter 8.
    """
    result: Tensor = _OrthogonalFactor.apply(matrix)
    return result


class _OrthogonalFactor(torch.autograd.Function):
    """A = P H with P orthogonal and H symmetric: from A = U S Vᵀ, P = U Vᵀ.

    A change dA moves P by U Ω Vᵀ, Ωᵢⱼ = (E - Eᵀ)ᵢⱼ / (sᵢ + sⱼ), E = Uᵀ dA V. It divides by sums of singular values
    only. The gradient of the decomposition itself divides by their differences, which are 0 where two are equal.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        u, s, vh = torch.linalg.svd(matrix)
        ctx.save_for_backward(u, s, vh)
        return u @ vh

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        u, s, vh = ctx.saved_tensors
        turned = u.mT @ gradient @ vh.mT
        return u @ ((turned - turned.mT) / (s[..., :, None] + s[..., None, :])) @ vh
