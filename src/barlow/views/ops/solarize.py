"""Solarisation."""

from dataclasses import dataclass

import numpy as np

from barlow.types import Images
from barlow.views.keys import Keys
from barlow.views.ops._op import Op, changed, check_probability

__all__ = ["Solarize"]


@dataclass(frozen=True)
class Solarize(Op):
    """Inverts the pixels from ``threshold`` (of 255) up, with probability ``p``.

    Source: Pillow's ``ImageOps.solarize`` as BYOL and Barlow Twins use it (threshold 128).
    """

    p: float
    threshold: float = 128

    def __post_init__(self) -> None:
        check_probability("solarize", self.p)
        if not 0 <= self.threshold <= 256:
            raise ValueError(f"solarize: got threshold={self.threshold}; give 0 to 256, in units of 1/255.")

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Whether each image is solarised."""
        return (keys.uniform(0) < self.p,)

    def apply(self, x: Images, solarized: np.ndarray) -> Images:
        """See the class."""
        return changed(x, solarized, self._invert)

    def _invert(self, x: Images) -> Images:
        # |x − above| is 1 − x for the pixels above the threshold and x for the others. Arithmetic, because `where`
        # takes ten times as long on a CPU.
        above = x.clone().ge_(self.threshold / 255)
        return x.sub_(above).abs_()
