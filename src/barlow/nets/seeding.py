"""A seed for torch's generators: weights, and layers that draw, depend on it and on nothing drawn before."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derived(seed: int, part: str) -> int:
    """A seed of 63 bits (`manual_seed` takes no negative number) for a part of what another seed stands for."""
    digest = hashlib.sha256(f"{part}:{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@contextmanager
def seeded(seed: int, part: str, device: torch.device | None = None) -> Iterator[None]:
    """Inside, torch's generators start from (seed, part). Afterwards they are where they were before.

    Modules draw their first weights from torch's CPU generator and accept no other, so this is how weights become a
    function of a seed. Networks are built on the CPU. Layers that draw during training (dropout, stochastic depth) draw
    on the device, so for them give the device as well.

    Args:
        seed: of the run.
        part: what is drawn, for example `projector`. Two parts of one seed draw different numbers.
        device: whose generator starts from the seed too; None leaves those of accelerators alone.
    """
    number = derived(seed, part)
    accelerator = device if device is not None and device.type != "cpu" else None
    kept = [] if accelerator is None else [accelerator]
    with torch.random.fork_rng(devices=kept, device_type="cuda" if accelerator is None else accelerator.type):
        torch.default_generator.manual_seed(number)
        if accelerator is not None:
            torch.get_device_module(accelerator).manual_seed(number)
        yield
