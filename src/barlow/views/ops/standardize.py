"""Each image brought to one mean and one spread, so that neither says anything."""

import math
from dataclasses import dataclass

import numpy as np

from barlow.types import Images
from barlow.views.keys import Keys
from barlow.views.ops._op import Op, changed, channel_means

__all__ = ["Standardize"]

FLAT = 1 / 255
"""A channel that varies by less (one level of 8 bits) is not spread further than this would be."""


@dataclass(frozen=True)
class Standardize(Op):
    """Gives each channel of an image the mean 0.5 and the standard deviation 1 / (2 · reach); draws nothing.

    On each tile of a view (`each_tile: true`) it takes away what would tell neighbours without a look at what they
    show: that they are about as bright, and of about one colour.

    Source: Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles (arXiv
        1603.09246), section 3.3: mean and standard deviation of each tile are normalised by themselves.
    Convention: as views are in [0, 1] until they are normalised, a value z standard deviations above its mean becomes
        0.5 + z / (2 · reach), and is clipped where it is more than `reach` of them away.

    Args:
        reach: standard deviations that fit into [0, 1] on either side of the mean, above 0.

    Raises:
        ValueError: a reach that is not above 0.
    """

    reach: float = 4.0

    def __post_init__(self) -> None:
        if not 0 < self.reach < math.inf:
            raise ValueError(f"standardize: got reach={self.reach}; give a number above 0.")

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Nothing."""
        return ()

    def apply(self, x: Images) -> Images:
        """See the class."""
        return changed(x, np.ones(len(x), bool), self._standardized)

    def _standardized(self, x: Images) -> Images:
        x = x.sub_(channel_means(x)[:, :, None, None])
        spread = channel_means(x.square())[:, :, None, None].sqrt_().clamp_(min=FLAT)
        return x.div_(spread.mul_(2.0 * self.reach)).add_(0.5).clamp_(0.0, 1.0)
