"""The linear algebra that objectives and diagnostics share: pure functions of tensors, with torch's own gradient.

Rows are samples, columns are features. Every function computes in the precision of its arguments; the caller chooses
it. Gradients that are written by hand are not here: each lies beside the objective that needs it, such as
`objectives/_cross_correlation.py` beside Barlow Twins.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from barlow.exits import DIVERGED, Diverged
from barlow.types import Embedding

Scalar = Float[Tensor, ""]

BLOCK = 2**19
"""How many numbers an intermediate result may have on a CPU. 2 MB of float32 fit into its caches."""

SHORT = 1024
"""How many float32 numbers may be added one after the other for a mean or a variance. Such sums keep six digits."""

SMALL = 2**15
"""Up to this many numbers, a batch is shifted by its first row without asking whether it has to be.

On so small a batch the extra pass takes no longer than finding out.
"""

FAR = 4.0
"""How many standard deviations a feature's mean may be from 0 before it has to be subtracted first.

Further away, subtracting it at the end (scale · z - scale · mean) would cost digits.
"""

LOSSY_PIVOT = 1e-4
"""Whitening takes a second pass where the features before one explain all but this share of its variance."""


class SingularCovarianceError(ValueError):
    """The covariance of a slice has no Cholesky factor: the embedding has collapsed, wholly or in some directions."""

    exit_code = DIVERGED


class NonFiniteEmbeddings(SingularCovarianceError, Diverged):
    """Embeddings that are no numbers any more have no covariance."""


def at_least_float32(z: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if that is what it has."""
    return z if z.dtype == torch.float64 else z.float()


def center(z: Float[Tensor, "*slices n d"]) -> Float[Tensor, "*slices n d"]:
    """Subtracts from each feature its mean over the rows.

    The first row is subtracted before the mean is taken. In exact arithmetic this changes nothing, so no gradient
    passes through it. In floating point it does two things: a feature that barely varies around a large offset keeps
    its digits, and a constant feature becomes exactly 0.
    """
    shifted = z - z.detach().narrow(-2, 0, 1)
    return shifted.sub_(shifted.sum(dim=-2, keepdim=True), alpha=1 / z.shape[-2])


def sum_over_rows(function: Callable[..., Tensor], *batches: Embedding) -> Float[Tensor, "d"]:
    """Sums an elementwise function of some batches over their rows.

    Large batches on a CPU are summed block by block, so that no n × d array is made only to be added up: a process pays
    more for memory that it has not touched before than for the arithmetic.
    """
    n, d = batches[0].shape
    rows = max(BLOCK // d, 1)
    if n <= rows or not batches[0].is_cpu:
        return function(*batches).sum(dim=0)
    blocks = zip(*(batch.split(rows) for batch in batches), strict=True)
    return functools.reduce(torch.add, (function(*block).sum(dim=0) for block in blocks))


def _squared_difference(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square()


@dataclass(frozen=True)
class Standardized:
    """A batch whose features have mean 0 and (population) variance 1 - shortfall. It unpacks into x and shortfall.

    Args:
        x: the batch.
        source: the batch that x was made from: x = scale (source - mean).
        scale: 1/√(var + eps) of the source's features, or None where they were only centred.
        eps: what was added to the variances.
    """

    x: Embedding
    source: Embedding
    scale: Float[Tensor, "d"] | None
    eps: float = 0.0

    @property
    def shortfall(self) -> Float[Tensor, "d"]:
        """By how much the variances fall short of 1. It may be negative for features that were only centred."""
        return 1 - self.x.square().mean(dim=0) if self.scale is None else self.scale.square() * self.eps

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.x, self.shortfall))


def centered(z: Embedding) -> Standardized:
    """Gives each feature mean 0 and leaves its variance as it is."""
    return Standardized(center(z), z, None)


def standardize(z: Embedding, eps: float = 0.0) -> Standardized:
    """Gives each feature mean 0 and, up to eps, variance 1 over the batch.

    x = (z - mean) / √(var + eps), shortfall = 1 - mean x² = eps / (var + eps)

    Convention: population variance (divisor n), and eps inside the root, as in batch norm without affine parameters. A
        feature whose variance overflows (in float32 from about 1e19 on) becomes NaN: its scale would be 0, and a
        feature of zeros looks like a constant one.

    Raises:
        ValueError: a feature is constant and eps is 0.
    """
    n = z.shape[0]
    groups = 1 << ((n - 1) // SHORT).bit_length()
    if eps and z.is_cpu and not n % groups and not (torch.is_grad_enabled() and z.requires_grad):
        # torch's batch norm needs a third of the passes. It has no gradient through the scale.
        x, scale = _batch_norm(z, eps, groups)
        if not float(scale.min()) > 0:  # written so that NaN is met too
            scale = _nan_where_lost(scale)
            x = x * scale.sign()
        return Standardized(x, z, scale, eps)
    x = center(z)
    variance = sum_over_rows(torch.square, x) / n
    if eps == 0 and bool((variance == 0).any()):
        raise ValueError(
            f"{int((variance == 0).sum())} of {len(variance)} features are constant over the batch and eps is 0, so "
            "they cannot be standardised: use eps > 0 (1e-5 in batch normalisation)"
        )
    scale = _nan_where_lost((variance + eps).rsqrt())
    return Standardized(x * scale if x.requires_grad else x.mul_(scale), z, scale, eps)


def _nan_where_lost(scale: Float[Tensor, "d"]) -> Float[Tensor, "d"]:
    """The scales, with NaN for 0: that is 1/√ of a variance that has overflowed."""
    return torch.where(scale > 0, scale, torch.nan)


def _batch_norm(z: Embedding, eps: float, groups: int) -> tuple[Embedding, Float[Tensor, "d"]]:
    """x and scale of `standardize`. As in `center` the first row is subtracted, from large batches only if it matters.

    It matters where the mean of a feature is `FAR` from 0.
    """
    if z.numel() > SMALL:
        x, mean, scale = _batch_norm_in_groups(z, eps, groups)
        # This asks for mean² > FAR² variance, with eps added on both sides and then both times scale². Where eps
        # outweighs the variance, any mean that is not tiny beside √eps counts as far.
        far = torch.addcmul((mean * scale).square_(), scale, scale, value=FAR**2 * eps)
        if float(far.max()) <= FAR**2 * (1 + 1e-6):
            return x, scale
    x, _, scale = _batch_norm_in_groups(z - z[:1], eps, groups)
    return x, scale


def _batch_norm_in_groups(
    z: Embedding, eps: float, groups: int
) -> tuple[Embedding, Float[Tensor, "d"], Float[Tensor, "d"]]:
    """x, mean and scale by torch's batch norm, with the rows in groups so that no sum is longer than `SHORT`.

    torch adds the numbers of a feature one after the other. So each group of rows is given to it as d features more,
    and the means and variances of the groups are then put together. For example, 2048 × 80 numbers become 1024 × 160.
    """
    if groups == 1:
        return torch.native_batch_norm(z, None, None, None, None, True, 0.0, eps)
    n, d = z.shape
    blocks = torch.batch_norm_update_stats(z.reshape(n // groups, groups * d), None, None, 0.0)
    means, variances = (block.view(groups, d) for block in blocks)
    mean = means.mean(dim=0)
    variance = (means - mean).square_().add_(variances).mean(dim=0)
    x, _, _ = torch.native_batch_norm(z, None, None, mean, variance, False, 0.0, eps)
    return x, mean, variance.add_(eps).rsqrt_()


def equal_lengths(x: Embedding) -> Embedding:
    """Scales each row to a root mean square of 1, a length of √d. A row of zeros stays one, without gradient."""
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    directed = length != 0  # so that a row with a NaN stays one that is seen
    return torch.where(directed, x * (x.shape[1] ** 0.5 / torch.where(directed, length, 1)), 0)


def cross_correlation(za: Embedding, zb: Embedding) -> Float[Tensor, "d d"]:
    """Cross-correlation of two standardised batches: zaᵀ zb / n."""
    return (za.T @ zb).div_(za.shape[0])


def covariance(z: Float[Tensor, "*slices n d"]) -> Float[Tensor, "*slices d d"]:
    """Covariance of the features over the rows. Convention: unbiased, divisor n - 1."""
    x = center(z)
    return x.mT @ x / (z.shape[-2] - 1)


def prefers_gram(n: int, d: int, *, crossed: bool) -> bool:
    """Whether the sum of squares of a d × d matrix is cheaper by way of n × n Gram matrices.

    ‖zaᵀ zb‖²_F = ⟨za zaᵀ, zb zbᵀ⟩_F. This is the only place where the choice is made.

    Forward and backward together, a cross-correlation (`crossed`) costs 6 n d² operations directly. By its two Gram
    matrices it costs 8 n² d, and more passes over n × d. A covariance costs 4 n d² or 4 n² d.

    The Gram form subtracts the diagonal's sum from the sum of all. The rank is at most n - 1 there, so the off-diagonal
    sum cannot vanish beside the diagonal one, and the difference keeps its digits. If variances differ by orders of
    magnitude, it may still be n times smaller: then give float64.
    """
    return n <= d / 2 if crossed else n <= d


def without_diagonal(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The matrix with zeros on its diagonal."""
    return matrix.diagonal_scatter(torch.zeros_like(matrix.diagonal()))


def disagreement(a: Standardized, b: Standardized, difference: Embedding | None = None) -> Float[Tensor, "d"]:
    """1 - cᵢᵢ for each feature of two views, computed from the distance of the views so that no digits cancel.

    Where the views nearly agree, 1 - mean xₐ x_b has no digits left. The same number is
    (mean (xₐ - x_b)² + shortfallₐ + shortfall_b) / 2, which keeps them.

    Args:
        a: one view.
        b: the other view.
        difference: xₐ - x_b, if the caller has it anyway.
    """
    n = a.x.shape[0]
    squares = (
        sum_over_rows(_squared_difference, a.x, b.x) if difference is None else sum_over_rows(torch.square, difference)
    )
    for view in (a, b):  # n times the shortfalls
        if view.scale is None:
            squares = squares + n * view.shortfall
        else:
            squares = torch.addcmul(squares, view.scale, view.scale, value=n * view.eps)
    return squares * (0.5 / n)


def cholesky_whiten(
    z: Float[Tensor, "*slices k d"], shrinkage: float = 0.0
) -> tuple[Float[Tensor, "*slices k d"], Float[Tensor, "*slices d d"]]:
    """Maps each slice of rows to mean 0 and covariance I by the Cholesky factor of its covariance.

    Σ = (1 - shrinkage) cov(z) + shrinkage I = L Lᵀ with L lower triangular, w = L⁻¹ (z - mean). Returns w and L.

    Source: W-MSE (arXiv 2007.06346) section 3; Siarohin et al., Whitening and Coloring batch transform (arXiv
        1806.00420). Two passes: Fukaya et al., CholeskyQR2 (ScalA 2014).
    Convention: divisor k - 1; gradients flow through mean and Σ. Unchanged by shifts and by lower-triangular maps with
        a positive diagonal, but not by a permutation of the features.

    The condition number of the covariance is the square of the batch's. Where a pivot shows that this costs digits, the
    batch is multiplied by the inverse factor as a constant, and the result is whitened once more. Whitening does not
    see a lower-triangular map, so the result and its gradient are those of one pass.

    Args:
        z: slices of k rows, each whitened on its own.
        shrinkage: weight of the identity, in [0, 1].

    Raises:
        SingularCovarianceError: a slice's covariance is singular (always so for k ≤ d), and shrinkage is too small for
            it.
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
    # tolerance of numpy.linalg.matrix_rank) it is noise, and whitening would blow this noise up to a feature.
    smallest = float((pivots / sigma.detach().diagonal(dim1=-2, dim2=-1)).amin())  # the call's one synchronisation
    if not smallest > d * torch.finfo(z.dtype).eps:  # written so that NaN is refused too
        raise _singular(z, k, shrinkage)
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
            raise _singular(z, k, shrinkage)
        factor = first @ last
    return torch.linalg.solve_triangular(last, x.mT, upper=False).mT, factor


def _cholesky(
    sigma: Float[Tensor, "*slices d d"],
) -> tuple[Float[Tensor, "*slices d d"], Float[Tensor, "*slices d"]]:
    """Cholesky's factors and their squared diagonals, which are 0 for a matrix that has no factor."""
    factor, failed = torch.linalg.cholesky_ex(sigma)
    pivots = factor.detach().diagonal(dim1=-2, dim2=-1).square()
    return factor, torch.where((failed != 0)[..., None], 0, pivots)


def _singular(z: Tensor, k: int, shrinkage: float) -> SingularCovarianceError:
    if not bool(z.isfinite().all()):
        return NonFiniteEmbeddings(
            "the embeddings to be whitened hold NaN or infinity: look at what produced them (learning rate, precision)"
        )
    if k <= z.shape[-1]:
        return SingularCovarianceError(
            f"a slice of {k} embeddings of {z.shape[-1]} features has a covariance that a shrinkage of {shrinkage:g} "
            "does not make regular: use a larger batch or a narrower projector"
        )
    return SingularCovarianceError(
        f"the covariance of a slice of {k} embeddings is singular (shrinkage {shrinkage:g}): they have collapsed in at "
        "least one direction. Use a narrower projector, a lower learning rate, another objective, or some shrinkage"
    )


def effective_rank(x: Float[Tensor, "n d"]) -> Scalar:
    """How many directions the rows of a matrix spread over: exp of the entropy of its normalised singular values.

    pₖ = σₖ / Σ σ, rank = exp(-Σ pₖ ln pₖ). For example, it is r for a matrix with r equal singular values, and 0 for
    the zero matrix.

    Source: Roy and Vetterli, The effective rank (EUSIPCO 2007), definition 1; RankMe (arXiv 2210.02885), equation 2.
    Deviation: RankMe adds 1e-7 to each pₖ. Here 0 ln 0 = 0, so the value is exact for low rank.

    The singular values are the roots of the eigenvalues of a Gram matrix, the smaller of the two. Give float64, or
    singular values below √eps of the largest are lost.
    """
    gram = x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    total = singular.sum()
    p = singular / torch.where(total > 0, total, torch.ones_like(total))
    return torch.special.entr(p).sum().exp() * (total > 0)


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """The norm of each tensor, without waiting for the device; a zero where there is none.

    Convention: torch's total norm is the norm of these, to the bit.
    """
    return torch.stack(torch._foreach_norm(list(tensors))) if tensors else torch.zeros(1)


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of those that hold a number that is none: infinite, or not a number."""
    return [name for name, value in tensors.items() if value.is_floating_point() and not bool(value.isfinite().all())]
