"""Barlow Twins' two sums of squares over the cross-correlation matrix, with a gradient written by hand.

`plain_cross_correlation_energies` says what is computed, in two lines with torch's gradient. The tests compare
`cross_correlation_energies` with it. Written by hand, the gradient takes fewer passes over the batch, keeps its digits
where the views nearly agree, and uses n × n matrices where there are fewer rows than features.
"""

import functools
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from barlow.linalg import (
    Scalar,
    Standardized,
    cross_correlation,
    disagreement,
    prefers_gram,
    sum_over_rows,
    without_diagonal,
)
from barlow.objectives._gradients import add_product_, as_factor, first_derivative_only, off_diagonal_squares_
from barlow.types import Embedding


def plain_cross_correlation_energies(xa: Embedding, xb: Embedding) -> tuple[Scalar, Scalar]:
    """Σᵢ (1 - cᵢᵢ)² and Σᵢ Σ_{j≠i} cᵢⱼ² of two centred views, as the paper writes them and with torch's gradient."""
    c = cross_correlation(xa, xb)
    return (1 - c.diagonal()).square().sum(), without_diagonal(c).square().sum()


def cross_correlation_energies(
    views: Sequence[Standardized],
    *,
    weights: tuple[float, float] = (1.0, 1.0),
    gram: bool | None = None,
    products: torch.dtype | None = None,
) -> list[tuple[Scalar, Scalar]]:
    """How far the cross-correlation of every pair of views is from the identity, on the diagonal and off it.

    An energy is a sum of squares. Of views that were only centred, the matrix is the cross-covariance.

    Args:
        views: two or more centred batches; each view's Gram matrix is made once, however many pairs it is in.
        weights: factors of the two sums.
        gram: forces the n × n form (True) or the d × d form (False). By default the cheaper one is taken. Both have the
            same value and the same gradient.
        products: precision in which matrices are multiplied, which is the one step that costs more than n × d. By
            default, and for narrow batches always (see `NARROW`), it is the precision of the views.

    Returns:
        For each pair (0, 1), (0, 2), ..., (1, 2), ...: Σᵢ (1 - cᵢᵢ)² and Σᵢ Σ_{j≠i} cᵢⱼ², weighted, in the views'
        precision.
    """
    if gram is None:
        gram = prefers_gram(*views[0].x.shape, crossed=True)
    grams: list[Tensor | None] = [None] * len(views)
    if gram:
        with torch.no_grad():
            factors = [as_factor(view.x, products) for view in views]
            grams = [(factor @ factor.T).div_(len(factor)) for factor in factors]
    sides = [(view.source, view, matrix) for view, matrix in zip(views, grams, strict=True)]
    return [_CrossCorrelationEnergies.apply(weights, products, *a, *b) for a, b in combinations(sides, 2)]


class _CrossCorrelationEnergies(torch.autograd.Function):
    """The two energies of one pair of views, and their gradient with respect to the batches that the views came from.

    The values. On = Σ uᵢ² with u = 1 - c, cᵢ = mean xₐ x_b of feature i (see `disagreement`). Off = ‖C‖² with
    C = Xₐᵀ X_b / n without its diagonal. By Gram matrices G = X Xᵀ / n, Off = ⟨Gₐ, G_b⟩ - Σ (1 - u)².

    The gradient with respect to xₐ. On has -(2/n) u x_b, which is written as (2/n) u (D - xₐ) with D = xₐ - x_b. Off
    has (2/n) X_b Cᵀ, or by Gram matrices (2/n) (G_b Xₐ - (1 - u) X_b). Both have mean 0 over the rows. So they are also
    the gradients with respect to a batch that was only centred.

    The gradient with respect to z, where x = r (z - mean) with r = 1/√(var + eps). Then dr = -r² mean(x dz), and if x
    has the gradient g, z has r (g - x mean(g x)), with the means over the rows:
    - On: mean(x_b xₐ) = 1 - u, so z has (2/n) r u (D - u xₐ). Nothing cancels in it where the views nearly agree.
    - Off: the mean of feature i of X_b Cᵀ times xₐ is Σⱼ cᵢⱼ², so z has (2/n) r (X_b Cᵀ - xₐ Σⱼ cᵢⱼ²).
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
        factor_a, factor_b, n = as_factor(a.x, products), as_factor(b.x, products), a.x.shape[0]
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
            sums = torch.mm(factor_a.t(), factor_b)  # n C: dividing the few numbers at the end saves a pass over d × d
            squares = off_diagonal_squares_(sums)
            rows, columns = squares.sum(dim=1), squares.sum(dim=0)
            off_diagonal, off_weight = rows.sum(), off_weight / n**2
            ctx.slopes = 2 * on_weight / n, 2 * off_weight
            ctx.save_for_backward(a.x, b.x, a.scale, b.scale, apart, difference, sums, rows, columns)
        on_diagonal = torch.dot(apart, apart)
        on_diagonal = on_diagonal if on_weight == 1 else on_diagonal.mul_(on_weight)
        return on_diagonal, off_diagonal.mul_(off_weight).to(apart.dtype)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, g_on: Tensor | None, g_off: Tensor | None) -> tuple[Tensor | None, ...]:
        if g_on is None and g_off is None:
            return (None,) * 8
        on, off = (None if g is None else g * slope for g, slope in zip((g_on, g_off), ctx.slopes, strict=True))
        gradients = _gradients_by_gram if ctx.by_gram else _gradients_by_features
        g_a, g_b = gradients(on, off, ctx.saved_tensors)
        return None, None, g_a, None, None, g_b, None, None


def _gradients_by_features(on: Tensor | None, off: Tensor | None, saved: Sequence[Any]) -> Iterator[Tensor]:
    """The gradients of `_CrossCorrelationEnergies` by the d × d matrix, first for view a, then for view b.

    `on` and `off` are the incoming gradients times 2/n and 2/n². `sums` is n C; `rows` and `columns` are the sums of
    its squares.

    The docstring there subtracts a multiple of xₐ. Here xₐ is split into x_b + D, which makes the gradient
    r (X_b M + w D). M is Off's Cᵀ, with the subtracted multiples, negative, on its diagonal. That is two passes over
    n × d.
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
    """The gradients of `_CrossCorrelationEnergies` by the n × n matrices, first for view a, then for view b.

    `on` and `off` are the incoming gradients times 2/n. There is no matrix C here, so Σⱼ cᵢⱼ² is computed as the mean
    over the rows of xₐ times Off's gradient.
    """
    x_a, x_b, r_a, r_b, apart, factor_a, factor_b, gram_a, gram_b = saved
    if on is not None:
        on = apart * on
        on_apart = on * apart
        difference = x_a - x_b
    views = ((x_a, x_b, r_a, gram_b, factor_a), (x_b, x_a, r_b, gram_a, factor_b))
    for view, (x, other, r, gram, factor) in enumerate(views):
        g, taken = None, list[Tensor]()  # the gradient over r, and the multiples of x that are subtracted from it
        if off is not None:
            g = other * (off * (apart - 1))
            add_product_(g, gram * off, factor)
            if r is not None:
                taken.append(sum_over_rows(torch.mul, g, x) / len(x))
        if on is not None:
            taken.append(on if r is None else on_apart)
            if g is not None:
                g.addcmul_(difference, on, value=1 - 2 * view)
            else:
                g = difference.mul_(-on) if view else difference * on  # in place at its last use
        assert g is not None  # at least one of the two incoming gradients is there
        if taken:
            g.addcmul_(x, functools.reduce(torch.add, taken), value=-1)
        yield g if r is None else g.mul_(r)
