"""Counting: what an encoder counts in the quarters of an image should sum to what it counts in the whole."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from barlow.linalg import Scalar
from barlow.objectives._inputs import check_non_negative, full_precision, in_float64, mean
from barlow.objectives._levels import Levels
from barlow.types import Embedding, Ids, Terms

__all__ = ["Counting"]


@dataclass(frozen=True, kw_only=True)
class Counting:
    """An image has as many things as its quarters have together, and another image has others.

    With w the embedding of an image at half its size, and s the sum of those of its quarters,

    loss = mean over rows x of ‖w_x - s_x‖² + mean over y of max(0, margin - ‖w_y - s_x‖²),

    where y goes over the rows of other images. Without the second term the encoder counts nothing: 0 = 0 + 0 + 0 + 0.

    Terms: ``distance`` and ``contrast``.

    Source: Noroozi, Pirsiavash, Favaro, Representation Learning by Learning to Count (arXiv 1708.06734), equation 4. No
        code of the authors; clvrai/Representation-Learning-by-Learning-to-Count at 1c52136 is a sketch by others.
    Convention: that of the paper. Squares are summed over the features, and the hinge is on the distance of whole
        vectors. (The sketch takes square and hinge of each feature by itself, and the mean over features: other terms,
        not only another factor.) A mean over rows. Rows of one image are no other image to each other, as their ids
        say, and the order of the rows does not matter. Gradients reach both embeddings. Unchanged by adding one vector
        to all embeddings, and, where no image is there twice, by exchanging w and s. Computed in float64 (float32 on
        devices without it).
    Deviation: y is every other image of the batch, and the mean over them is taken, where the paper draws one: this is
        what its draw gives in the mean, and nothing has to be drawn. More than two embeddings (not in the paper): the
        mean over the pairs of them, the earlier one for w.

    Args:
        margin: the squared distance from which on other images are far enough apart (M in the paper), 0 or more; 0
            takes the second term away.

    Raises:
        ValueError: a negative margin; embeddings that are not aligned float matrices with n ≥ 2; ids that are not one
            int64 for each row; a batch of one image alone.

    Example:
        >>> whole, quarters = torch.tensor([[1.0, 2.0], [2.0, 3.0]]), torch.tensor([[1.0, 2.0], [2.0, 3.0]])
        >>> terms = Counting()(whole, quarters, ids=torch.tensor([7, 3]))
        >>> {name: round(term.item(), 4) for name, term in terms.items()}  # it counts right; the two images are alike
        {'distance': 0.0, 'contrast': 8.0}
    """

    keeps: ClassVar[Mapping[str, str]] = {"margin": "spread"}

    margin: float = 10.0

    def __post_init__(self) -> None:
        check_non_negative(margin=self.margin)

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: a squared distance is twice a chi-square of so many degrees. Floor: right, and far apart."""
        near = self.margin * _below(width / 2, self.margin / 4) - 2 * width * _below(width / 2 + 1, self.margin / 4)
        return Levels(2 * width + near, 0.0)

    def __call__(self, *z: Embedding, ids: Ids) -> Terms:
        with full_precision(z) as views:
            dtype, others = views[0].dtype, _other_images(ids, views[0])
            # Distances stay as they are if all vectors are moved alike; near the origin they keep their digits.
            origin = in_float64(views[0]).detach().mean(dim=0)
            pairs = list(combinations([in_float64(view) - origin for view in views], 2))
            return {
                "distance": mean([(whole - summed).square().sum(dim=1).mean() for whole, summed in pairs]).to(dtype),
                "contrast": mean([self._contrast(whole, summed, others) for whole, summed in pairs]).to(dtype),
            }

    def _contrast(self, whole: Embedding, summed: Embedding, others: Bool[Tensor, "n n"]) -> Scalar:
        """The mean over rows x of that over other images y: how much nearer than the margin w_y is to s_x."""
        squares = summed.square().sum(dim=1)[:, None] + whole.square().sum(dim=1)
        missing = (self.margin - (squares - 2 * summed @ whole.T)).clamp(min=0)
        return (missing.where(others, 0).sum(dim=1) / others.sum(dim=1)).mean()


def _other_images(ids: Ids, rows: Embedding) -> Bool[Tensor, "n n"]:
    """Which rows y (columns) are of another image than x, for each x (a row of the matrix).

    Raises:
        ValueError: ids that are not one int64 for each row; a row for which there is none.
    """
    if ids.shape != rows.shape[:1] or ids.dtype != torch.int64:
        raise ValueError(
            f"ids is {ids.dtype} of shape {tuple(ids.shape)}: give one int64 for each of the {len(rows)} rows"
        )
    others = ids[:, None] != ids
    if not bool(others.any()):
        raise ValueError(
            f"all {len(rows)} rows are of image {int(ids[0])}, and each is compared with another image: use a batch of "
            "two images or more"
        )
    return others


def _below(a: float, x: float) -> float:
    """The regularised lower incomplete gamma function P(a, x), by its series."""
    if x == 0 or x > a + 12 * math.sqrt(a) + 100:  # next to 1
        return float(x > 0)
    term = total = math.exp(a * math.log(x) - x - math.lgamma(a + 1))
    while term > 1e-16 * total:
        a += 1
        term *= x / a
        total += term
    return total
