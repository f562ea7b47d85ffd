"""Draws that depend on (seed, step, id) alone, made where the embeddings are.

They are the numbers of `barlow.views.keys`, in torch: the same in every process, in any order of the rows, after a
resumption, and on every device.
"""

import torch
from jaxtyping import Int64
from torch import Tensor

from barlow.types import Ids
from barlow.views.keys import GOLDEN, MULTIPLIERS, SHIFTS

PURPOSE = int.from_bytes(b"NPID", "big")
"""What the numbers are for, as their first word: no other draw of a run has it (`barlow.views.keys.hashed`)."""


def _signed(word: int) -> int:
    """The int64 with the same 64 bits."""
    return word - (1 << 64) if word >= 1 << 63 else word


def _shifted(words: Tensor, by: int) -> Tensor:
    """To the right, zeros coming in: torch's own shift would repeat the sign."""
    return (words >> by) & ((1 << (64 - by)) - 1)


def _mixed(words: Tensor) -> Tensor:
    for shift, multiplier in zip(SHIFTS, MULTIPLIERS, strict=False):
        words = (words ^ _shifted(words, shift)) * _signed(multiplier)
    return words ^ _shifted(words, SHIFTS[2])


def drawn(seed: Int64[Tensor, ""], step: Int64[Tensor, ""], ids: Ids, count: int, below: int) -> Int64[Tensor, "n k"]:
    """Whole numbers from 0 to below - 1, evenly spread, with replacement.

    Args:
        seed: of the run.
        step: in which they are drawn.
        ids: a row of draws for each. Equal ids have equal draws.
        count: of the draws of an id.
        below: 1 to 2³¹. Which numbers come a little more often is decided by 2⁻³² of the draws at most.
    """
    golden = _signed(GOLDEN)
    state = torch.zeros_like(seed)
    for word in (PURPOSE, seed, step):
        state = _mixed(state + golden + word)
    draws = _mixed(state + golden + torch.arange(count, device=ids.device))
    bits = _mixed(_mixed(draws[None] + golden + ids[:, None]))
    kept = 63 - below.bit_length()  # so that the product fits
    return _shifted(bits, 64 - kept) * below >> kept
