"""BYOL: a prediction made from one view should point where the target network puts the other view."""

from dataclasses import dataclass
from typing import ClassVar

from barlow.objectives._directions import prediction_error
from barlow.objectives._inputs import full_precision
from barlow.objectives._levels import Levels
from barlow.types import Embedding, Terms

__all__ = ["BYOL"]


@dataclass(frozen=True, kw_only=True)
class BYOL:
    """A prediction should point the same way as its target, which learns nothing from it.

    loss of a group = 2 · mean over rows of (2 - 2 cos(p, t)), t taken for a constant.

    A step has a group for each ordered pair of views: (prediction of view 1, target of view 2) and the other way round.
    The mean over these two groups is BYOL's loss, the sum of both directions, from 0 to 8.

    Terms: ``distance``.

    Source: Grill et al., Bootstrap Your Own Latent (arXiv 2006.07733), equation 2 and the text below it;
        google-deepmind/deepmind-research at 4822a45, byol/byol_experiment.py and byol/utils/helpers.py.
    Convention: a mean over rows, a sum over the two directions (hence the 2). No gradient reaches the target. Unchanged
        by a positive scale of any row. Computed in float64 (float32 on devices without it), which costs n × d.
    Deviation: a row up to 1e-12 long has no direction; its cosine is 0 and it gets no gradient (the code scales rows
        below 1e-6 by 1e6). More than two views (not in the paper): twice the mean over the ordered pairs of views, as
        htdt/self-supervised at d9662c8 has it.

    Raises:
        ValueError: embeddings that are not aligned float matrices.

    Example:
        >>> import torch
        >>> p, t = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, -1.0]])
        >>> BYOL()(p, t)["distance"].item()  # the first row agrees, the second is opposite: 2 · (0 + 4) / 2
        4.0
    """

    moving_target: ClassVar[bool] = True

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated directions are 2 apart in the mean, which counts twice."""
        return Levels(4.0, 0.0)

    def __call__(self, p: Embedding, t: Embedding) -> Terms:
        with full_precision((p, t), fewest=1) as (prediction, target):
            return {"distance": (2 * prediction_error(prediction, target)).to(prediction.dtype)}
