"""Rotation by quarter turns, which an objective can ask a network to predict."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Int64

from barlow.types import Images
from barlow.views.keys import Keys
from barlow.views.ops._op import Op, changed

__all__ = ["RandomRotate90"]


@dataclass(frozen=True)
class RandomRotate90(Op):
    """Turns a square image by k × 90° counter-clockwise, k uniform in {0, 1, 2, 3}; tells k as ``rotation``.

    Crop and flip come before it: the crop makes the image square, and a flip afterwards would turn k = 1 into k = 3.

    Source: Gidaris et al., Unsupervised Representation Learning by Predicting Image Rotations (arXiv 1803.07728),
        section 2.2; gidariss/FeatureLearningRotNet at edafaba, dataloader.py.
    Convention: the pixels are those of ``np.rot90(image, k)``. They are moved and never interpolated, and no corner is
        left black: either would give the rotation away to a network that has not looked at the image's content.
    Deviation: one rotation is drawn for each view; the paper puts all four of an image into the batch.

    Raises:
        ValueError: on images that are not square.
    """

    geometric: ClassVar[bool] = True
    square: ClassVar[bool] = True
    tells: ClassVar[str | None] = "rotation"

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """The number of quarter turns of each image."""
        return ((4 * keys.uniform(0)).astype(np.int64),)

    def told(self, turns: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
        """The number of quarter turns of each image, 0 to 3: the classes of a network that predicts rotations."""
        return turns

    def apply(self, x: Images, turns: Int64[np.ndarray, "n"]) -> Images:
        """See the class."""
        if x.shape[2] != x.shape[3]:
            raise ValueError(
                f"random_rotate90: got images of {x.shape[2]} × {x.shape[3]} pixels; give square ones: put the crop "
                "before the rotation."
            )
        for k in (1, 2, 3):
            x = changed(x, turns == k, partial(self._turned, k=k))
        return x

    @staticmethod
    def _turned(x: Images, k: int) -> Images:
        # Copied back, because a turned image would otherwise lie in memory column by column, and what ops do to a
        # single image in that layout could differ in its last bits from what they do to it in a batch.
        return x.copy_(torch.rot90(x, k, (2, 3)))
