"""Normalisation, the last step of every view."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from barlow.types import Images
from barlow.views.keys import Keys
from barlow.views.ops import _opencv
from barlow.views.ops._op import Op

__all__ = ["Normalize"]


@dataclass(frozen=True)
class Normalize(Op):
    """Subtracts the mean of each channel and divides by its standard deviation; draws nothing.

    Args:
        mean: per channel, of images in [0, 1].
        std: per channel, above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        mean, std = tuple(float(m) for m in self.mean), tuple(float(s) for s in self.std)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)
        if len(mean) != len(std) or not mean:
            raise ValueError(f"normalize: got {len(mean)} means and {len(std)} stds; give one of each per channel.")
        if not all(0 < s < math.inf for s in std) or not all(math.isfinite(m) for m in mean):
            raise ValueError(f"normalize: got mean={mean}, std={std}; give finite means and finite stds above 0.")

    def __call__(self, x: Images, keys: Keys | None = None) -> Images:
        """See the class."""
        return self.apply(x.clone())

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Nothing."""
        return ()

    def apply(self, x: Images, *, out: Images | None = None) -> Images:  # type: ignore[override]
        """See the class.

        Args:
            x: changed in place, or, if ``out`` is given, left with nothing of use.
            out: planar memory for the result.
        """
        if x.shape[1] != len(self.mean):
            raise ValueError(
                f"normalize: got images of {x.shape[1]} channels and means of {len(self.mean)}; give one mean and std "
                "per channel."
            )
        if not _opencv.interleaved(x):
            mean, std = (_by_channel(values, 0, x.dtype, x.device) for values in (self.mean, self.std))
            return torch.div(x.sub_(mean), std, out=x if out is None else out)
        # Line by line as they lie in memory: arithmetic over three numbers at a time would crawl.
        mean, std = (_by_channel(values, x.shape[3], x.dtype, x.device) for values in (self.mean, self.std))
        x.permute(0, 2, 3, 1).flatten(2).sub_(mean).div_(std)
        if out is None:
            return x
        _opencv.split_channels(x, out)
        return out


# The pipeline works in inference mode. A tensor that is kept from call to call must not be made there, because callers
# outside of it could not use it.
@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _by_channel(values: tuple[float, ...], width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number for each channel, as a column; with a width, repeated for each of the pixels of a line."""
    column = torch.tensor(values, dtype=dtype, device=device)
    return column.repeat(width) if width else column.view(-1, 1, 1)
