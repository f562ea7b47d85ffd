"""VSE++: an image should be nearer to its caption than to any other, by a margin, and a caption to its image."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from barlow.linalg import Scalar
from barlow.objectives._directions import directions
from barlow.objectives._inputs import check_non_negative, check_one_of, full_precision, in_float64, mean
from barlow.objectives._levels import Levels
from barlow.types import Embedding, Terms

__all__ = ["VSE"]

Hinges = Literal["hardest", "all"]


@dataclass(frozen=True, kw_only=True)
class VSE:
    """A hinge on cosines: what belongs together is more alike than what does not, by a margin.

    s_ij = cos(a_i, b_j), for images a and captions b, and with the hardest negatives

    loss = Σ_i max_{j≠i} [margin + s_ij - s_ii]₊ + Σ_j max_{i≠j} [margin + s_ij - s_jj]₊;

    with all of them, sums stand in the places of the two maxima.

    Terms: ``hinge``.

    Source: Faghri et al., VSE++: Improving Visual-Semantic Embeddings with Hard Negatives (arXiv 1707.05612), equations
        5 and 6; fartashf/vsepp at abe382f, model.py. All negatives: Kiros et al., Unifying Visual-Semantic Embeddings
        (arXiv 1411.2539).
    Convention: that of the released code, a sum over the batch and over the two directions, so a rate goes with a
        batch size. Both sides get gradients. Unchanged by a positive scale of any row, by a rotation of all and by
        exchanging the two sides. Computed in float64 (float32 on devices without it), because where embeddings are
        nearly equal the hinges are differences of nearly equal cosines.
    Deviation: of several equally hard negatives each gets its share of the gradient (the code chooses one), so that
        the order of the rows changes nothing. A row up to 1e-12 long has no direction: its cosines are 0, and it gets
        no gradient (the code divides by zero). More than two views (not in the paper): the mean over all pairs.

    Args:
        margin: (α) 0 or more; from 2 on no hinge is ever at rest.
        hinges: of the "hardest" negative alone, as in VSE++, or of "all", which it is compared with (VSE0 there).

    Raises:
        ValueError: hyper-parameters out of range; embeddings that are not aligned float matrices with n ≥ 2.

    Example:
        >>> z = torch.ones(8, 3)
        >>> round(VSE()(z, z)["hinge"].item(), 4)  # collapsed: the margin, 8 times in each direction
        3.2
    """

    keeps: ClassVar[Mapping[str, str]] = {"margin": "spread"}

    margin: float = 0.2
    hinges: Hinges = "hardest"

    def __post_init__(self) -> None:
        check_non_negative(margin=self.margin)
        check_one_of(get_args(Hinges), hinges=self.hinges)

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: the cosines are those of random directions. Floor: what belongs together has a cosine of 1, and
        all others have -1 / (n - 1), as low as all of n directions can have them."""
        compared = 1 if self.hinges == "hardest" else rows - 1
        unrelated = 2 * rows * compared * _hinge_of_random(rows - compared, width, self.margin)
        return Levels(unrelated, 2 * rows * compared * max(0.0, self.margin - rows / (rows - 1)))

    def __call__(self, *z: Embedding) -> Terms:
        with full_precision(z) as views:
            u = [directions(in_float64(view)) for view in views]
            return {"hinge": mean([self._pair(a, b) for a, b in combinations(u, 2)]).to(views[0].dtype)}

    def _pair(self, ua: Embedding, ub: Embedding) -> Scalar:
        """The two directions of a pair."""
        right = (ua * ub).sum(dim=1)
        others = (ua @ ub.T).fill_diagonal_(-torch.inf)
        return self._hinges(others - right[:, None]) + self._hinges(others.T - right[:, None])

    def _hinges(self, excess: Float[Tensor, "n n"]) -> Scalar:
        """Of each row how much more alike its negatives are than what belongs to it."""
        if self.hinges == "hardest":
            excess = excess.amax(dim=1)
        return torch.relu(self.margin + excess).sum()


POINTS = 4_000
"""Angles at which the distribution of a cosine is looked at."""


@lru_cache(maxsize=64)
def _hinge_of_random(negatives: int, width: int, margin: float) -> float:
    """The expected hinge of the largest of so many cosines over one other, all of independent random directions.

    A cosine t = -cos φ has the density sin^(d-2) φ over φ. With F its distribution function, the expected hinge over
    the other cosine is H(margin + t), where H is the integral of F; and the largest has the distribution function F^n.
    """
    angles = torch.linspace(0, torch.pi, POINTS, dtype=torch.float64)
    density = torch.sin(angles[1:-1]).pow(max(width, 2) - 2)
    below = torch.cat([density.new_zeros(1), density.cumsum(0), density.new_zeros(1)])
    below[-1] = below[-2]
    below = below / below[-1]
    cosines = -torch.cos(angles)
    steps = cosines.diff()
    area = torch.cat([below.new_zeros(1), ((below[1:] + below[:-1]) / 2 * steps).cumsum(0)])
    middle = (cosines[1:] + cosines[:-1]) / 2 + margin
    place = torch.searchsorted(cosines, middle.clamp(max=1.0)).clamp(1, POINTS - 1)
    share = (middle.clamp(max=1.0) - cosines[place - 1]) / steps[place - 1]
    expected = area[place - 1] + share * (area[place] - area[place - 1]) + (middle - 1).clamp(min=0)
    return float((below.pow(negatives).diff() * expected).sum())
