"""NPID: an image should be told apart from all others, by a memory bank of their last embeddings."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from barlow.objectives._bank import Bank, Form, Telling, TellingApart, check, checked_group, levels, uniform_rows
from barlow.objectives._directions import directions
from barlow.objectives._inputs import full_precision, in_float64, mean
from barlow.objectives._levels import Levels
from barlow.types import Embedding, Ids, Terms

__all__ = ["NPID"]


@dataclass(frozen=True, kw_only=True)
class NPID:
    """Each image is a class of its own, whose prototype is its row in a bank: a mean of its earlier embeddings.

    x = z / ‖z‖, Pⱼ = exp(x · mⱼ / temperature) / Z, where m₀ is the image's own row and mⱼ, j = 1 … k, are those of
    k images that are drawn; c = k / N of N images;
    loss = mean over rows of -log(P₀ / (P₀ + c + ε)) - Σⱼ log(c / (Pⱼ + c + ε)), which is noise-contrastive
    estimation. With ``form: cross_entropy`` it is -log(P₀ / Σⱼ Pⱼ) over the same rows, and with ``negatives: 0`` the
    same over all N rows, the full softmax.

    Then each row becomes the direction of momentum · m + (1 - momentum) · x.

    Terms: ``instances``.

    Source: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination (arXiv 1805.01978),
        equations 2-8; zhirongw/lemniscate.pytorch at f7cfe29, lib/NCEAverage.py, lib/NCECriterion.py and
        lib/LinearAverage.py.
    Convention: a mean over the rows, a sum over the negatives: at the start about log k + 1. Z is the mean of
        exp(x · mⱼ / temperature) over the first batch and its draws, times N, and then stays; it is a constant, and
        saved. ε = 1e-7. The rows start uniform in ±√(3 / width), of length 1 only nearly, as in the released code.
        Negatives are drawn with replacement from all images, the image itself among them, by (seed, step, id). All are
        scored against the rows as the step before has left them. Computed in float64 (float32 on devices without it);
        the bank is kept in float32. Several views, if there are, are each told apart; the loss is their mean, and a row
        moves towards the mean of their directions.
        Images that no batch has had yet keep their first rows, and are drawn as negatives all the same. So are images
        that cannot be read. One that stands in for such is written under its own id. An image that a batch has twice
        has its row moved once, towards the mean of both embeddings.
    Deviation: none of the released code. The paper's proximal term is not in that code, and not here. A row up to 1e-12
        long has no direction; its scores are 0 and it gets no gradient.

    Args:
        negatives: (k) images that are drawn for each image and step; 0: all others.
        temperature: (τ) above 0.
        form: nce or cross_entropy: what is made of the scores.
        momentum: share of a row that a step leaves as it was, in [0, 1).

    Raises:
        ValueError: hyper-parameters out of range; more than one group; embeddings of another width than the bank was
            built for; ids that are not one for each row, below the number of images.

    Example:
        >>> objective = NPID(negatives=0, temperature=0.1).build(width=2, images=4, seed=0)
        >>> z = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
        >>> terms = objective([(z,)], ids=torch.tensor([2, 0]))
        >>> terms["instances"].item() > 0
        True
        >>> objective.bank.rows[2].norm().item()  # doctest: +ELLIPSIS
        1.0...
    """

    moving_target: ClassVar[bool] = True

    negatives: int = 4096
    temperature: float = 0.07
    form: Form = "nce"
    momentum: float = 0.5

    def __post_init__(self) -> None:
        check(self)

    def levels(self, rows: int, width: int, *, images: int | None = None) -> Levels:
        """Of one view; without the number of images nothing is known of the full softmax."""
        return levels(self, width, images)

    def build(self, *, width: int, images: int, seed: int) -> "Instances":
        """The bank, for embeddings of `width` features and so many images."""
        generator = torch.Generator().manual_seed(seed)
        return Instances(self, Bank(uniform_rows(images, width, generator)), seed)


class Instances(TellingApart):
    """NPID's loss with its bank, `bank.rows`, a row for each image by its id."""

    def __init__(self, how: Telling, bank: Bank, seed: int) -> None:
        super().__init__(how, seed)
        self.bank = bank

    def forward(self, groups: list[tuple[Embedding, ...]], *, ids: Ids) -> Terms:
        group = checked_group(groups, [self.bank], ids, name="NPID", views=None, give="[(z,)]")
        with full_precision(group, fewest=1) as views:
            u = [directions(in_float64(z)) for z in views]
            negatives = self.negatives(ids, len(self.bank.rows))
            constant = self.constant(self.bank, u[0], ids, negatives)
            losses = [self.bank.surprise(x, ids, negatives, self.how, constant).mean() for x in u]
            terms = {"instances": mean(losses).to(views[0].dtype)}
            self.finish([(self.bank, torch.stack(u).mean(dim=0), constant)], ids)
            return terms
