"""Supervised training with the images' labels: the reference that methods without labels are compared with."""

import math
from dataclasses import dataclass

from barlow.objectives._classification import Classes, Logits, cross_entropy
from barlow.objectives._levels import Levels
from barlow.types import Terms

__all__ = ["Supervised"]


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """A classifier should say which class each image is of. Its labels are the folders that the images lie in.

    loss = mean over rows of -log softmax(logits)_label.

    Terms: ``cross_entropy``, log(classes) where nothing is known.

    Source: He et al., Deep Residual Learning for Image Recognition (arXiv 1512.03385), section 3.4; pytorch/vision,
        references/classification.
    Convention: a mean over rows. Several views of an image are classified each on its own, and the mean is taken.
        Unchanged by adding a number to all logits of a row. Computed in float64 (float32 on devices without it).
    Deviation: none.

    Raises:
        ValueError: logits that are no (n, k) matrix of floats; labels that are not n integers from 0 to k - 1.

    Example:
        >>> import torch
        >>> logits, labels = torch.zeros(3, 4), torch.tensor([0, 1, 3])
        >>> round(Supervised()(logits, labels=labels)["cross_entropy"].item(), 4)  # log 4
        1.3863
    """

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: all classes are equally likely."""
        return Levels(math.log(width), 0.0)

    def __call__(self, logits: Logits, *, labels: Classes) -> Terms:
        return {"cross_entropy": cross_entropy(logits, labels, name="labels")}
