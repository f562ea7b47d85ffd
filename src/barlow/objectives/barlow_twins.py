"""Barlow Twins: the cross-correlation of two views' features should be the identity."""

from dataclasses import dataclass

import torch

from barlow.linalg import cross_correlation_energies, standardize
from barlow.objectives._inputs import check_non_negative, full_precision
from barlow.types import Embedding, Terms

__all__ = ["BarlowTwins"]


@dataclass(frozen=True, kw_only=True)
class BarlowTwins:
    """Each feature should agree with itself across the views and tell nothing about the others.

    x = (z - mean) / √(var + eps) for each view, c = xₐᵀ x_b / n,
    loss = Σᵢ (1 - cᵢᵢ)² + redundancy · Σᵢ Σ_{j≠i} cᵢⱼ².

    Terms: ``invariance`` (the diagonal sum) and ``redundancy`` (the weighted off-diagonal sum).

    Source: Zbontar et al., Barlow Twins (arXiv 2103.03230), equations 1-2; facebookresearch/barlowtwins at 8e8d284,
        main.py.
    Convention: that of the released code: population variance and eps 1e-5 (a batch norm without affine parameters),
        sums over features, not means. Unchanged by a shift or a positive scale of any feature in either view (up to
        eps) and by exchanging the views. Where n ≤ d/2 the off-diagonal sum comes from n × n Gram matrices: same
        value, same gradient.
    Deviation: divides by the rows there are, not by a nominal batch size. More than two views (not in the paper): the
        mean over all pairs, each view standardised once.

    Args:
        redundancy: weight of the off-diagonal sum (λ in the paper, 5e-3 there and 0.0051 in the code), 0 or more.
        eps: added to each variance, 0 or more.

    Raises:
        ValueError: hyper-parameters out of range; embeddings that are not aligned float matrices with n ≥ 2; a constant
            feature with eps = 0.

    Example:
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
        >>> {name: round(term.item(), 6) for name, term in BarlowTwins(redundancy=0.0051)(z, z).items()}
        {'invariance': 0.0, 'redundancy': 0.0}
    """

    redundancy: float = 0.0051
    eps: float = 1e-5

    def __post_init__(self) -> None:
        check_non_negative(redundancy=self.redundancy, eps=self.eps)

    def __call__(self, *z: Embedding) -> Terms:
        with full_precision(z) as views:
            energies = cross_correlation_energies([standardize(view, self.eps) for view in views])
            on_diagonal, off_diagonal = map(torch.stack, zip(*energies, strict=True))
            return {"invariance": on_diagonal.mean(), "redundancy": self.redundancy * off_diagonal.mean()}
