"""The 313 colours between which colorization chooses, codes of a colour by the nearest of them, and their weights."""

import math
from functools import lru_cache

import torch
from jaxtyping import Float, Int64
from torch import Tensor

RANGES = {
    -90: (50, 90),
    -80: (20, 90),
    -70: (0, 90),
    -60: (-20, 90),
    -50: (-30, 100),
    -40: (-40, 100),
    -30: (-50, 100),
    -20: (-50, 100),
    -10: (-60, 100),
    0: (-70, 100),
    10: (-80, 90),
    20: (-80, 90),
    30: (-90, 90),
    40: (-100, 90),
    50: (-100, 80),
    60: (-110, 80),
    70: (-110, 80),
    80: (-110, 70),
    90: (-110, 70),
    100: (-90, 0),
}
"""For each a, the first and the last b. Source: foamliu/Colorful-Image-Colorization at f498f5d, a copy of the authors'
list; no simple rule of the gamut gives it."""

SPACING = 10

BINS = tuple((a, b) for a, (first, last) in RANGES.items() for b in range(first, last + 1, SPACING))
"""The a and b of each bin."""

NEAREST = 10
"""Bins that a colour's code is spread over."""

SIGMA = 5.0
"""Of the Gaussian by which it is spread, in units of a and b. Source of both: Zhang et al. (arXiv 1603.08511), 2.2."""

REACH = 130
"""sRGB has a from -87 to 99 and b from -108 to 95."""

CELLS = 2 * REACH // SPACING + 1
FAR = 1e6

TOGETHER = 1 << 16
"""Colours whose distances are held at a time: a few MB."""

Colours = Float[Tensor, "n 2"]
"""The a and b of colours."""


def bins_like(values: Tensor, *, padded: bool = False) -> Float[Tensor, "q 2"]:
    """The bins in the precision, and on the device, of other numbers; padded, with one that is far from all colours."""
    return torch.tensor([*BINS, (FAR, FAR)] if padded else BINS, dtype=values.dtype, device=values.device)


@torch.compiler.disable  # constants of a step, from a table: nothing of it is worth a graph
def soft_codes(ab: Colours) -> tuple[Int64[Tensor, "n 10"], Float[Tensor, "n 10"]]:
    """The ten nearest bins of each colour, the nearest first, and the share of each: exp(-d² / 2σ²), adding up to 1.

    Args:
        ab: in float64, where the device has it. Beyond ±`REACH`, where sRGB has no colours, they are moved there.
    """
    found = [_codes(part) for part in ab.clamp(-REACH, REACH).split(TOGETHER)]
    return torch.cat([which for which, _ in found]), torch.cat([shares for _, shares in found])


def _codes(ab: Colours) -> tuple[Int64[Tensor, "n 10"], Float[Tensor, "n 10"]]:
    table = _candidates().to(ab.device)
    cell = ((ab + REACH) / SPACING).round().long()
    candidates = table[cell[:, 0] * CELLS + cell[:, 1]]
    a, b = bins_like(ab, padded=True).T
    squares = (ab[:, :1] - a[candidates]).square() + (ab[:, 1:] - b[candidates]).square()
    nearest, place = squares.topk(NEAREST, dim=1, largest=False, sorted=True)
    return candidates.gather(1, place), (nearest / (-2 * SIGMA**2)).softmax(dim=1)


@lru_cache(maxsize=1)
@torch.inference_mode(False)
def _candidates() -> Int64[Tensor, "cells k"]:
    """For each square of the lattice, the bins that are among the nearest of any colour in it.

    Such a bin comes as near to the square as the tenth of those that are never far from it. To look among these alone
    takes a tenth of the time. Squares with fewer are filled up with a bin that is far from all colours.
    """
    at = torch.arange(CELLS, dtype=torch.float64) * SPACING - REACH
    centres = torch.cartesian_prod(at, at)
    apart = (centres[:, None] - torch.tensor(BINS, dtype=torch.float64)).abs()
    half = SPACING / 2 + 1e-6
    least, most = ((apart + shift).clamp(min=0).square().sum(dim=2) for shift in (-half, half))
    needed = least <= most.kthvalue(NEAREST, dim=1, keepdim=True).values
    kept, which = needed.sort(dim=1, descending=True, stable=True)
    return torch.where(kept, which, len(BINS))[:, : int(needed.sum(dim=1).max())].contiguous()


def smoothed(counts: Float[Tensor, "q"], sigma: float) -> Float[Tensor, "q"]:
    """How often each bin occurs, each count spread over the bins around by a Gaussian; adds up to 1.

    Args:
        counts: of colours, by their nearest bin, in float64; at least one.
        sigma: in units of a and b; 0 leaves the counts where they are.
    """
    if sigma > 0:
        bins = bins_like(counts)
        spread = ((bins[:, None] - bins[None]).square().sum(dim=2) / (-2 * sigma**2)).exp()
        counts = (counts[:, None] * spread / spread.sum(dim=1, keepdim=True)).sum(dim=0)
    return counts / counts.sum()


def rebalancing(prior: Float[Tensor, "q"], uniform: float, convention: str) -> Float[Tensor, "q"]:
    """The weight of each bin: w ∝ 1 / ((1 - λ) p + λ u), with an expectation over p of 1.

    Args:
        prior: p, adding up to 1.
        uniform: λ.
        convention: `paper`: u is 1 / Q for all Q bins. `code`: u is uniform over the bins that occur, and the weight of
            the others is infinite.
    """
    occurs = prior > 0
    even = torch.full_like(prior, 1 / len(prior)) if convention == "paper" else occurs.to(prior.dtype) / occurs.sum()
    mixed = (1 - uniform) * prior + uniform * even
    weights = torch.where(mixed > 0, 1 / torch.where(mixed > 0, mixed, 1), math.inf)
    return weights / (prior * torch.where(occurs, weights, 0)).sum()
