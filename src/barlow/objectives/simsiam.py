"""SimSiam: a prediction made from one view should point where the same network puts the other view."""

from dataclasses import dataclass
from typing import ClassVar

from barlow.objectives._directions import prediction_error
from barlow.objectives._inputs import full_precision
from barlow.objectives._levels import Levels
from barlow.types import Embedding, Terms

__all__ = ["SimSiam"]


@dataclass(frozen=True, kw_only=True)
class SimSiam:
    """A prediction should point the same way as its target, which learns nothing from it.

    loss of a group = - mean over rows of cos(p, t), t taken for a constant.

    A step has a group for each ordered pair of views: (prediction of view 1, embedding of view 2) and the other way
    round. The mean over these two groups is SimSiam's loss, half the sum of both directions, from -1 to 1. A loss of -1
    says nothing: networks that have collapsed reach it, too. Look at the spread of the embeddings.

    It is BYOL's loss in another measure, BYOL = 4 + 4 · SimSiam. The gradient is a quarter of BYOL's, which matters to
    SGD and hardly to Adam. What makes the method is the networks: `momentum: null` of the method distillation.

    Terms: ``negative_cosine``.

    Source: Chen and He, Exploring Simple Siamese Representation Learning (arXiv 2011.10566), equations 1 to 4;
        facebookresearch/simsiam at a7bc177, main_simsiam.py.
    Convention: a mean over rows, a mean over the two directions. No gradient reaches the target. Unchanged by a
        positive scale of any row. Computed in float64 (float32 on devices without it), which costs n × d, as half the
        squared distance of the two directions less 1: a cosine near 1 keeps its digits.
    Deviation: a row up to 1e-12 long has no direction; its cosine is 0 and it gets no gradient (the code divides by
        lengths of at least 1e-8). More than two views (not in the paper): the mean over the ordered pairs of views.

    Raises:
        ValueError: embeddings that are not aligned float matrices.

    Example:
        >>> import torch
        >>> p, t = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [4.0, 3.0]])
        >>> round(SimSiam()(p, t)["negative_cosine"].item(), 6)  # the first row agrees; the second has a cosine of 0.6
        -0.8
    """

    moving_target: ClassVar[bool] = True

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated directions have a cosine of 0 in the mean."""
        return Levels(0.0, -1.0)

    def __call__(self, p: Embedding, t: Embedding) -> Terms:
        with full_precision((p, t), fewest=1) as (prediction, target):
            return {"negative_cosine": (prediction_error(prediction, target) / 2 - 1).to(prediction.dtype)}
