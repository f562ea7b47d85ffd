"""The linear algebra that objectives and diagnostics share: pure functions of tensors.

Rows are samples, columns are features. Functions compute in the precision they are given; callers choose it. The choice
between d × d matrices and n × n Gram matrices is made here and nowhere else (`prefers_gram`).
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from barlow.types import Embedding

Scalar = Float[Tensor, ""]

Whitening = Literal["cholesky", "zca"]

NARROW = 64
"""Width up to which products of matrices stay in the precision of their factors, whatever is asked for.

A correlation near 0 is a sum of n numbers of order 1 that cancel: over 4096 rows float32 keeps three or four digits of
it. Among many entries these errors average out; among few they do not, and there float64 costs next to nothing.
"""

LOSSY_PIVOT = 1e-4
"""Share of a feature's variance, left by the features before it, below which whitening is done in two passes."""


class SingularCovarianceError(ValueError):
    """The covariance of a slice has no Cholesky factor: the embedding has collapsed, wholly or in some directions."""


def at_least_float32(z: Tensor) -> Tensor:
    """In float32; float64 stays."""
    return z if z.dtype == torch.float64 else z.float()


def center(z: Float[Tensor, "*slices n d"]) -> Float[Tensor, "*slices n d"]:
    """Subtracts from each feature its mean over the rows.

    The first row is subtracted before the mean is taken. It changes nothing in exact arithmetic, hence no gradient
    passes through it; in floating point it keeps the digits of features that barely vary around a large offset, and
    leaves a constant feature exactly 0.
    """
    shifted = z - z[..., :1, :].detach()
    return shifted - shifted.mean(dim=-2, keepdim=True)


class Standardized(NamedTuple):
    """A batch whose features have mean 0 and (population) variance 1 - shortfall."""

    x: Embedding
    shortfall: Float[Tensor, "d"]


def centered(z: Embedding) -> Standardized:
    """Gives each feature mean 0 and leaves its variance as it is: the shortfall of a variance above 1 is negative."""
    x = center(z)
    return Standardized(x, 1 - x.square().mean(dim=0))


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


def equal_lengths(x: Embedding) -> Embedding:
    """Scales each row to a root mean square of 1, a length of √d. A row of zeros stays one, without gradient."""
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    directed = length > 0
    return torch.where(directed, x * (x.shape[1] ** 0.5 / torch.where(directed, length, 1)), 0)


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
    n - 1, keeps the off-diagonal sum from vanishing beside the diagonal one that is subtracted from the whole (with
    variances that differ by orders of magnitude it may be n times smaller: then ask for float64).
    """
    return n <= d / 2 if crossed else n <= d


def without_diagonal(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The matrix with zeros on its diagonal."""
    return matrix.diagonal_scatter(torch.zeros_like(matrix.diagonal()))


def off_diagonal_energy(matrix: Float[Tensor, "d d"]) -> Scalar:
    """Σᵢ Σ_{j≠i} mᵢⱼ², not as the whole less the diagonal: that loses its digits where m is nearly diagonal."""
    return without_diagonal(matrix).square().sum()


def disagreement(a: Standardized, b: Standardized) -> Float[Tensor, "d"]:
    """1 - cᵢᵢ of two views' features, from the distance of the views.

    1 - mean xₐ x_b has no digits left where the views nearly agree; (mean (xₐ - x_b)² + shortfallₐ + shortfall_b) / 2
    is the same number and keeps them.
    """
    return ((a.x - b.x).square().mean(dim=0) + a.shortfall + b.shortfall) / 2


def cross_correlation_energies(
    views: Sequence[Standardized], *, gram: bool | None = None, products: torch.dtype | None = None
) -> list[tuple[Scalar, Scalar]]:
    """How far the cross-correlation (or -covariance) of every pair of centred views is from I, on the diagonal and off.

    Args:
        views: two or more centred batches; each view's Gram matrix is made once.
        gram: forces the n × n (True) or the d × d form (False); by default the cheaper one. Same value, same gradient.
        products: precision in which matrices are multiplied (narrow ones excepted, see `NARROW`), the one step that
            costs more than n × d; by default that of the views.

    Returns:
        For each pair (0, 1), (0, 2), ..., (1, 2), ...: Σᵢ (1 - cᵢᵢ)² and Σᵢ Σ_{j≠i} cᵢⱼ², in the views' precision.
    """
    n, d = views[0].x.shape
    if gram is None:
        gram = prefers_gram(n, d, crossed=True)
    factors = [_factor(view.x, products) for view in views]
    grams = [x @ x.T / n for x in factors] if gram else []
    energies = []
    for a, b in combinations(range(len(views)), 2):
        apart = disagreement(views[a], views[b])
        if gram:
            off_diagonal = (grams[a] * grams[b]).sum() - (1 - apart).square().sum()
        else:
            off_diagonal = off_diagonal_energy(cross_correlation(factors[a], factors[b])).to(apart.dtype)
        energies.append((apart.square().sum(), off_diagonal))
    return energies


def _factor(x: Embedding, products: torch.dtype | None) -> Embedding:
    return x if products is None or x.shape[1] <= NARROW else x.to(products)


def covariance_energies(
    z: Embedding, *, gram: bool | None = None, products: torch.dtype | None = None
) -> tuple[Float[Tensor, "d"], Scalar]:
    """Variances of the features, and the off-diagonal energy Σᵢ Σ_{j≠i} covᵢⱼ² of their covariance.

    Convention: unbiased, divisor n - 1.

    Args:
        z: a batch, centred or not.
        gram: forces the n × n (True) or the d × d form (False); by default the cheaper one. Same value, same gradient.
        products: precision in which matrices are multiplied (narrow ones excepted, see `NARROW`); by default that of z.
    """
    n, d = z.shape
    x = center(z)
    variance = x.square().sum(dim=0) / (n - 1)
    x = _factor(x, products)
    if gram is None:
        gram = prefers_gram(n, d, crossed=False)
    if not gram:
        return variance, off_diagonal_energy(x.T @ x / (n - 1)).to(z.dtype)
    # ‖G‖² - Σ vⱼ² cancels where G nears τP (decorrelated features, n near d; P the projection that centres). With the
    # means τ of G's n - 1 eigenvalues and v̄ of the d variances taken out of both sums, what is left over is exact:
    # tr² (1/(n-1) - 1/d). τ and v̄ are where both squares are stationary, so no gradient passes through them.
    trace = variance.sum()
    mean_eigenvalue, mean_variance = trace.detach() / (n - 1), trace.detach() / d
    spread = x @ x.T / (n - 1) + mean_eigenvalue / n
    spread = spread - torch.diag_embed(mean_eigenvalue.to(x.dtype).expand(n))
    rank_excess = (d - n + 1) / (d * (n - 1))
    return variance, spread.square().sum() - (variance - mean_variance).square().sum() + rank_excess * trace.square()


def whiten(
    z: Float[Tensor, "*slices k d"], shrinkage: float = 0.0, *, method: Whitening = "cholesky"
) -> Float[Tensor, "*slices k d"]:
    """Maps each slice of rows to mean 0 and covariance I.

    Σ = (1 - shrinkage) cov(z) + shrinkage I,
    cholesky: w = L⁻¹ (z - mean), L Lᵀ = Σ with L lower triangular;
    zca:      w = Σ^(-1/2) (z - mean), of all whitened batches the one nearest to the centred z.
    Gradients flow through mean and Σ.

    Source: W-MSE (arXiv 2007.06346) section 3; Siarohin et al., Whitening and Coloring batch transform (arXiv
        1806.00420). Two passes: Fukaya et al., CholeskyQR2 (ScalA 2014). zca: Higham, Functions of Matrices, chapter 8.
    Convention: divisor k - 1. cholesky is unchanged by shifts and by lower-triangular maps with a positive diagonal,
        but not by a permutation of the features. zca is unchanged by shifts and positive scales of the whole, and turns
        with the features: a permutation or rotation of them is one of w.

    The covariance has the square of the batch's condition number. Where a pivot shows that this loses digits, the batch
    is first multiplied by the inverse factor as a constant and then whitened; the result and its gradient are those of
    one pass, because whitening does not see a lower-triangular map. ZCA's rows are Cholesky's, turned by the orthogonal
    factor of Lᵀ: Lᵀ Σ^(-1/2). It needs no eigenvalue of Σ, nor a difference of two of them.

    Args:
        z: slices of k rows, each whitened apart.
        shrinkage: weight of the identity, in [0, 1].
        method: cholesky or zca.

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
    factor, pivots = _cholesky(sigma)
    # A pivot is the part of a feature's variance that the features before it do not explain. Below d × rounding (the
    # tolerance of numpy.linalg.matrix_rank) it is noise, and the whitened feature would be noise blown up.
    smallest = float((pivots / sigma.detach().diagonal(dim1=-2, dim2=-1)).amin())  # the call's one synchronisation
    if not smallest > d * torch.finfo(z.dtype).eps:  # nor if it is NaN
        raise SingularCovarianceError(_why_singular(z, k, shrinkage))
    last = factor
    if smallest < LOSSY_PIVOT:
        first = factor.detach()
        x = torch.linalg.solve_triangular(first, x.mT, upper=False).mT
        sigma = x.mT @ x / (k - 1)
        if shrinkage:
            identity = torch.eye(d, dtype=z.dtype, device=z.device).expand_as(first)
            identity = torch.linalg.solve_triangular(first, identity, upper=False)
            sigma = (1 - shrinkage) * sigma + shrinkage * identity @ identity.mT
        last, pivots = _cholesky(sigma)
        if not bool(((pivots > 0.5) & (pivots < 2)).all()):  # near 1, unless the first pass's were noise after all
            raise SingularCovarianceError(_why_singular(z, k, shrinkage))
        factor = first @ last
    white = torch.linalg.solve_triangular(last, x.mT, upper=False).mT
    return white @ orthogonal_factor(factor.mT) if method == "zca" else white


def _cholesky(
    sigma: Float[Tensor, "*slices d d"],
) -> tuple[Float[Tensor, "*slices d d"], Float[Tensor, "*slices d"]]:
    """Cholesky's factors and their squared diagonals, which are 0 for a matrix that has no factor."""
    factor, failed = torch.linalg.cholesky_ex(sigma)
    pivots = factor.detach().diagonal(dim1=-2, dim2=-1).square()
    return factor, torch.where((failed != 0)[..., None], 0, pivots)


def _why_singular(z: Tensor, k: int, shrinkage: float) -> str:
    if not bool(z.isfinite().all()):
        return (
            "the embeddings to be whitened hold NaN or infinity: look at what produced them (learning rate, precision)"
        )
    return (
        f"the covariance of a slice of {k} embeddings is singular (shrinkage {shrinkage:g}): they have collapsed in at "
        "least one direction. Use a larger shrinkage (1e-4 or more), a narrower projector or a lower learning rate"
    )


class _OrthogonalFactor(torch.autograd.Function):
    """A = P H with P orthogonal and H symmetric: from A = U S Vᵀ, P = U Vᵀ.

    A change dA moves P by U Ω Vᵀ, Ωᵢⱼ = (E - Eᵀ)ᵢⱼ / (sᵢ + sⱼ), E = Uᵀ dA V. Singular values stand in sums only: where
    they coincide, as whitening makes them, differentiating the decomposition itself would divide by 0.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        u, s, vh = torch.linalg.svd(matrix)
        ctx.save_for_backward(u, s, vh)
        return u @ vh

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        u, s, vh = ctx.saved_tensors
        turned = u.mT @ gradient @ vh.mT
        return u @ ((turned - turned.mT) / (s[..., :, None] + s[..., None, :])) @ vh


def orthogonal_factor(matrix: Float[Tensor, "*slices d d"]) -> Float[Tensor, "*slices d d"]:
    """The orthogonal matrix nearest to an invertible one: A (AᵀA)^(-1/2), the P of the polar decomposition A = P H.

    Source: Higham, Functions of Matrices (SIAM 2008), chapter 8.
    """
    result: Tensor = _OrthogonalFactor.apply(matrix)
    return result


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
