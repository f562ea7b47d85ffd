"""Mirroring."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from barlow.types import Images
from barlow.views.keys import Keys
from barlow.views.ops import _opencv
from barlow.views.ops._op import Op, changed, check_probability

__all__ = ["HorizontalFlip"]


@dataclass(frozen=True)
class HorizontalFlip(Op):
    """Mirrors an image left to right with probability ``p``."""

    p: float = 0.5

    geometric: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_probability("horizontal_flip", self.p)

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Whether each image is mirrored."""
        return (keys.uniform(0) < self.p,)

    def apply(self, x: Images, mirrored: np.ndarray) -> Images:
        """See the class."""
        return changed(x, mirrored, self._mirrored)

    @staticmethod
    def _mirrored(x: Images) -> Images:
        if not _opencv.interleaved(x):
            return x.flip(-1)
        _opencv.mirror(x)
        return x
