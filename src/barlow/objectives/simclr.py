"""SimCLR: among all views of a batch, each should find the other view of its image."""

from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from barlow.linalg import Scalar
from barlow.objectives._classification import surprisal
from barlow.objectives._directions import directions
from barlow.objectives._inputs import check_one_of, check_positive, full_precision, in_float64, mean
from barlow.objectives._levels import Levels, contrast, least_contrast
from barlow.types import Embedding, Terms

__all__ = ["SimCLR"]

Convention = Literal["code", "paper"]


@dataclass(frozen=True, kw_only=True)
class SimCLR:
    """Each of the 2n embeddings of a batch should be more like the other view of its image than like any other.

    sᵢⱼ = cos(zᵢ, zⱼ) / temperature over the 2n rows of both views, p(i) the row that is the other view of i's image,
    ℓᵢ = -log (exp sᵢₚ / Σ_{j≠i} exp sᵢⱼ),   loss = mean of ℓ over the rows of one view + mean over those of the other.

    Terms: ``contrast``. This loss is called NT-Xent.

    Source: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations (arXiv 2002.05709),
        equation 1 and algorithm 1; google-research/simclr at 383d414, objective.py and run.py.
    Convention: that of the released code, which adds the means of the two directions; the paper's is half of it, see
        ``convention``. All rows are negatives of all, those of the same view too; both views and all negatives get
        gradients. Unchanged by a positive scale of any row, by a rotation of all and by exchanging the views. Computed
        in float64 (float32 on devices without it): the gradient is a difference of directions, which may be nearly
        equal.
    Deviation: a row up to 1e-12 long has no direction; its similarities are 0 and it gets no gradient (the code scales
        rows below 1e-6 by 1e6). More than two views (not in the paper): the mean over all pairs, in each of which the
        negatives come from its two views.

    Args:
        temperature: (τ) above 0; the smaller, the more the most similar negatives count alone. 0.1 in the paper and in
            the code for ImageNet, 0.5 for CIFAR-10.
        convention: "code", as above, or "paper": the mean over all 2n rows, half of the code's.

    Raises:
        ValueError: hyper-parameters out of range; embeddings that are not aligned float matrices with n ≥ 2.

    Example:
        >>> z = torch.ones(8, 3)
        >>> round(SimCLR(convention="paper")(z, z)["contrast"].item(), 4)  # collapsed: log(2n - 1)
        2.7081
    """

    spreads_by: ClassVar[str] = "contrast"

    temperature: float = 0.1
    convention: Convention = "code"

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature)
        check_one_of(get_args(Convention), convention=self.convention)

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: the right one is one of 2n - 1. Floor: the views of an image are equal, and all other cosines are
        -1 / (n - 1), as low as all of n directions can have them."""
        directions_summed = 2 if self.convention == "code" else 1
        least = least_contrast(2 * rows - 2, -1 / (rows - 1), self.temperature)
        unrelated = contrast(2 * rows - 1, width, self.temperature)
        return Levels(directions_summed * unrelated, directions_summed * least)

    def __call__(self, *z: Embedding) -> Terms:
        with full_precision(z) as views:
            u = [directions(in_float64(view)) for view in views]
            within = [self._similarities(view, view).logsumexp(dim=1) for view in u]
            pairs = [self._pair(*a, *b) for a, b in combinations(zip(u, within, strict=True), 2)]
            share = 1 if self.convention == "code" else 1 / 2
            return {"contrast": (share * mean(pairs)).to(views[0].dtype)}

    def _pair(self, ua: Embedding, within_a: Tensor, ub: Embedding, within_b: Tensor) -> Scalar:
        """The two directions of a pair; `within` is the log-sum-exp of a row's similarities to its own view."""
        right = (ua * ub).sum(dim=1) / self.temperature
        across = self._similarities(ua, ub)
        forth = surprisal(right, torch.logaddexp(within_a, across.logsumexp(dim=1)))
        back = surprisal(right, torch.logaddexp(within_b, across.logsumexp(dim=0)))
        return forth.mean() + back.mean()

    def _similarities(self, ua: Embedding, ub: Embedding) -> Float[Tensor, "n n"]:
        """Without what is no negative: of a view and itself each row's own, of two views the other view's row."""
        return (ua / self.temperature @ ub.T).fill_diagonal_(-torch.inf)
