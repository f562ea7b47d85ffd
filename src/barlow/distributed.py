"""World: how many processes train together, which one this is, and on what device.

Today a World is one process; the loop is already written against it, so that several processes change this file alone.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class World:
    """One process and its device."""

    device: torch.device
    rank: int = 0
    size: int = 1

    def gather(self, embeddings: Sequence[Tensor]) -> list[Tensor]:
        """The global batch of every view, in float32 (float64 stays): the objective sees no other precision."""
        return [z if z.dtype == torch.float64 else z.float() for z in embeddings]

    def autocast(self, precision: str) -> contextlib.AbstractContextManager[object]:
        """bfloat16 autocast for `"bf16"`, nothing for `"float32"`."""
        if precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()


def choose_device(wanted: str) -> torch.device:
    """The device a user asked for; `"auto"` is the first of CUDA, MPS, CPU that is there.

    Raises:
        ValueError: it is not known or not there.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if present[kind]))
    kind = wanted.split(":")[0]
    if kind not in present:
        raise ValueError(f"unknown device {wanted!r}; allowed: auto, {', '.join(present)}")
    if not present[kind]:
        here = ", ".join(name for name, there in present.items() if there)
        raise ValueError(f"device {wanted!r} is not available on this machine; available: {here}")
    return torch.device(wanted)


def has_native_bf16(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 itself: elsewhere autocast would be slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def synchronize(device: torch.device) -> None:
    """Waits for the device; only a measurement needs it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
