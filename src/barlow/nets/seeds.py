"""Weights, and layers that draw, from a seed, whatever else has drawn random numbers before."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, part: str, device: torch.device | None = None) -> Iterator[None]:
    """Inside, torch's CPU generator, and `device`'s, start from (seed, part); afterwards they are where they were.

    Modules draw their first weights from that generator and take no other. Building happens on the CPU, so without a
    `device` the accelerators' generators are left alone. `part` keeps two networks of one seed from drawing the same.
    """
    digest = hashlib.sha256(f"{part}:{seed}".encode()).digest()
    number = int.from_bytes(digest[:8], "little") >> 1  # 63 bits: it must be positive
    accelerator = device if device is not None and device.type != "cpu" else None
    kept = [] if accelerator is None else [accelerator]
    with torch.random.fork_rng(devices=kept, device_type="cuda" if accelerator is None else accelerator.type):
        torch.default_generator.manual_seed(number)
        if accelerator is not None:
            torch.get_device_module(accelerator).manual_seed(number)
        yield
