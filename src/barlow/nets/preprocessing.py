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

from barlow.data.decoding import Array, ValueRange, decode
from barlow.data.resizing import resized
from barlow.data.stored import Stored, checked_range, pixels_of
from barlow.levels import white
from barlow.limits import SIDE
from barlow.size import Size, height_width, largest_inside, size_of

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

Picture = str | os.PathLike[str] | Image.Image | np.ndarray
"""One image: a path, a Pillow image (RGB or L), or (h, w, c): uint8, or any numbers where there is a range of them."""


@dataclass(frozen=True)
class Preprocessing:
    """One centre view: a central box of the image, resampled to `size`, in [0, 1], minus mean, over std.

    Convention: the box is the largest that has the aspect ratio of `size`, times `crop_ratio`, and its centre is the
    image's. Of a square `size` it is a square, whose side is `crop_ratio` times the image's shorter side. The box is
    resampled once, with antialiasing, from its exact (fractional) place. That is "resize the shorter side to size /
    crop_ratio, crop the centre" without the rounding in between.

    Args:
        size: of the input in pixels: the side of a square, or (height, width).
        crop_ratio: above 0, at most 1.
        interpolation: nearest, bilinear, bicubic or lanczos (Pillow's).
        mean, std: per channel, for pixels in [0, 1].
        channels: of the input.
        value_range: the numbers that are black and white, for images of more than 8 bits. Where there is none, images
            have 8 bits. `barlow.data.decoding` says how numbers become pixels.

    Raises:
        ValueError: one of them is out of range, or mean or std has another length than `channels`.
    """

    size: Size
    crop_ratio: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int
    value_range: ValueRange | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        object.__setattr__(self, "size", size_of(self.size, most=SIDE))
        if self.value_range is not None:
            object.__setattr__(self, "value_range", checked_range(self.value_range))
        if not 0 < self.crop_ratio <= 1:
            raise ValueError(f"crop_ratio {self.crop_ratio}: give a ratio in (0, 1]")
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
        size = self.size if isinstance(self.size, int) else list(self.size)
        ends = None if self.value_range is None else list(self.value_range)
        return asdict(self) | {"size": size, "mean": list(self.mean), "std": list(self.std), "value_range": ends}

    def __call__(self, pictures: Picture | Sequence[Picture]) -> Tensor:
        """The encoder's input for one image or several, always as a batch (n, channels, height, width).

        Paths are decoded as in training (`barlow.data.decoding`: orientation, CMYK, transparency, 16 bits).

        Raises:
            ValueError: an image has another number of channels, is not 8-bit where 8 bits are expected, or cannot be
                read.
        """
        several: Sequence[Any] = pictures if isinstance(pictures, list | tuple) else [pictures]
        crops = np.stack([self.centre(self._pixels(picture)) for picture in several])
        x = torch.from_numpy(crops).permute(0, 3, 1, 2).float().div(white(crops))
        return (x - torch.tensor(self.mean).view(-1, 1, 1)) / torch.tensor(self.std).view(-1, 1, 1)

    def centre(self, pixels: Array) -> Array:
        """The centre view of one (h, w, c) image before normalisation, (height, width, c), uint8 or uint16 as it is."""
        (height, width), (high, wide) = pixels.shape[:2], height_width(self.size)
        tall, long = (side * self.crop_ratio for side in largest_inside((height, width), (high, wide)))
        if (height, width) == (high, wide) == (tall, long):
            return pixels
        left, top = (width - long) / 2, (height - tall) / 2
        box = (left, top, left + long, top + tall)
        return resized(pixels, (high, wide), _FILTERS[self.interpolation], box)

    def _pixels(self, picture: Picture) -> Array:
        if isinstance(picture, str | os.PathLike):
            try:
                return decode(Path(picture).read_bytes(), channels=self.channels, value_range=self.value_range)
            except (OSError, ValueError) as error:
                raise ValueError(f"cannot read {os.fspath(picture)}: {error}") from error
        if isinstance(picture, Image.Image):
            deep = self.value_range is not None and (picture.mode in ("I", "F") or picture.mode.startswith("I;16"))
            if picture.mode not in ("RGB", "L") and not deep:
                raise ValueError(
                    f"a Pillow image of mode {picture.mode}: convert it to RGB or L, or give its path "
                    "(files are decoded as in training)"
                )
            upright = ImageOps.exif_transpose(picture)
            goal = upright.mode if deep else {1: "L", 3: "RGB"}.get(self.channels, upright.mode)
            array = np.asarray(upright.convert(goal))
        else:
            array = np.asarray(picture)
        given = array.shape
        if array.ndim == 2:
            array = array[:, :, None]
        if self.value_range is not None and array.ndim == 3 and array.dtype.kind in "uif" and array.size:
            return pixels_of(Stored(array, None), self.channels, self.value_range)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != self.channels or 0 in array.shape:
            kind = "type uint8" if self.value_range is None else "numbers"
            raise ValueError(
                f"an image of shape {given} and type {array.dtype}; "
                f"give (height, width, {self.channels}) of {kind}, a Pillow image or a path"
            )
        return array
