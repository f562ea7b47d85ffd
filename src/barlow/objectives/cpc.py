"""CPC: the patches of some rows of an image should be told from all other patches by what lies above them."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from barlow.objectives._classification import surprisal
from barlow.objectives._inputs import check_positive, few_in_float64, full_precision, in_float64
from barlow.objectives._levels import Levels
from barlow.types import Embedding, Terms

__all__ = ["CPC"]


@dataclass(frozen=True, kw_only=True)
class CPC:
    """A prediction should be more like the patch that it is of than like any other patch of any image of the batch.

    s_ij = scale · pᵢ · tⱼ, loss = mean over predictions i of -log (exp s_i,r(i) / Σ_j exp s_ij), where j runs over all
    patches of all images and r(i) is the one that is predicted.

    A row of p holds the predictions of an image, `width` numbers each, and a row of t all of its patches, in the same
    order: with k patches more than predictions, prediction i is of patch i + k. (Predictions of the patches in the rows
    below leave out the last rows; those of other directions are turned that way.)

    Terms: ``contrast``.

    Source: Hénaff et al., Data-Efficient Image Recognition with Contrastive Predictive Coding (arXiv 1905.09272),
        section 2 and appendix; there is no official code; Lightning-Universe/lightning-bolts at 34958a8,
        models/self_supervised/cpc.
    Convention: a mean over predictions, and the mean over the groups, which are the directions and the distances; the
        paper adds these up, so that its loss is as many times larger. Predictions and patches both get a gradient.
        Unchanged by adding a vector to all patches. Lengths count: nothing is normalised. Patches are centred in
        float64 (where the device has it); the products are in float32.
    Deviation: none in the formula. bolts weights each distance by its number, and so leaves out the first.

    Args:
        width: numbers of a prediction, and of a patch.
        scale: factor of the products, above 0.

    Raises:
        ValueError: hyper-parameters out of range; predictions and patches that are no aligned float matrices whose
            widths are multiples of `width`; more predictions than patches.

    Example:
        >>> p, t = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> round(CPC(width=2, scale=1.0)(p, t)["contrast"].item(), 4)  # log(1 + 1/e)
        0.3133
    """

    trains_targets: ClassVar[bool] = True

    width: int = 64
    scale: float = 0.1

    def __post_init__(self) -> None:
        check_positive(scale=self.scale)
        if self.width < 1:
            raise ValueError(f"width is {self.width}: give how many numbers a prediction has, such as 64")

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: not known, as the width of predictions does not say how many patches there are."""
        return Levels(None, 0.0)

    def __call__(self, p: Embedding, t: Embedding) -> Terms:
        with full_precision((p,), fewest=1) as (predictions,), full_precision((t,), fewest=1) as (patches,):
            (n, a), (rows, b) = predictions.shape, patches.shape
            if rows != n or a % self.width or b % self.width or a > b:
                raise ValueError(
                    f"predictions of shape {n} x {a} and patches of {rows} x {b}: give as many rows, which are not one "
                    f"shape but multiples of {self.width} wide, and no more predictions than patches"
                )
            count, there = a // self.width, b // self.width
            wide = torch.promote_types(predictions.dtype, patches.dtype)
            # A vector that is taken from all patches changes no loss, and without their mean the products have digits.
            predicting = few_in_float64(predictions.reshape(n * count, self.width).to(wide))
            centred = in_float64(patches.reshape(n * there, self.width))
            centred = (centred - centred.detach().mean(dim=0)).to(predicting.dtype)
            scores = self.scale * predicting @ centred.T
            right = (there * torch.arange(n)[:, None] + there - count + torch.arange(count)).to(scores.device)
            right = right.view(-1, 1)
            others = scores.scatter(1, right, -torch.inf).logsumexp(dim=1)
            return {"contrast": surprisal(scores.gather(1, right)[:, 0], others).mean().to(wide)}
