"""One colour of three is kept, so that what lenses do to the others says nothing."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from barlow.types import Images
from barlow.views.keys import Keys
from barlow.views.ops._op import Op, changed, check_probability
from barlow.views.ops.channels import ChannelDropout

__all__ = ["ColorDropping"]

BITS = 32
"""Of the hash that noise is made of. It is computed in integers of 64 bits, which hold a product of two such."""


@dataclass(frozen=True)
class ColorDropping(Op):
    """With probability ``p`` keeps one of three channels, which is drawn, and puts faint noise into the two others.

    A lens bends colours differently towards its edges, so a network could tell from the fringes of a patch where in the
    image it lay. Images without three channels stay as they are.

    Source: Doersch et al., Unsupervised Visual Representation Learning by Context Prediction (arXiv 1505.05192),
        section 3.1; cdoersch/deepcontext at 5307282: noise uniform within half a level of 255 each way.
    Deviation: the noise is about mid-grey; the code's is about 0 after the mean of all images is subtracted.

    Args:
        p: probability that an image loses two channels.
        noise: how far it reaches each way, in levels of 255.

    Raises:
        ValueError: no probability; a noise that is negative or reaches beyond [0, 1].
    """

    p: float = 1.0
    noise: float = 0.5

    channelwise: ClassVar[bool] = False

    def for_channels(self, channels: int) -> Op:
        """Two of three channels are lost, as here, without noise in their place. Of two it is one."""
        return self if channels in (1, 3) else ChannelDropout(channels, self.p, 2 / 3)

    def __post_init__(self) -> None:
        check_probability("color_dropping", self.p)
        if not 0 <= self.noise <= 127.5:
            raise ValueError(f"color_dropping: got noise={self.noise}; give 0 to 127.5, in units of 1/255.")

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Whether each image loses two channels, which one it keeps, and the number that its noise is made of."""
        u = keys.uniforms(0, 3)
        return u[0] < self.p, (3 * u[1]).astype(np.int64), (2**BITS * u[2]).astype(np.int64)

    def apply(self, x: Images, applies: np.ndarray, kept: np.ndarray, seeds: np.ndarray) -> Images:
        """See the class."""
        if x.shape[1] != 3:
            return x
        keeps = torch.from_numpy(np.arange(3) == kept[:, None]).to(x.device)[:, :, None, None]
        return changed(x, applies, self._dropped, keeps, torch.from_numpy(seeds).to(x.device))

    def _dropped(self, x: Images, keeps: Tensor, seeds: Int64[Tensor, "n"]) -> Images:
        noise = _uniform(seeds, math.prod(x.shape[1:])).view(x.shape).to(x.dtype)
        return x.copy_(torch.where(keeps, x, 0.5 + (2.0 * noise - 1.0) * (self.noise / 255)))


def _uniform(seeds: Int64[Tensor, "n"], count: int) -> Float[Tensor, "n {count}"]:
    """So many numbers in [0, 1) for each seed: the same on every device, and whatever else is in the batch.

    Source: the finaliser of MurmurHash3 (Appleby), for 32 bits, twice.
    """
    words = seeds[:, None] + torch.arange(count, device=seeds.device) * 0x9E3779B9
    for _ in range(2):
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
            words = words & (2**BITS - 1)
            words = (words ^ (words >> shift)) * factor
    return (words & (2**24 - 1)).to(torch.float32) * 2.0**-24
