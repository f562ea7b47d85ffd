"""Context prediction: on which side of the middle patch of an image does the other patch lie?"""

import math
from dataclasses import dataclass

from barlow.objectives._classification import Classes, Logits, cross_entropy
from barlow.objectives._levels import Levels
from barlow.types import Terms

__all__ = ["ContextPrediction"]

NEIGHBOURS = 8


@dataclass(frozen=True, kw_only=True)
class ContextPrediction:
    """A classifier should tell from two patches of an image which of eight neighbours of the first the second is.

    loss = mean over rows of -log softmax(logits)_position.

    Terms: ``cross_entropy``, log 8 where all are equally likely.

    Source: Doersch et al., Unsupervised Visual Representation Learning by Context Prediction (arXiv 1505.05192),
        section 3; cdoersch/deepcontext at 5307282.
    Convention: class 0 is above on the left, 1 above, 2 above on the right, 3 on the left, 4 on the right, and 5 to 7
        below. A mean over rows. Unchanged by adding a number to all logits of a row. Computed in float64 (float32 on
        devices without it).
    Deviation: none in the formula; that an image gives one pair a step is the op's (`patch_pair`).

    Raises:
        ValueError: logits that are no (n, 8) matrix of floats; positions that are not n integers from 0 to 7.

    Example:
        >>> import torch
        >>> logits, position = torch.zeros(3, 8), torch.tensor([0, 4, 7])
        >>> round(ContextPrediction()(logits, position=position)["cross_entropy"].item(), 4)  # log 8
        2.0794
    """

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: all eight are equally likely."""
        return Levels(math.log(width), 0.0)

    def __call__(self, logits: Logits, *, position: Classes) -> Terms:
        return {"cross_entropy": cross_entropy(logits, position, name="position", width=NEIGHBOURS)}
