"""BYOL or SimSiam with VICReg's variance and covariance terms, which keep them from collapsing."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from barlow.objectives._covariance import check_hinge, hinge_and_covariance
from barlow.objectives._directions import prediction_error
from barlow.objectives._inputs import check_non_negative, check_one_of, full_precision
from barlow.objectives._levels import Levels, variance_and_covariance
from barlow.types import Embedding, Terms

__all__ = ["BYOLVICReg"]

Convention = Literal["byol", "simsiam"]


@dataclass(frozen=True, kw_only=True)
class BYOLVICReg:
    """A prediction should point where its target does, and the embeddings keep their variance and do not covary.

    loss of a group = distance of (p, t) + variance · v(z) + covariance · 2 c(z), with v and c of VICReg and z the
    online projector's embedding that p was predicted from.

    Terms: ``distance``, ``variance`` and ``covariance``, the last two weighted.

    Source: Bardes, Ponce, LeCun, VICReg (arXiv 2105.04906), table 4 and section 5, with weights 1 and 0.01; BYOL (arXiv
        2006.07733), SimSiam (arXiv 2011.10566).
    Convention: the distance is BYOL's, or SimSiam's -cos(p, t), which is a quarter of it less 1. The paper does not say
        which tensors get the terms, and no code of it was released. Here it is the online projector's output for every
        view, as the predictor's output is only its image, and the target gets no gradient. The variance is averaged
        over the views and the covariance summed over the two of a pair, as in VICReg's released code.
    Deviation: none that is known, see above.

    Args:
        variance: weight of the hinge on the standard deviations (μ), 0 or more.
        covariance: weight of the covariances (ν), 0 or more.
        gamma: standard deviation below which a feature is pushed to vary more, above 0.
        eps: added to each variance, 0 or more.
        convention: "byol" or "simsiam": whose distance.

    Raises:
        ValueError: hyper-parameters out of range; embeddings that are not aligned float matrices with n ≥ 2.

    Example:
        >>> import torch
        >>> z = torch.zeros(4, 3)
        >>> {name: round(term.item(), 4) for name, term in BYOLVICReg()(z, z, z).items()}  # collapsed
        {'distance': 4.0, 'variance': 0.99, 'covariance': 0.0}
    """

    moving_target: ClassVar[bool] = True

    variance: float = 1.0
    covariance: float = 0.01
    gamma: float = 1.0
    eps: float = 1e-4
    convention: Convention = "byol"

    def __post_init__(self) -> None:
        check_non_negative(variance=self.variance, covariance=self.covariance)
        check_hinge(self.gamma, self.eps)
        check_one_of(get_args(Convention), convention=self.convention)

    def levels(self, rows: int, width: int) -> Levels:
        """Those of the distance, with VICReg's terms of one embedding."""
        unrelated, least = (4.0, 0.0) if self.convention == "byol" else (0.0, -1.0)
        terms = variance_and_covariance(
            rows, width, variance=self.variance, covariance=2 * self.covariance, gamma=self.gamma, eps=self.eps
        )
        assert terms.unrelated is not None
        assert terms.floor is not None
        return Levels(unrelated + terms.unrelated, least + terms.floor)

    def __call__(self, p: Embedding, t: Embedding, z: Embedding) -> Terms:
        with full_precision((p, t, z)) as (prediction, target, embedding):
            error, dtype = prediction_error(prediction, target), prediction.dtype
            hinge, energy = hinge_and_covariance(embedding, self.gamma, self.eps)
            return {
                "distance": (2 * error if self.convention == "byol" else error / 2 - 1).to(dtype),
                "variance": (self.variance * hinge).to(dtype),
                "covariance": (self.covariance * 2 * energy).to(dtype),
            }
