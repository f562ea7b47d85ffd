"""Keyed draws of objectives: the numbers of `barlow.views.keys`, without their lowest bit."""

import zlib

import numpy as np
import torch

from barlow.objectives._draws import OBJECTIVES, drawn
from barlow.views.keys import hashed


def test_they_are_the_hashes_that_views_are_drawn_from() -> None:
    ids = torch.tensor([0, 1, 5, 2**40, 2**62])
    for seed in (0, 7, 2**63 - 1):
        found = drawn(torch.tensor(seed), "windows", torch.tensor(12), ids, part=3)
        words = (OBJECTIVES, seed, zlib.crc32(b"windows"), 3, 12)
        assert (found.numpy() == (hashed(words, ids.numpy()) >> np.uint64(1)).astype(np.int64)).all()


def test_another_seed_name_part_or_step_gives_other_numbers() -> None:
    ids, step, zero = torch.arange(100), torch.tensor(1), torch.tensor(0)
    first = drawn(zero, "a", step, ids)
    others = [
        drawn(zero + 1, "a", step, ids),
        drawn(zero, "b", step, ids),
        drawn(zero, "a", step + 1, ids),
        drawn(zero, "a", step, ids, part=1),
    ]
    assert all((first != other).all() for other in others)
    assert first.equal(drawn(zero, "a", step, ids))
    assert bool((first >= 0).all())
