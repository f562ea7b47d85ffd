"""Patches of a crop, which overlap."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from barlow.views.keys import Keys
from barlow.views.ops.crop import RandomResizedCrop

__all__ = ["PatchOfCrop"]


@dataclass(frozen=True)
class PatchOfCrop(RandomResizedCrop):
    """Cuts one of a grid of overlapping patches out of a random resized crop.

    The crop is that of `RandomResizedCrop`, as if it were resized to a square of ``whole`` pixels. In it, each patch of
    the grid has room for an offset of up to ``jitter`` pixels in either direction. Which patch it is and the offset are
    drawn.

    Source: the patches of OBoW (Gidaris et al., arXiv 2012.11552, section 3.3): 96 pixels out of 256, three by three,
        with offsets of up to 24.
    Convention: the box of the patch is cut out of the image and resized once, in whole pixels of the image; it is not
        resized with the crop and cut out then.
    Deviation: the authors take five of the nine patches of one crop. Here a view has one patch of a crop of its own, so
        two views may have the same place.

    Args:
        size: side of the patch in pixels.
        scale: smallest and largest part of the image's area that the crop has.
        ratio: smallest and largest width / height of the crop.
        interpolation: only "bicubic".
        whole: side of the crop in pixels.
        grid: patches in a row, and in a column.
        jitter: largest offset of a patch in pixels.
    """

    size: int = 96
    scale: tuple[float, float] = (0.6, 1.0)
    whole: int = 256
    grid: int = 3
    jitter: int = 24

    PATCH: ClassVar[int] = 4  # draws of the patch's place: its row and column, and its offsets

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.size, int):
            raise ValueError(f"patch_of_crop: got size={self.size}; a patch is a square: give its side.")
        if self.grid < 1 or self.jitter < 0 or self.size + self.jitter > self.whole:
            raise ValueError(
                f"patch_of_crop: got size={self.size}, jitter={self.jitter}, grid={self.grid} in a crop of "
                f"{self.whole}; give 1 or more patches in a row, and a crop with room for a patch and its jitter."
            )

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Uniform numbers for each image: the patch's place in the crop, then all of the crop."""
        return (keys.uniforms(0, self.PATCH + 2 * self.ATTEMPTS + 2).T,)

    def shapes(self, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the crop, for every attempt of every image: its share of the area, and its width / height."""
        return super().shapes(uniforms[:, self.PATCH :])

    def boxes_of(self, heights: np.ndarray, widths: np.ndarray, uniforms: np.ndarray) -> Int64[np.ndarray, "n 4"]:
        """The box of each patch, in whole pixels of the image."""
        crops = super().boxes_of(heights, widths, uniforms)
        cells = np.minimum(np.floor(uniforms[:, :2] * self.grid), self.grid - 1)
        offsets = np.minimum(np.floor(uniforms[:, 2:4] * (self.jitter + 1)), self.jitter)
        apart = (self.whole - self.size - self.jitter) // max(self.grid - 1, 1)
        corners, sides = crops[:, :2], crops[:, 2:]
        patches = np.maximum(np.rint(sides * self.size / self.whole), 1)
        places = np.minimum(np.rint(sides * (cells * apart + offsets) / self.whole), sides - patches)
        return np.concatenate([corners + places, patches], axis=1).astype(np.int64)

    def box_of_one(
        self, height: int, width: int, shares: object, ratios: object, uniforms: np.ndarray
    ) -> tuple[int, int, int, int]:
        """The same box as from ``boxes_of``, for one image."""
        top, left, h, w = self.boxes_of(np.array([height]), np.array([width]), uniforms[None])[0].tolist()
        return top, left, h, w
