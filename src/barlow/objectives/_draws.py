"""Draws of objectives: functions of (seed, what for, step, id), so that no process, batch or resumption changes one.

They are the hashes of `barlow.views.keys`, computed by torch where the ids are: nothing waits for a device.
"""

import zlib

import torch
from jaxtyping import Int64
from torch import Tensor

from barlow.types import Ids
from barlow.views.keys import GOLDEN, MULTIPLIERS, SHIFTS, WORD

OBJECTIVES = 5
"""First word of the keys of all draws here but `indices`."""

NEGATIVES = int.from_bytes(b"NPID", "big")
"""First word of the keys of `indices`."""

Number = Int64[Tensor, ""]


def drawn(seed: Number, what: str, step: Number, ids: Ids, *, part: int = 0) -> Ids:
    """63 evenly spread bits for each id, as a number from 0 to 2⁶³ - 1: `% count` is one of so many things.

    Sorted, they put the ids into a random order: no two of them are equal, but for the one bit that is left out.

    Args:
        seed: of the run; part of the objective's state, so that a resumed one draws on as it would have.
        what: is drawn, in words: two names have nothing in common.
        step: how many steps the objective has made, a tensor on the device of the ids.
        ids: not negative; of images, or of whatever else is drawn for.
        part: distinguishes draws of one name.
    """
    state = torch.zeros((), dtype=torch.int64, device=ids.device)
    for word in (OBJECTIVES, seed, zlib.crc32(what.encode()), part, step):
        state = _mixed(state + _signed(GOLDEN) + (word if isinstance(word, Tensor) else _signed(word)))
    bits = _mixed(_mixed(ids + (state + _signed(GOLDEN))))
    return _shifted(bits, 1)


def indices(seed: Number, step: Number, ids: Ids, count: int, below: int) -> Int64[Tensor, "n k"]:
    """Whole numbers from 0 to below - 1, evenly spread, with replacement: the negatives of a memory bank.

    Args:
        seed: of the run.
        step: in which they are drawn.
        ids: a row of draws for each. Equal ids have equal draws.
        count: of the draws of an id.
        below: 1 to 2³¹. Which numbers come a little more often is decided by 2⁻³² of the draws at most.
    """
    golden = _signed(GOLDEN)
    state = torch.zeros_like(seed)
    for word in (NEGATIVES, seed, step):
        state = _mixed(state + golden + word)
    draws = _mixed(state + golden + torch.arange(count, device=ids.device))
    bits = _mixed(_mixed(draws[None] + golden + ids[:, None]))
    kept = 63 - below.bit_length()  # so that the product fits
    return _shifted(bits, 64 - kept) * below >> kept


def _mixed(words: Int64[Tensor, "*n"]) -> Int64[Tensor, "*n"]:
    """As in `barlow.views.keys`: torch's whole numbers of 64 bits wrap around as unsigned ones do."""
    for shift, multiplier in zip(SHIFTS, MULTIPLIERS, strict=False):
        words = (words ^ _shifted(words, shift)) * _signed(multiplier)
    return words ^ _shifted(words, SHIFTS[2])


def _shifted(words: Int64[Tensor, "*n"], by: int) -> Int64[Tensor, "*n"]:
    """Towards the lowest bit, with zeros coming in; torch brings in copies of the sign."""
    return (words >> by) & ((1 << (64 - by)) - 1)


def _signed(word: int) -> int:
    """The number of 64 bits with a sign that has the bits of one without."""
    return (word + WORD // 2) % WORD - WORD // 2
