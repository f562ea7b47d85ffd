"""Given tensors made to fit an encoder for other images: of another number of channels, or of another size."""

import math
from typing import Any

from torch import Tensor, nn

from barlow.nets.given import Tensors


def fitted(encoder: nn.Module, found: Tensors) -> tuple[Tensors, tuple[str, ...]]:
    """Weights made to fit an encoder where that can be done, and what was done, a phrase for each tensor."""
    own, fitting, notes = encoder.state_dict(), dict(found), []
    first = (getattr(encoder, "pretrained_cfg", None) or {}).get("first_conv") or ()
    for layer in (first,) if isinstance(first, str) else first:
        name = f"{layer}.weight"
        weight, here = found.get(name), own.get(name)
        if weight is None or here is None or weight.ndim != 4 or here.ndim != 4:
            continue
        there, wanted = weight.shape[1], here.shape[1]
        if there == wanted or there not in (1, 3) or weight.shape[2:] != here.shape[2:]:
            continue
        fitting[name] = adapted(weight, wanted)
        notes.append(f"{name} adapted from {there} to {wanted} channels")
    positions, here = found.get("pos_embed"), own.get("pos_embed")
    if positions is not None and here is not None and positions.shape != here.shape:
        grid: Any = getattr(getattr(encoder, "patch_embed", None), "grid_size", None)
        moved = None if grid is None else resampled(positions, here, grid)
        if moved is not None:
            old = math.isqrt(positions.shape[1] - (here.shape[1] - math.prod(grid)))
            fitting["pos_embed"] = moved
            notes.append(f"pos_embed resampled from {old} x {old} to {grid[0]} x {grid[1]} patches")
    return fitting, tuple(notes)


def adapted(weight: Tensor, channels: int) -> Tensor:
    """A first convolution for images of another number of channels.

    For one channel its kernels are summed: a grey image then gives what it gave as three equal channels. For any other
    number they are repeated in their order (red, green, blue, red, …) and scaled by the old number over the new one, so
    that the sum over channels stays about as large as it was. (It stays the same for equal channels, if their number is
    a multiple of the old one.) Nobody knows which band is which, so this is a start and no more.

    Source: timm's `adapt_input_conv`, which does the same for three channels.

    Args:
        weight: (outputs, c, height, width).
        channels: the new number.
    """
    there = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, -(-channels // there), 1, 1)[:, :channels]
    return repeated * (there / channels)


def resampled(positions: Tensor, here: Tensor, grid: tuple[int, int]) -> Tensor | None:
    """A ViT's position embeddings for another number of patches, bicubic over their grid; None if they have none.

    Embeddings of no patch (of the class token) stay as they are. Those of the file are taken to be of a square.

    Source: timm's `resample_abs_pos_embed`, which does what DINO's `interpolate_pos_encoding` does.

    Args:
        positions: (1, n, width), of the file.
        here: (1, m, width), the encoder's own.
        grid: its patches, (rows, columns).
    """
    from timm.layers import resample_abs_pos_embed

    if positions.ndim != 3 or positions.shape[2] != here.shape[2] or len(positions) != 1:
        return None
    prefix = here.shape[1] - math.prod(grid)
    patches = positions.shape[1] - prefix
    side = math.isqrt(max(patches, 0))
    if prefix < 0 or side == 0 or side * side != patches or not positions.is_floating_point():
        return None
    moved: Tensor = resample_abs_pos_embed(
        positions.float(), list(grid), [side, side], num_prefix_tokens=prefix, interpolation="bicubic"
    )
    return moved
