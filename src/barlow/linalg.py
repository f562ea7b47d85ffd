"""The linear algebra that objectives and diagnostics share: pure functions of tensors.

Rows are samples, columns are features. Functions compute in the precision they are given; callers choose it. The choice
between d × d matrices and n × n Gram matrices is made here and nowhere else (`prefers_gram`).
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from barlow.types import Embedding

Scalar = Float[Tensor, ""]


class SingularCovarianceError(ValueError):
    """The covariance of a slice has no Cholesky factor: the embedding has collapsed, wholly or in some directions."""


def center(z: Float[Tensor, "*slices n d"]) -> Float[Tensor, "*slices n d"]:
    """Subtracts from each feature its mean over the rows.

    The first row is subtracted before the mean is taken. It changes nothing in exact arithmetic, hence no gradient
    passes through it; in floating point it keeps the digits of features that barely vary around a large offset, and
    leaves a constant feature exactly 0.
    """
    shifted = z - z[..., :1, :].detach()
    return shifted - shifted.mean(dim=-2, keepdim=True)


class Standardized(NamedTuple):
    """A batch whose features have mean 0 and variance 1 - shortfall."""

    x: Embedding
    shortfall: Float[Tensor, "d"]


def standardize(z: Embedding, eps: float = 0.0) -> Standardized:
    """Gives each feature mean 0 and, up to eps, variance 1 over the batch.

    x = (z - mean) / √(var + eps), shortfall = 1 - mean x² = eps / (var + eps)

    Convention: population variance (divisor n), eps inside the root, as batch normalisation without affine parameters.

    Raises:
        ValueError: a feature is constant and eps is 0.
    """
    x = center(z)
    variance = x.square().mean(dim=0)
    if eps == 0 and bool((variance == 0).any()):
        raise ValueError(
            f"{int((variance == 0).sum())} of {len(variance)} features are constant over the batch and eps is 0, so "
            "they cannot be standardised: use eps > 0 (1e-5 in batch normalisation)"
        )
    return Standardized(x / (variance + eps).sqrt(), eps / (variance + eps))


def cross_correlation(za: Embedding, zb: Embedding) -> Float[Tensor, "d d"]:
    """Cross-correlation of two standardised batches: zaᵀ zb / n."""
    return za.T @ zb / len(za)


def covariance(z: Float[Tensor, "*slices n d"]) -> Float[Tensor, "*slices d d"]:
    """Covariance of the features over the rows. Convention: unbiased, divisor n - 1."""
    x = center(z)
    return x.mT @ x / (z.shape[-2] - 1)


def prefers_gram(n: int, d: int, *, crossed: bool) -> bool:
    """Whether the sum of squares of a d × d matrix is cheaper by way of n × n Gram matrices.

    ‖zaᵀ zb‖²_F = ⟨za zaᵀ, zb zbᵀ⟩_F. Forward and backward, a cross-correlation (`crossed`) costs 6 n d² multiplications
    directly and 12 n² d by its two Gram matrices; a covariance 6 n d² and 6 n² d. On the Gram side the rank, at most
    n - 1, keeps the off-diagonal sum from vanishing beside the diagonal one that is subtracted from the whole.
    """
    return n <= d / 2 if crossed else n <= d


def off_diagonal_energy(matrix: Float[Tensor, "d d"]) -> Scalar:
    """Σᵢ Σ_{j≠i} mᵢⱼ², not as the whole less the diagonal: that loses its digits where m is nearly diagonal."""
    return matrix.diagonal_scatter(torch.zeros_like(matrix.diagonal())).square().sum()


def cross_correlation_energies(
    views: Sequence[Standardized], *, gram: bool | None = None
) -> list[tuple[Scalar, Scalar]]:
    """How far the cross-correlation of every pair of standardised views is from I, on the diagonal and off it.

    Args:
        views: two or more standardised batches; each view's Gram matrix is made once.
        gram: forces the n × n (True) or the d × d form (False); by default the cheaper one. Same value, same gradient.

    Returns:
        For each pair (0, 1), (0, 2), ..., (1, 2), ...: Σᵢ (1 - cᵢᵢ)² and Σᵢ Σ_{j≠i} cᵢⱼ².
    """
    n, d = views[0].x.shape
    if gram is None:
        gram = prefers_gram(n, d, crossed=True)
    grams = [view.x @ view.x.T / n for view in views] if gram else []
    energies = []
    for a, b in combinations(range(len(views)), 2):
        (xa, shortfall_a), (xb, shortfall_b) = views[a], views[b]
        # 1 - cᵢᵢ from the distance of the views, because 1 - mean xₐ x_b has no digits left where they nearly agree.
        disagreement = ((xa - xb).square().mean(dim=0) + shortfall_a + shortfall_b) / 2
        if gram:
            off_diagonal = (grams[a] * grams[b]).sum() - (1 - disagreement).square().sum()
        else:
            off_diagonal = off_diagonal_energy(cross_correlation(xa, xb))
        energies.append((disagreement.square().sum(), off_diagonal))
    return energies


def covariance_energies(z: Embedding, *, gram: bool | None = None) -> tuple[Float[Tensor, "d"], Scalar]:
    """Variances of the features, and the off-diagonal energy Σᵢ Σ_{j≠i} covᵢⱼ² of their covariance.

    Convention: unbiased, divisor n - 1.

    Args:
        z: a batch, centred or not.
        gram: forces the n × n (True) or the d × d form (False); by default the cheaper one. Same value, same gradient.
    """
    n, d = z.shape
    x = center(z)
    variance = x.square().sum(dim=0) / (n - 1)
    if gram is None:
        gram = prefers_gram(n, d, crossed=False)
    if not gram:
        return variance, off_diagonal_energy(x.T @ x / (n - 1))
    # ‖G‖² - Σ vⱼ² cancels where G nears τP (decorrelated features, n near d; P the projection that centres). With the
    # means τ of G's n - 1 eigenvalues and v̄ of the d variances taken out of both sums, what is left over is exact:
    # tr² (1/(n-1) - 1/d). τ and v̄ are where both squares are stationary, so no gradient passes through them.
    trace = variance.sum()
    mean_eigenvalue, mean_variance = trace.detach() / (n - 1), trace.detach() / d
    spread = x @ x.T / (n - 1) + mean_eigenvalue / n
    spread = spread - torch.diag_embed(mean_eigenvalue.expand(n))
    rank_excess = (d - n + 1) / (d * (n - 1))
    return variance, spread.square().sum() - (variance - mean_variance).square().sum() + rank_excess * trace.square()


def whiten(z: Float[Tensor, "*slices k d"], shrinkage: float = 0.0) -> Float[Tensor, "*slices k d"]:
    """Maps each slice of rows to mean 0 and covariance I by the inverse of its covariance's Cholesky factor.

    Σ = cov(z), (1 - shrinkage) Σ + shrinkage I = L Lᵀ, w = L⁻¹ (z - mean); gradients flow through mean, Σ and L.

    Source: W-MSE (arXiv 2007.06346) section 3; Siarohin et al., Whitening and Coloring batch transform (arXiv
        1806.00420).
    Convention: divisor k - 1; unchanged by shifts and by lower-triangular maps with a positive diagonal, but not by a
        permutation of the features.

    Args:
        z: slices of k rows, each whitened apart.
        shrinkage: weight of the identity, in [0, 1].

    Raises:
        SingularCovarianceError: a slice's covariance is singular, k ≤ d included, and shrinkage is too small for it.
    """
    k, d = z.shape[-2:]
    if k <= d and shrinkage == 0:
        raise SingularCovarianceError(
            f"a slice of {k} rows cannot whiten {d} features: give it more than {d} rows (2 x {d} = {2 * d} is the "
            "usual size), or fewer features, or shrinkage > 0"
        )
    x = center(z)
    sigma = x.mT @ x / (k - 1)
    if shrinkage:
        sigma = (1 - shrinkage) * sigma + shrinkage * torch.eye(d, dtype=z.dtype, device=z.device)
    factor, failed = torch.linalg.cholesky_ex(sigma)
    # A pivot is the part of a feature's variance that the features before it do not explain. Below d × rounding (the
    # tolerance of numpy.linalg.matrix_rank) it is noise, and the whitened feature would be noise blown up.
    pivots = factor.detach().diagonal(dim1=-2, dim2=-1).square()
    noise = d * torch.finfo(z.dtype).eps * sigma.detach().diagonal(dim1=-2, dim2=-1)
    if bool(((pivots <= noise).any(-1) | (failed != 0)).any()):  # one synchronisation a call, whatever the slices
        raise SingularCovarianceError(_why_singular(z, k, shrinkage))
    return torch.linalg.solve_triangular(factor, x.mT, upper=False).mT


def _why_singular(z: Tensor, k: int, shrinkage: float) -> str:
    if not bool(z.isfinite().all()):
        return (
            "the embeddings to be whitened hold NaN or infinity: look at what produced them (learning rate, precision)"
        )
    return (
        f"the covariance of a slice of {k} embeddings is singular (shrinkage {shrinkage:g}): they have collapsed in at "
        "least one direction. Use a larger shrinkage (1e-4 or more), a narrower projector or a lower learning rate"
    )


def effective_rank(x: Float[Tensor, "n d"]) -> Scalar:
    """How many directions the rows of a matrix spread over: exp of the entropy of its normalised singular values.

    pₖ = σₖ / Σ σ, rank = exp(-Σ pₖ ln pₖ): r for a matrix with r equal singular values, 0 for the zero matrix.

    Source: Roy and Vetterli, The effective rank (EUSIPCO 2007), definition 1; RankMe (arXiv 2210.02885), equation 2.
    Deviation: RankMe adds 1e-7 to each pₖ; here 0 ln 0 = 0, so that the value is exact for low rank.

    The singular values are had from the smaller of the two Gram matrices, whose eigenvalues are their squares: give
    float64, or singular values below √eps of the largest drown.
    """
    gram = x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    total = singular.sum()
    p = singular / torch.where(total > 0, total, torch.ones_like(total))
    return torch.special.entr(p).sum().exp() * (total > 0)
