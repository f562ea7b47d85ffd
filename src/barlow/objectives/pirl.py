"""PIRL: an image and its shuffled tiles should both be told apart from other images, by the image's row in a bank."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from barlow.objectives._bank import Bank, Form, Telling, TellingApart, check, checked_group, levels
from barlow.objectives._directions import directions
from barlow.objectives._inputs import full_precision, in_float64
from barlow.objectives._levels import Levels
from barlow.types import Embedding, Ids, Terms

__all__ = ["PIRL"]


@dataclass(frozen=True, kw_only=True)
class PIRL:
    """An image's embedding and that of its tiles are each told apart by the image's row in a memory bank.

    loss = (1 - share) · NCE(image) + share · NCE(tiles), where NCE is that of NPID; both are against the bank, never
    against each other. Then the bank takes the image's embedding alone:
    row ← direction of momentum · row + (1 - momentum) · x.

    Terms: ``image`` and ``tiles``.

    Source: Misra and van der Maaten, Self-Supervised Learning of Pretext-Invariant Representations (arXiv 1912.01991),
        equations 3-5; facebookresearch/vissl at 09270ed, losses/nce_loss.py; for the cross-entropy
        HobbitLong/PyContrast at 84f94ea.
    Convention: that of `NPID`: a mean over the rows, a sum over the negatives, a constant Z of the first batch, here of
        its images. Rows start as random directions.
    Deviation: image and tiles have the same negatives, as in PyContrast; VISSL draws them for each. VISSL's rows start
        as means over its processes of random directions, which are shorter. A row up to 1e-12 long has no direction;
        its scores are 0 and it gets no gradient.

    Args:
        negatives: (k) images that are drawn for each image and step; 0: all others.
        temperature: (τ) above 0: 0.07, and 0.1 in the form with the cross-entropy and a larger head.
        form: nce or cross_entropy: what is made of the scores.
        momentum: share of a row that a step leaves as it was, in [0, 1).
        share: (λ) of the tiles in the loss, from 0 to 1.

    Raises:
        ValueError: hyper-parameters out of range; more than one group, or not two embeddings in it; embeddings of
            another width than the bank was built for; ids that are not one for each row, below the number of images.

    Example:
        >>> objective = PIRL(negatives=2).build(width=2, images=4, seed=0)
        >>> z = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
        >>> terms = objective([(z, z)], ids=torch.tensor([2, 0]))
        >>> bool(terms["image"] == terms["tiles"])
        True
    """

    moving_target: ClassVar[bool] = True

    negatives: int = 32000
    temperature: float = 0.07
    form: Form = "nce"
    momentum: float = 0.5
    share: float = 0.5

    def __post_init__(self) -> None:
        check(self)
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}: give that of the tiles in the loss, from 0 to 1")

    def levels(self, rows: int, width: int, *, images: int | None = None) -> Levels:
        """That of one comparison: the shares add up to 1."""
        return levels(self, width, images)

    def build(self, *, width: int, images: int, seed: int) -> "ImagesAndTiles":
        """The bank, for embeddings of `width` features and so many images."""
        random = torch.randn(images, width, generator=torch.Generator().manual_seed(seed))
        return ImagesAndTiles(self, Bank(directions(random)), self.share, seed)


class ImagesAndTiles(TellingApart):
    """PIRL's loss with its bank, `bank.rows`, a row for each image by its id."""

    def __init__(self, how: Telling, bank: Bank, share: float, seed: int) -> None:
        super().__init__(how, seed)
        self.bank, self.share = bank, share

    def forward(self, groups: list[tuple[Embedding, ...]], *, ids: Ids) -> Terms:
        group = checked_group(groups, [self.bank], ids, name="PIRL", views=2, give="[(image, tiles)]")
        with full_precision(group) as views:
            image, tiles = (directions(in_float64(z)) for z in views)
            negatives = self.negatives(ids, len(self.bank.rows))
            constant = self.constant(self.bank, image, ids, negatives)
            of_image, of_tiles = (
                self.bank.surprise(u, ids, negatives, self.how, constant).mean() for u in (image, tiles)
            )
            losses = {"image": (1 - self.share) * of_image, "tiles": self.share * of_tiles}
            terms = {name: loss.to(views[0].dtype) for name, loss in losses.items()}
            self.finish([(self.bank, image, constant)], ids)
            return terms
