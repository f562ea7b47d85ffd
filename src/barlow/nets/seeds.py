"""Weights drawn from a seed, whatever else has drawn random numbers before."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, part: str) -> Iterator[None]:
    """Inside, torch's CPU generator starts from (seed, part); afterwards it is where it was before.

    Modules draw their first weights from that generator and take no other. Building happens on the CPU, so the
    accelerators' generators are left alone. `part` keeps two networks of one seed from drawing the same numbers.
    """
    digest = hashlib.sha256(f"{part}:{seed}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)  # 63 bits: it must be positive
        yield
