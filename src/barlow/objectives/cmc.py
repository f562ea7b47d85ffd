"""CMC: what one half of an image looks like should tell which image the other half is of, by two memory banks."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from barlow.objectives._bank import Bank, Form, Telling, TellingApart, check, checked_group, levels, uniform_rows
from barlow.objectives._directions import directions
from barlow.objectives._inputs import full_precision, in_float64
from barlow.objectives._levels import Levels
from barlow.types import Embedding, Ids, Terms

__all__ = ["CMC"]


@dataclass(frozen=True, kw_only=True)
class CMC:
    """Two embeddings of an image, of its lightness and of its colour, are each told apart by the other's bank.

    loss = NCE(lightness | bank of colours) + NCE(colour | bank of lightnesses), where NCE is that of NPID: a row for
    each image, k negatives, and a constant Z for each of the two.

    Then each bank takes the step's embeddings of its own half: row ← direction of momentum · row + (1 - momentum) · x.

    Terms: ``lightness`` and ``colour``, after what is told apart.

    Source: Tian et al., Contrastive Multiview Coding (arXiv 1906.05849), equations 3-7; HobbitLong/CMC at 7b227be,
        NCE/NCEAverage.py and NCE/NCECriterion.py.
    Convention: that of `NPID`, twice: means over the rows, a sum over the negatives and over both directions. Both
        directions have the same negatives. Rows start uniform in ±√(3 / width).
    Deviation: a row up to 1e-12 long has no direction; its scores are 0 and it gets no gradient.

    Args:
        negatives: (k) images that are drawn for each image and step; 0: all others. The authors' released weights are
            of 4,096, the default of their script is 16,384.
        temperature: (τ) above 0.
        form: nce or cross_entropy: what is made of the scores.
        momentum: share of a row that a step leaves as it was, in [0, 1).

    Raises:
        ValueError: hyper-parameters out of range; more than one group, or not two embeddings in it; embeddings of
            another width than the banks were built for; ids that are not one for each row, below the number of images.

    Example:
        >>> objective = CMC(negatives=2).build(width=2, images=4, seed=0)
        >>> z = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
        >>> sorted(objective([(z, z)], ids=torch.tensor([2, 0])))
        ['colour', 'lightness']
    """

    moving_target: ClassVar[bool] = True

    negatives: int = 16384
    temperature: float = 0.07
    form: Form = "nce"
    momentum: float = 0.5

    def __post_init__(self) -> None:
        check(self)

    def levels(self, rows: int, width: int, *, images: int | None = None) -> Levels:
        """Twice that of one comparison."""
        one = levels(self, width, images)
        return Levels(*(None if level is None else 2 * level for level in (one.unrelated, one.floor)))

    def build(self, *, width: int, images: int, seed: int) -> "TwoBanks":
        """Both banks, for embeddings of `width` features and so many images."""
        generator = torch.Generator().manual_seed(seed)
        lightness, colour = (Bank(uniform_rows(images, width, generator)) for _ in range(2))
        return TwoBanks(self, lightness, colour, seed)


class TwoBanks(TellingApart):
    """CMC's loss with its banks, `lightness.rows` and `colour.rows`.

    The constant that a bank has is that of the scores against its own rows.
    """

    def __init__(self, how: Telling, lightness: Bank, colour: Bank, seed: int) -> None:
        super().__init__(how, seed)
        self.lightness, self.colour = lightness, colour

    def forward(self, groups: list[tuple[Embedding, ...]], *, ids: Ids) -> Terms:
        banks = [self.lightness, self.colour]
        group = checked_group(groups, banks, ids, name="CMC", views=2, give="[(lightness, colour)]")
        with full_precision(group) as views:
            lightness, colour = (directions(in_float64(z)) for z in views)
            negatives = self.negatives(ids, len(self.colour.rows))
            of_colours = self.constant(self.colour, lightness, ids, negatives)
            of_lightnesses = self.constant(self.lightness, colour, ids, negatives)
            losses = {
                "lightness": self.colour.surprise(lightness, ids, negatives, self.how, of_colours),
                "colour": self.lightness.surprise(colour, ids, negatives, self.how, of_lightnesses),
            }
            terms = {name: loss.mean().to(views[0].dtype) for name, loss in losses.items()}
            self.finish([(self.lightness, lightness, of_lightnesses), (self.colour, colour, of_colours)], ids)
            return terms
