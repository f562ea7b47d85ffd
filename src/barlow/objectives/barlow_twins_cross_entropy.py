"""Barlow Twins as a cross-entropy: soft maxima of the cross-correlation, with a temperature, instead of squares."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from barlow.linalg import Scalar, Standardized, cross_correlation, disagreement, standardize, without_diagonal
from barlow.objectives._inputs import check_non_negative, full_precision, in_float64
from barlow.objectives._levels import Levels
from barlow.types import Embedding, Terms

__all__ = ["BarlowTwinsCrossEntropy"]


@dataclass(frozen=True, kw_only=True)
class BarlowTwinsCrossEntropy:
    """Each feature should correlate with itself across the views, and with no other, as counted by soft maxima.

    x = (z - mean) / √(var + eps) for each view, c = xₐᵀ x_b / n,
    loss = -log Σᵢ exp(cᵢᵢ / temperature) + redundancy · log Σᵢ Σ_{j≠i} exp(max(cᵢⱼ, 0) / temperature) + constant.

    Terms: ``invariance`` (the first) and ``redundancy`` (the second, weighted), each with its share of the constant.

    Source: Zbontar et al., Barlow Twins (arXiv 2103.03230), table 5 and the text beside it: an ablation, 63.3 where the
        sums of squares reach 71.4.
    Convention: features are standardised as in `BarlowTwins`. The sums over features are inside the logarithms.
        Correlations off the diagonal that are 0 or negative cost nothing and have no gradient.
    Deviation: a constant is added, 1/temperature + log d - redundancy · log d(d - 1). It makes each term 0 at best
        (where c = I) and never negative, and it has no gradient. Everything is computed in float64 (in float32 on
        devices without it) from the d × d matrix, whatever n is, because near c = I the gradient depends on the signs
        of correlations that are almost 0. With one feature there is nothing off the diagonal, and the second term is 0.
        The paper has two views; of more the loss is the mean over all pairs.

    Args:
        redundancy: weight of the off-diagonal term (λ), 0 or more. The paper's value was not at hand. With 1 the two
            terms pull about equally on a feature, since both are logarithms of sums.
        temperature: τ, above 0. The smaller it is, the more the largest correlations count alone. This is not the
            paper's value either: 0.1 is SimCLR's for similarities, which lie in [-1, 1] as correlations do.
        eps: added to each variance, 0 or more.

    Raises:
        ValueError: hyper-parameters out of range; embeddings that are not aligned float matrices with n ≥ 2; a constant
            feature with eps = 0.

    Example:
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
        >>> {name: round(term.item(), 4) for name, term in BarlowTwinsCrossEntropy()(z, z).items()}
        {'invariance': 0.0001, 'redundancy': 0.0}
    """

    keeps: ClassVar[Mapping[str, str]] = {"redundancy": "directions"}

    redundancy: float = 1.0
    temperature: float = 0.1
    eps: float = 1e-5

    def __post_init__(self) -> None:
        check_non_negative(redundancy=self.redundancy, temperature=self.temperature, eps=self.eps)
        if self.temperature == 0:
            raise ValueError("temperature is 0: give a number above 0, such as 0.1")

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: a correlation of n independent pairs is nearly normal with variance s² = 1 / (n - 1), and so
        exp(c / τ) has mean exp(s² / 2τ²), and exp(max(c, 0) / τ) half of 1 and exp(s² / 2τ²) (1 + erf(s / τ√2))."""
        s = 1 / (self.temperature * math.sqrt(rows - 1))
        positive = (1 + math.exp(s * s / 2) * (1 + math.erf(s / math.sqrt(2)))) / 2
        others = self.redundancy * math.log(positive) if width > 1 else 0.0
        return Levels(1 / self.temperature - s * s / 2 + others, 0.0)

    def __call__(self, *z: Embedding) -> Terms:
        with full_precision(z) as views:
            dtype = views[0].dtype
            standardized = [standardize(in_float64(view), self.eps) for view in views]
            pairs = [self._terms(a, b) for a, b in combinations(standardized, 2)]
            on_diagonal, off_diagonal = map(torch.stack, zip(*pairs, strict=True))
            return {
                "invariance": on_diagonal.mean().to(dtype),
                "redundancy": (self.redundancy * off_diagonal.mean()).to(dtype),
            }

    def _terms(self, a: Standardized, b: Standardized) -> tuple[Scalar, Scalar]:
        d = a.x.shape[1]
        on_diagonal, shift = _growth(-disagreement(a, b) / self.temperature)
        invariance = -shift - torch.log1p(on_diagonal.mean())
        if d == 1:
            return invariance, 0 * invariance
        off_diagonal, shift = _growth(without_diagonal(cross_correlation(a.x, b.x)).relu() / self.temperature)
        return invariance, shift + torch.log1p(without_diagonal(off_diagonal).sum() / (d * (d - 1)))


def _growth(x: Float[Tensor, "..."]) -> tuple[Float[Tensor, "..."], Scalar]:
    """The growth exp(x - shift) - 1, and the shift, so that log mean exp x = shift + log(1 + mean growth).

    If the largest x is near 0, nothing is shifted and no digit is lost. Otherwise the shift makes the largest x 0, and
    nothing overflows.
    """
    largest = x.detach().max()
    shift = torch.where(largest.abs() < 1, 0, largest)
    return torch.expm1(x - shift), shift
