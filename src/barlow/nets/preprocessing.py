"""What an encoder expects of an image: part of the encoder, saved with it."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from barlow.data.decoding import decode

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

Picture = str | os.PathLike[str] | Image.Image | np.ndarray
"""One image: a path, a Pillow image (RGB or L), or (h, w, c) uint8."""


@dataclass(frozen=True)
class Preprocessing:
    """One centre view: the central square of the image, resampled to `size`, in [0, 1], minus mean, over std.

    Convention: the square's side is `crop_ratio` times the shorter side, its centre the image's; it is resampled once,
    with antialiasing, from its exact (fractional) place. That is "resize the shorter side to size / crop_ratio, crop
    the centre" without the rounding in between.

    Args:
        size: side of the input in pixels.
        crop_ratio: above 0, at most 1.
        interpolation: nearest, bilinear, bicubic or lanczos (Pillow's).
        mean, std: per channel, for pixels in [0, 1].
        channels: of the input.

    Raises:
        ValueError: one of them is out of range, or mean or std has another length than `channels`.
    """

    size: int
    crop_ratio: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        if self.size < 1 or not 0 < self.crop_ratio <= 1:
            raise ValueError(
                f"size {self.size} and crop_ratio {self.crop_ratio}: give a size of at least 1, a ratio in (0, 1]"
            )
        if self.interpolation not in _FILTERS:
            raise ValueError(f"unknown interpolation {self.interpolation!r}; allowed: {', '.join(_FILTERS)}")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(
                f"{len(self.mean)} means and {len(self.std)} standard deviations for {self.channels} channels; "
                "give one of each per channel"
            )
        if min(self.std) <= 0:
            raise ValueError(f"standard deviations {self.std} must be positive")

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `Preprocessing(**content)` is the way back."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    def __call__(self, pictures: Picture | Sequence[Picture]) -> Tensor:
        """The encoder's input for one image or several, always as a batch (n, channels, size, size).

        Paths are decoded as in training (`barlow.data.decoding`: orientation, CMYK, transparency, 16 bits).

        Raises:
            ValueError: an image has another number of channels, is not 8-bit, or cannot be read.
        """
        several: Sequence[Any] = pictures if isinstance(pictures, list | tuple) else [pictures]
        crops = np.stack([self.centre(self._pixels(picture)) for picture in several])
        x = torch.from_numpy(crops).permute(0, 3, 1, 2).float().div(255)
        return (x - torch.tensor(self.mean).view(-1, 1, 1)) / torch.tensor(self.std).view(-1, 1, 1)

    def centre(self, pixels: np.ndarray) -> np.ndarray:
        """The centre view of one (h, w, c) uint8 image before normalisation: (size, size, c) uint8."""
        height, width = pixels.shape[:2]
        side = min(height, width) * self.crop_ratio
        if height == width == self.size == side:
            return pixels
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        # Channel by channel: any number of them, and Pillow resamples them independently anyway.
        planes = [
            np.asarray(
                Image.fromarray(np.ascontiguousarray(pixels[:, :, c])).resize(
                    (self.size,) * 2, _FILTERS[self.interpolation], box
                )
            )
            for c in range(pixels.shape[2])
        ]
        return np.stack(planes, axis=2)

    def _pixels(self, picture: Picture) -> np.ndarray:
        if isinstance(picture, str | os.PathLike):
            try:
                return decode(Path(picture).read_bytes(), channels=self.channels)
            except (OSError, ValueError) as error:
                raise ValueError(f"cannot read {os.fspath(picture)}: {error}") from error
        if isinstance(picture, Image.Image):
            if picture.mode not in ("RGB", "L"):
                raise ValueError(
                    f"a Pillow image of mode {picture.mode}: convert it to RGB or L, or give its path "
                    "(files are decoded as in training)"
                )
            upright = ImageOps.exif_transpose(picture)
            array = np.asarray(upright.convert({1: "L", 3: "RGB"}.get(self.channels, upright.mode)))
        else:
            array = np.asarray(picture)
        if array.ndim == 2:
            array = array[:, :, None]
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != self.channels or 0 in array.shape:
            raise ValueError(
                f"an image of shape {array.shape} and type {array.dtype}; "
                f"give (height, width, {self.channels}) of type uint8, a Pillow image or a path"
            )
        return array
