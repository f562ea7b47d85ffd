"""Barlow Twins: the cross-correlation of two views' features should be the identity."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

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
from barlow.objectives._levels import Levels, excess
from barlow.types import Embedding, Terms

__all__ = ["BarlowTwins"]

Normalization = Literal["batch", "samples", "none"]


@dataclass(frozen=True, kw_only=True)
class BarlowTwins:
    """Each feature should agree with itself across the views, and tell nothing about the other features.

    x = (z - mean) / √(var + eps) for each view, c = xₐᵀ x_b / n,
    loss = invariance · Σᵢ (1 - cᵢᵢ)² + redundancy · Σᵢ Σ_{j≠i} cᵢⱼ².

    Terms: ``invariance`` (the weighted diagonal sum) and ``redundancy`` (the weighted off-diagonal sum).

    Source: Zbontar et al., Barlow Twins (arXiv 2103.03230), equations 1-2 and, for the variants, table 5;
        facebookresearch/barlowtwins at 8e8d284, main.py.
    Convention: that of the released code. The variance is the population's and eps is 1e-5, as in a batch norm without
        affine parameters. The sums over the features are sums, not means. A shift or a positive scale of any feature in
        either view changes nothing (up to eps), and neither does exchanging the views. Where n ≤ d/2, the off-diagonal
        sum comes from n × n Gram matrices, with the same value and the same gradient. Everything is computed in the
        precision of the embeddings, with two exceptions for float32 (on devices that have float64). With at most 16
        rows or 16 features, all but wide matrix products are in float64. With another normalization than "batch",
        everything is.
    Deviation: divides by the rows there are, not by a nominal batch size. The paper has two views; of more the loss is
        the mean over all pairs, and each view is standardised once. For normalization "samples" the paper says unit
        length, but then the d diagonal entries add up to about 1 at most, and cannot all reach the target 1. Here the
        length is √d (a root mean square of 1). With it, equal views whose features vary equally reach the target. A
        sample at the batch's mean has no direction: it stays at 0, without gradient.

    Args:
        invariance: weight of the diagonal sum, 0 or more. It is 1 in the paper; 0 leaves only the off-diagonal sum.
        redundancy: weight of the off-diagonal sum, 0 or more (λ in the paper: 5e-3 in the text, 0.0051 in the code). 0
            leaves only the diagonal sum.
        eps: added to each variance, 0 or more.
        normalization: "batch" is the formula above. With "samples" each sample is then scaled to length √d, without
            subtracting its mean over the features, and c is the cross-covariance. With "none" c is the cross-covariance
            of the embeddings as they come, and eps has no effect. Both divide by n.

    Raises:
        ValueError: hyper-parameters out of range; embeddings that are not aligned float matrices with n ≥ 2; a constant
            feature with eps = 0.

    Example:
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
        >>> {name: round(term.item(), 6) for name, term in BarlowTwins(redundancy=0.0051)(z, z).items()}
        {'invariance': 0.0, 'redundancy': 0.0}
    """

    spreads_by: ClassVar[str] = "decorrelation"
    keeps: ClassVar[Mapping[str, str]] = {"redundancy": "directions"}

    invariance: float = 1.0
    redundancy: float = 0.0051
    eps: float = 1e-5
    normalization: Normalization = "batch"

    def __post_init__(self) -> None:
        check_non_negative(invariance=self.invariance, redundancy=self.redundancy, eps=self.eps)
        check_one_of(get_args(Normalization), normalization=self.normalization)

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: a correlation of n independent pairs has mean 0 and variance 1 / (n - 1), so that the diagonal sum
        is d n / (n - 1) and the other one d (d - 1) / (n - 1). Floor: equal views, all of whose correlations with
        themselves are s, as what is off the diagonal is then s² d times `excess` or more; the best s is taken."""
        if self.normalization != "batch":
            return Levels(None, None)
        diagonal, others = self.invariance * width, self.redundancy * width * excess(rows, width)
        floor = diagonal * others / (diagonal + others) if diagonal and others else 0.0
        return Levels((diagonal * rows + self.redundancy * width * (width - 1)) / (rows - 1), floor)

    def __call__(self, *z: Embedding) -> Terms:
        with full_precision(z) as views:
            dtype = views[0].dtype
            # Only "batch" gives all features the same variance. Elsewhere variances may differ so much that, in the
            # Gram form, float32 would lose the off-diagonal sum beside the diagonal one.
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
