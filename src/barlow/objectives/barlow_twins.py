"""Barlow Twins: the cross-correlation of two views' features should be the identity."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from barlow.linalg import Standardized, centered, equal_lengths, standardize
from barlow.objectives._cross_correlation import cross_correlation_energies
from barlow.objectives._inputs import (
    check_non_negative,
    check_one_of,
    few_in_float64,
    full_precision,
    in_float64,
    mean,
)
from barlow.types import Embedding, Terms

__all__ = ["BarlowTwins"]

Normalization = Literal["batch", "samples", "none"]


@dataclass(frozen=True, kw_only=True)
class BarlowTwins:
    """Each feature should agree with itself across the views and tell nothing about the others.

    x = (z - mean) / √(var + eps) for each view, c = xₐᵀ x_b / n,
    loss = invariance · Σᵢ (1 - cᵢᵢ)² + redundancy · Σᵢ Σ_{j≠i} cᵢⱼ².

    Terms: ``invariance`` (the weighted diagonal sum) and ``redundancy`` (the weighted off-diagonal sum).

    Source: Zbontar et al., Barlow Twins (arXiv 2103.03230), equations 1-2 and, for the variants, table 5;
        facebookresearch/barlowtwins at 8e8d284, main.py.
    Convention: that of the released code: population variance and eps 1e-5 (a batch norm without affine parameters),
        sums over features, not means. Unchanged by a shift or a positive scale of any feature in either view (up to
        eps) and by exchanging the views. Where n ≤ d/2 the off-diagonal sum comes from n × n Gram matrices: same
        value, same gradient. Computed in the precision of the embeddings; of float32 ones up to 16 rows or features all
        but wide matrix products in float64, with another normalization than "batch" all (not on devices without it).
    Deviation: divides by the rows there are, not by a nominal batch size. More than two views (not in the paper): the
        mean over all pairs, each view standardised once. For normalization "samples" the paper says unit length, under
        which no cᵢᵢ of d could be more than about 1/d, and leaves open how the target 1 is meant: here the length is √d
        (a root mean square of 1), with which equal views whose features vary equally reach it. A sample at the batch's
        mean has no direction and stays at 0, without gradient.

    Args:
        invariance: weight of the diagonal sum, 0 or more; 1 in the paper, 0 leaves the off-diagonal sum alone.
        redundancy: weight of the off-diagonal sum (λ in the paper, 5e-3 there and 0.0051 in the code), 0 or more; 0
            leaves the diagonal sum alone.
        eps: added to each variance, 0 or more.
        normalization: "batch", as above. "samples": after that each sample is scaled to length √d, its mean over the
            features kept, and c is the cross-covariance. "none": c is the cross-covariance of the embeddings as they
            come; eps has no effect. Both divide by n.

    Raises:
        ValueError: hyper-parameters out of range; embeddings that are not aligned float matrices with n ≥ 2; a constant
            feature with eps = 0.

    Example:
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
        >>> {name: round(term.item(), 6) for name, term in BarlowTwins(redundancy=0.0051)(z, z).items()}
        {'invariance': 0.0, 'redundancy': 0.0}
    """

    invariance: float = 1.0
    redundancy: float = 0.0051
    eps: float = 1e-5
    normalization: Normalization = "batch"

    def __post_init__(self) -> None:
        check_non_negative(invariance=self.invariance, redundancy=self.redundancy, eps=self.eps)
        check_one_of(get_args(Normalization), normalization=self.normalization)

    def __call__(self, *z: Embedding) -> Terms:
        with full_precision(z) as views:
            dtype = views[0].dtype
            # Features that batch statistics do not make equal may differ so much in variance that float32 would drown
            # the off-diagonal sum of a Gram form in the diagonal one.
            if self.normalization == "batch":
                views = [few_in_float64(view) for view in views]
                with torch.no_grad():
                    normalized = [standardize(view, self.eps) for view in views]
                products = dtype
            else:
                normalized, products = [self._normalized(in_float64(view)) for view in views], None
            weights = (self.invariance, self.redundancy)
            energies = cross_correlation_energies(normalized, weights=weights, products=products)
            on_diagonal, off_diagonal = zip(*energies, strict=True)
            return {"invariance": mean(on_diagonal).to(dtype), "redundancy": mean(off_diagonal).to(dtype)}

    def _normalized(self, z: Embedding) -> Standardized:
        if self.normalization == "none":
            return centered(z)
        return centered(equal_lengths(standardize(z, self.eps).x))
