"""VICReg: views agree, every feature keeps its variance, features do not covary."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, Literal, get_args

import torch

from barlow.objectives._covariance import check_hinge, hinge_and_covariance
from barlow.objectives._inputs import check_non_negative, check_one_of, full_precision, mean
from barlow.objectives._levels import Levels, variance_and_covariance
from barlow.types import Embedding, Terms

__all__ = ["VICReg"]

Convention = Literal["code", "algorithm_1", "equations"]


@dataclass(frozen=True, kw_only=True)
class VICReg:
    """Views should agree, while each keeps a standard deviation in every feature and no covariance between features.

    loss = invariance · mean over rows and features of (zₐ - z_b)²
         + variance · (v(zₐ) + v(z_b)) / 2,  v(z) = mean over features of max(0, gamma - √(var + eps))
         + covariance · (c(zₐ) + c(z_b)),    c(z) = Σᵢ Σ_{j≠i} covᵢⱼ² / d.

    Terms: ``invariance``, ``variance`` and ``covariance``, each weighted.

    Source: Bardes, Ponce, LeCun, VICReg (arXiv 2105.04906), section 4; facebookresearch/vicreg at 4e12602,
        main_vicreg.py.
    Convention: that of the released code. The invariance is a mean over rows *and* features, the variance is averaged
        over the views, and the covariance is summed over them. Variance and covariance are unbiased (divisor n - 1).
        The paper has two other conventions, see ``convention``. A shift of one view leaves its variance and covariance
        as they are; the invariance is unchanged only if all views are shifted alike. Where n ≤ d, the covariance comes
        from n × n Gram matrices, with the same value and the same gradient. Everything is computed in the precision of
        the embeddings, with two exceptions for float32 (on devices that have float64). Variances are in float64. With
        at most 16 rows or 16 features, all but wide matrix products are too.
    Deviation: divides by the rows there are, not by a nominal batch size. The paper has two views; of more the loss is
        the mean over all pairs, and each view's variance and covariance are computed once.

    Args:
        invariance: weight of the distance (λ in the paper), 0 or more.
        variance: weight of the hinge on the standard deviations (μ), 0 or more.
        covariance: weight of the covariances (ν), 0 or more.
        gamma: standard deviation below which a feature is pushed to vary more, above 0.
        eps: added to each variance, 0 or more.
        convention: which published sums and means the weights belong to. "code" is the formula above, from which the
            released models come. In "algorithm_1" the variance is the sum v(zₐ) + v(z_b), twice the code's. In
            "equations" (5-6) it is that too, and the squared distance is summed over the features, which is d times the
            code's invariance.

    Raises:
        ValueError: hyper-parameters out of range; embeddings that are not aligned float matrices with n ≥ 2; a constant
            feature with eps = 0 (the root has no gradient there).

    Example:
        >>> z = torch.zeros(4, 3)
        >>> {name: round(term.item(), 4) for name, term in VICReg()(z, z).items()}  # collapsed
        {'invariance': 0.0, 'variance': 24.75, 'covariance': 0.0}
    """

    spreads_by: ClassVar[str] = "decorrelation"
    keeps: ClassVar[Mapping[str, str]] = {"variance": "spread", "covariance": "directions"}

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    gamma: float = 1.0
    eps: float = 1e-4
    convention: Convention = "code"

    def __post_init__(self) -> None:
        check_non_negative(invariance=self.invariance, variance=self.variance, covariance=self.covariance)
        check_hinge(self.gamma, self.eps)
        check_one_of(get_args(Convention), convention=self.convention)

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: features of variance 1 are 2 apart in the mean of the squares. Floor: equal views."""
        features = width if self.convention == "equations" else 1
        of_views = variance_and_covariance(
            rows,
            width,
            variance=self.variance * (1 if self.convention == "code" else 2),
            covariance=2 * self.covariance,
            gamma=self.gamma,
            eps=self.eps,
        )
        assert of_views.unrelated is not None
        return Levels(2 * self.invariance * features + of_views.unrelated, of_views.floor)

    def __call__(self, *z: Embedding) -> Terms:
        with full_precision(z) as views:
            dtype, d = views[0].dtype, views[0].shape[1]
            distances = [torch.nn.functional.mse_loss(za, zb) for za, zb in combinations(views, 2)]
            hinges, energies = zip(*(hinge_and_covariance(view, self.gamma, self.eps) for view in views), strict=True)
            # A sum over the two views of a pair is twice their mean. Every view is in equally many pairs, so the mean
            # over the pairs is the mean over the views.
            features = d if self.convention == "equations" else 1
            views_summed = 1 if self.convention == "code" else 2
            return {
                "invariance": (self.invariance * features * mean(distances)).to(dtype),
                "variance": (self.variance * views_summed * mean(hinges)).to(dtype),
                "covariance": (self.covariance * 2 * mean(energies)).to(dtype),
            }
