"""The linear algebra that objectives and diagnostics share: pure functions of tensors.

Rows are samples, columns are features. Functions compute in the precision they are given; callers choose it. The choice
between d × d matrices and n × n Gram matrices is made here and nowhere else (`prefers_gram`).
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from barlow.types import Embedding

Scalar = Float[Tensor, ""]

Whitening = Literal["cholesky", "zca"]

NARROW = 64
"""Width up to which products of matrices stay in the precision of their factors, whatever is asked for.

A correlation near 0 is a sum of n numbers of order 1 that cancel: over 4096 rows float32 keeps three or four digits of
it. Among many entries these errors average out; among few they do not, and there float64 costs next to nothing.
"""

BLOCK = 2**19
"""Numbers that an intermediate result may have on a CPU: 2 MB in float32, which its caches hold."""

SHORT = 1024
"""Numbers that may be summed one after the other in float32 for a mean or a variance: these keep six digits."""

SMALL = 2**15
"""Numbers in a batch up to which a pass over it costs no more than a question about it."""

FAR = 4.0
"""Distance of a feature's mean from 0, in standard deviations, beyond which it costs digits to take it off last."""

LOSSY_PIVOT = 1e-4
"""Share of a feature's variance, left by the features before it, below which whitening is done in two passes."""


class SingularCovarianceError(ValueError):
    """The covariance of a slice has no Cholesky factor: the embedding has collapsed, wholly or in some directions."""


def at_least_float32(z: Tensor) -> Tensor:
    """In float32; float64 stays."""
    return z if z.dtype == torch.float64 else z.float()


def _first_derivative_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """For gradients written by hand: refuses the graph of them that a second derivative would need.

    torch's once_differentiable lets it pass, and takes them for constants, where the gradient that comes in is one.
    """

    @functools.wraps(backward)
    def checked(ctx: Any, *gradients: Tensor | None) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("this gradient has no derivative of its own: call backward without create_graph=True")
        return backward(ctx, *gradients)

    return checked


def center(z: Float[Tensor, "*slices n d"]) -> Float[Tensor, "*slices n d"]:
    """Subtracts from each feature its mean over the rows.

    The first row is subtracted before the mean is taken. It changes nothing in exact arithmetic, hence no gradient
    passes through it; in floating point it keeps the digits of features that barely vary around a large offset, and
    leaves a constant feature exactly 0.
    """
    shifted = z - z.detach().narrow(-2, 0, 1)
    return shifted.sub_(shifted.sum(dim=-2, keepdim=True), alpha=1 / z.shape[-2])


def _sums(function: Callable[..., Tensor], *batches: Embedding) -> Float[Tensor, "d"]:
    """Sums over the rows of an elementwise function, of large batches on a CPU block by block.

    Memory that a process has not touched before costs more than the arithmetic: no n × d array is made to be summed.
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
    """A batch whose features have mean 0 and (population) variance 1 - shortfall; unpacks into x and shortfall.

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
        """What the variances lack to 1; of features that were only centred it may be negative."""
        return 1 - self.x.square().mean(dim=0) if self.scale is None else self.scale.square() * self.eps

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.x, self.shortfall))


def centered(z: Embedding) -> Standardized:
    """Gives each feature mean 0 and leaves its variance as it is."""
    return Standardized(center(z), z, None)


def standardize(z: Embedding, eps: float = 0.0) -> Standardized:
    """Gives each feature mean 0 and, up to eps, variance 1 over the batch.

    x = (z - mean) / √(var + eps), shortfall = 1 - mean x² = eps / (var + eps)

    Convention: population variance (divisor n), eps inside the root, as batch normalisation without affine parameters.

    Raises:
        ValueError: a feature is constant and eps is 0.
    """
    n = z.shape[0]
    groups = 1 << ((n - 1) // SHORT).bit_length()
    if eps and z.is_cpu and not n % groups and not (torch.is_grad_enabled() and z.requires_grad):
        # By torch's batch normalisation: a third of the passes, but no gradient of the scale.
        x, scale = _batch_norm(z, eps, groups)
        return Standardized(x, z, scale, eps)
    x = center(z)
    variance = _sums(torch.square, x) / n
    if eps == 0 and bool((variance == 0).any()):
        raise ValueError(
            f"{int((variance == 0).sum())} of {len(variance)} features are constant over the batch and eps is 0, so "
            "they cannot be standardised: use eps > 0 (1e-5 in batch normalisation)"
        )
    scale = (variance + eps).rsqrt()
    return Standardized(x * scale if x.requires_grad else x.mul_(scale), z, scale, eps)


def _batch_norm(z: Embedding, eps: float, groups: int) -> tuple[Embedding, Float[Tensor, "d"]]:
    """x and scale of `standardize`; as in `center` the first row is subtracted, of large batches where it counts."""
    if z.numel() > SMALL:
        x, mean, scale = _batch_norm_in_groups(z, eps, groups)
        # mean² > FAR² variance, times scale²; where eps outweighs the variance, any mean that shows beside them.
        far = torch.addcmul((mean * scale).square_(), scale, scale, value=FAR**2 * eps)
        if float(far.max()) <= FAR**2 * (1 + 1e-6):
            return x, scale
    x, _, scale = _batch_norm_in_groups(z - z[:1], eps, groups)
    return x, scale


def _batch_norm_in_groups(
    z: Embedding, eps: float, groups: int
) -> tuple[Embedding, Float[Tensor, "d"], Float[Tensor, "d"]]:
    """x, mean and scale, as exact as sums of one number after the other are and x = scale z - scale mean is.

    The rows are taken in groups, as so many features more; the groups' means and variances are then put together.
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
    directed = length > 0
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

    ‖zaᵀ zb‖²_F = ⟨za zaᵀ, zb zbᵀ⟩_F. Forward and backward, a cross-correlation (`crossed`) costs 6 n d² operations
    directly and 8 n² d by its two Gram matrices, with more passes over n × d; a covariance 4 n d² and 4 n² d. On the
    Gram side the rank, at most n - 1, keeps the off-diagonal sum from vanishing beside the diagonal one that is
    subtracted from the whole (with variances that differ by orders of magnitude it may be n times smaller: then ask for
    float64).
    """
    return n <= d / 2 if crossed else n <= d


def without_diagonal(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The matrix with zeros on its diagonal."""
    return matrix.diagonal_scatter(torch.zeros_like(matrix.diagonal()))


def disagreement(a: Standardized, b: Standardized, difference: Embedding | None = None) -> Float[Tensor, "d"]:
    """1 - cᵢᵢ of two views' features, from the distance of the views: from their `difference`, if it is there anyway.

    1 - mean xₐ x_b has no digits left where the views nearly agree; (mean (xₐ - x_b)² + shortfallₐ + shortfall_b) / 2
    is the same number and keeps them.
    """
    n = a.x.shape[0]
    squares = _sums(_squared_difference, a.x, b.x) if difference is None else _sums(torch.square, difference)
    for view in (a, b):  # n times the shortfalls
        if view.scale is None:
            squares = squares + n * view.shortfall
        else:
            squares = torch.addcmul(squares, view.scale, view.scale, value=n * view.eps)
    return squares * (0.5 / n)


def cross_correlation_energies(
    views: Sequence[Standardized],
    *,
    weights: tuple[float, float] = (1.0, 1.0),
    gram: bool | None = None,
    products: torch.dtype | None = None,
) -> list[tuple[Scalar, Scalar]]:
    """How far the cross-correlation (or -covariance) of every pair of centred views is from I, on the diagonal and off.

    Args:
        views: two or more centred batches; each view's Gram matrix is made once.
        weights: factors of the two sums.
        gram: forces the n × n (True) or the d × d form (False); by default the cheaper one. Same value, same gradient.
        products: precision in which matrices are multiplied (narrow ones excepted, see `NARROW`), the one step that
            costs more than n × d; by default that of the views.

    Returns:
        For each pair (0, 1), (0, 2), ..., (1, 2), ...: Σᵢ (1 - cᵢᵢ)² and Σᵢ Σ_{j≠i} cᵢⱼ², weighted, in the views'
        precision.
    """
    if gram is None:
        gram = prefers_gram(*views[0].x.shape, crossed=True)
    grams: list[Tensor | None] = [None] * len(views)
    if gram:
        with torch.no_grad():
            factors = [_factor(view.x, products) for view in views]
            grams = [(factor @ factor.T).div_(len(factor)) for factor in factors]
    sides = [(view.source, view, matrix) for view, matrix in zip(views, grams, strict=True)]
    return [_CrossCorrelationEnergies.apply(weights, products, *a, *b) for a, b in combinations(sides, 2)]


class _CrossCorrelationEnergies(torch.autograd.Function):
    """On = Σ uᵢ² with u = `disagreement`, and Off = ‖C‖² with C = XₐᵀX_b/n without its diagonal.

    With respect to xₐ, of which c = 1 - u = mean xₐ x_b is a function, On has the gradient -(2/n) u x_b, written as
    (2/n) u (D - xₐ) with D = xₐ - x_b, and Off has (2/n) X_b Cᵀ; as ⟨Gₐ, G_b⟩ - Σ (1 - u)² with G = X Xᵀ/n, Off has
    (2/n) (G_b Xₐ - (1 - u) X_b). All have mean 0, so they are the gradients of a source that was only centred, too.
    Where x = r (z - mean), r = 1/√(var + eps), dr = -r² mean(x dz): z has the gradient r (g - x mean(g x)) if x has g.
    On: mean(x_b xₐ) = 1 - u, hence (2/n) r u (D - u xₐ), in which nothing cancels where the views nearly agree.
    Off: the mean of feature i of X_b Cᵀ times xₐ is Σⱼ cᵢⱼ², hence (2/n) r (X_b Cᵀ - xₐ Σⱼ cᵢⱼ²).
    """

    @staticmethod
    def forward(
        ctx: Any,
        weights: tuple[float, float],
        products: torch.dtype | None,
        source_a: Tensor,
        a: Standardized,
        gram_a: Tensor | None,
        source_b: Tensor,
        b: Standardized,
        gram_b: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        factor_a, factor_b, n = _factor(a.x, products), _factor(b.x, products), a.x.shape[0]
        on_weight, off_weight = weights
        ctx.by_gram = gram_a is not None and gram_b is not None
        ctx.slopes = 2 * on_weight / n, 2 * off_weight / n
        if gram_a is not None and gram_b is not None:
            apart = disagreement(a, b)
            off_diagonal = (gram_a * gram_b).sum() - (1 - apart).square().sum()
            ctx.save_for_backward(a.x, b.x, a.scale, b.scale, apart, factor_a, factor_b, gram_a, gram_b)
        else:
            difference = a.x - b.x
            apart = disagreement(a, b, difference)
            sums = torch.mm(factor_a.t(), factor_b)  # n C: what divides by n is left to the numbers of the end
            squares = off_diagonal_squares_(sums)
            rows, columns = squares.sum(dim=1), squares.sum(dim=0)
            off_diagonal, off_weight = rows.sum(), off_weight / n**2
            ctx.slopes = 2 * on_weight / n, 2 * off_weight
            ctx.save_for_backward(a.x, b.x, a.scale, b.scale, apart, difference, sums, rows, columns)
        on_diagonal = torch.dot(apart, apart)
        on_diagonal = on_diagonal if on_weight == 1 else on_diagonal.mul_(on_weight)
        return on_diagonal, off_diagonal.mul_(off_weight).to(apart.dtype)

    @staticmethod
    @_first_derivative_only
    def backward(ctx: Any, g_on: Tensor | None, g_off: Tensor | None) -> tuple[Tensor | None, ...]:
        if g_on is None and g_off is None:
            return (None,) * 8
        on, off = (None if g is None else g * slope for g, slope in zip((g_on, g_off), ctx.slopes, strict=True))
        gradients = _gradients_by_gram if ctx.by_gram else _gradients_by_features
        g_a, g_b = gradients(on, off, ctx.saved_tensors)
        return None, None, g_a, None, None, g_b, None, None


def _gradients_by_features(on: Tensor | None, off: Tensor | None, saved: Sequence[Any]) -> Iterator[Tensor]:
    """As `_CrossCorrelationEnergies` has them, with what is taken from xₐ split into x_b and D = xₐ - x_b.

    A gradient is then r (X_b M + w D), M being Off's Cᵀ with what is taken, negative, on its diagonal: two passes over
    n × d. `on` and `off` are the gradients that come in, times 2/n and 2/n²; `sums` is n C, rows and columns
    those of its squares.
    """
    x_a, x_b, r_a, r_b, apart, difference, sums, rows, columns = saved
    n = x_a.shape[0]
    u = torch.zeros_like(apart) if on is None else apart * on
    off = apart.new_zeros(()) if off is None else off
    taken_by_on, sums = u * apart, sums.to(x_a.dtype)
    for x_other, r, squares, sign in ((x_b, r_a, rows, 1), (x_a, r_b, columns, -1)):
        if r is None:
            r, taken = torch.ones_like(apart), u
        else:
            taken = torch.addcmul(taken_by_on, squares.to(u.dtype), off, value=1 / n)
        taken = taken * r
        matrix = (sums.t() if sign > 0 else sums) * (r * off)
        torch.neg(taken, out=matrix.diagonal())
        yield torch.mm(x_other, matrix).addcmul_(difference, (u * r).sub_(taken), value=sign)


def _gradients_by_gram(on: Tensor | None, off: Tensor | None, saved: Sequence[Any]) -> Iterator[Tensor]:
    """As `_CrossCorrelationEnergies` has them; Σⱼ cᵢⱼ² is the mean of the gradient of Off times xₐ.

    `on` and `off` are the gradients that come in, times 2/n.
    """
    x_a, x_b, r_a, r_b, apart, factor_a, factor_b, gram_a, gram_b = saved
    if on is not None:
        on = apart * on
        on_apart = on * apart
        difference = x_a - x_b
    views = ((x_a, x_b, r_a, gram_b, factor_a), (x_b, x_a, r_b, gram_a, factor_b))
    for view, (x, other, r, gram, factor) in enumerate(views):
        g, taken = None, list[Tensor]()  # the gradient over r, and the multiples of x that are taken from it
        if off is not None:
            g = other * (off * (apart - 1))
            _add_product_(g, gram * off, factor)
            if r is not None:
                taken.append(_sums(torch.mul, g, x) / len(x))
        if on is not None:
            taken.append(on if r is None else on_apart)
            if g is not None:
                g.addcmul_(difference, on, value=1 - 2 * view)
            else:
                g = difference.mul_(-on) if view else difference * on  # the second is its last use
        assert g is not None  # of the two gradients that come in, one is there
        if taken:
            g.addcmul_(x, functools.reduce(torch.add, taken), value=-1)
        yield g if r is None else g.mul_(r)


def off_diagonal_squares_(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """Sets the diagonal to 0 and returns the squares: a sum of all less the diagonal loses its digits where m ≈ I."""
    return matrix.fill_diagonal_(0).square()


def _factor(x: Embedding, products: torch.dtype | None) -> Embedding:
    return x if products is None or x.shape[1] <= NARROW else x.to(products)


def _add_product_(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Adds left @ right, multiplied in the precision of the factors, in place."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def covariance_energies(
    z: Embedding, *, gram: bool | None = None, products: torch.dtype | None = None
) -> tuple[Float[Tensor, "d"], Scalar]:
    """Variances of the features, and the off-diagonal energy Σᵢ Σ_{j≠i} covᵢⱼ² of their covariance.

    Convention: unbiased, divisor n - 1. Variances are summed and returned in float64 (on mps, which has none, in that
        of z), the energy in that of z.

    Args:
        z: a batch, centred or not.
        gram: forces the n × n (True) or the d × d form (False); by default the cheaper one. Same value, same gradient.
        products: precision in which matrices are multiplied (narrow ones excepted, see `NARROW`); by default that of z.
    """
    if gram is None:
        gram = prefers_gram(*z.shape, crossed=False)
    variance, energy = _CovarianceEnergies.apply(z, gram, products)
    return variance, energy


class _CovarianceEnergies(torch.autograd.Function):
    """Variances v of the centred X, and the energy E = ‖C‖² with C = XᵀX/(n-1) without its diagonal.

    v has the gradient 2 X / (n-1), E has 4 X C / (n-1). By G = X Xᵀ/(n-1), E = ‖G‖² - Σ vⱼ², which cancels where G
    nears τP (decorrelated features, n near d; P the projection that centres). With the means τ of G's n - 1 eigenvalues
    and v̄ of the d variances taken out of both sums, what is left over is exact:
    E = ‖G - τP‖² - Σ (vⱼ - v̄)² + tr² (1/(n-1) - 1/d). τ and v̄ are where both squares are stationary, so no gradient
    passes through them: 4 (G - τP) X / (n-1), and to v -2 (v - v̄) + 2 tr (1/(n-1) - 1/d). All gradients have mean 0.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, gram: bool, products: torch.dtype | None) -> tuple[Tensor, Tensor]:
        n, d = z.shape
        x = center(z)
        variance = x.square().sum(dim=0, dtype=x.dtype if x.device.type == "mps" else torch.float64) / (n - 1)
        factor = _factor(x, products)
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
    @_first_derivative_only
    def backward(ctx: Any, g_variance: Tensor | None, g_energy: Tensor | None) -> tuple[Tensor | None, None, None]:
        x, matrix, v_slope = ctx.saved_tensors
        n = len(x)
        weights = [] if g_variance is None else [g_variance]
        if v_slope is not None and g_energy is not None:
            weights.append(v_slope * g_energy)
        gradient = x * torch.mul(sum(weights), 2 / (n - 1)).to(x.dtype) if weights else torch.zeros_like(x)
        if g_energy is not None:
            factor = _factor(x, ctx.products)
            weighted = matrix * (g_energy * (4 / (n - 1))).to(matrix.dtype)
            _add_product_(gradient, *((weighted, factor) if ctx.gram else (factor, weighted)))
        return gradient, None, None


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
    @_first_derivative_only
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
