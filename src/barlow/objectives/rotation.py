"""Rotation: by how many quarter turns was the image rotated?"""

import math
from dataclasses import dataclass

from barlow.objectives._classification import Classes, Logits, cross_entropy
from barlow.objectives._levels import Levels
from barlow.types import Terms

__all__ = ["Rotation"]

QUARTER_TURNS = 4


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """A classifier should tell by how many quarter turns each image was rotated: by 0, 90, 180 or 270 degrees.

    loss = mean over rows of -log softmax(logits)_rotation.

    Terms: ``cross_entropy``, log 4 where all four are equally likely.

    Source: Gidaris et al., Unsupervised Representation Learning by Predicting Image Rotations (arXiv 1803.07728),
        equations 2-3; gidariss/FeatureLearningRotNet at edafaba.
    Convention: class k is k quarter turns counter-clockwise, as numpy.rot90 turns. A mean over all rows: where each
        image comes in all four rotations, as in the paper, over 4n. Unchanged by adding a number to all logits of a
        row. Computed in float64 (float32 on devices without it).
    Deviation: none in the formula; whether an image comes in one rotation a step or in all four is up to the views.

    Raises:
        ValueError: logits that are no (n, 4) matrix of floats; rotations that are not n integers from 0 to 3.

    Example:
        >>> import torch
        >>> logits, rotation = torch.zeros(3, 4), torch.tensor([0, 1, 3])
        >>> round(Rotation()(logits, rotation=rotation)["cross_entropy"].item(), 4)  # log 4
        1.3863
    """

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: all four are equally likely."""
        return Levels(math.log(width), 0.0)

    def __call__(self, logits: Logits, *, rotation: Classes) -> Terms:
        return {"cross_entropy": cross_entropy(logits, rotation, name="rotation", width=QUARTER_TURNS)}
