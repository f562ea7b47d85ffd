"""Activations made twice instead of kept: memory for one block at a time, at the price of a second forward pass."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from barlow.nets.norms import statistics_kept


@contextlib.contextmanager
def recomputed(network: nn.Module) -> Iterator[int]:
    """Inside, the blocks of a network keep their inputs only, and make the rest again in the backward pass.

    The second pass sees the same rows and draws the same random numbers, and batch norm's running statistics count the
    first one only: values, gradients and buffers are those of the ordinary pass, for batch norm too. A block that takes
    anything but tensors is left as it is.

    Source: Chen et al., Training deep nets with sublinear memory cost (arXiv 1604.06174); torch.utils.checkpoint.

    Args:
        network: blocks are the members of its outermost `Sequential`s and `ModuleList`s: the residual blocks of a
            ResNet, the blocks of a ViT, the stages of others.

    Yields:
        The number of blocks.

    Raises:
        ValueError: there are none; in a forward pass, a block that changes its input or a buffer that is not batch
            norm's, so that a second pass would not be the first again.
    """
    blocks = list(_blocks(network))
    if not blocks:
        raise ValueError(
            f"train.activation_checkpointing: {type(network).__name__} has no blocks (members of a Sequential or a "
            "ModuleList) to make again; use train.rows_in_memory"
        )
    own = [vars(block).get("forward") for block in blocks]
    for block in blocks:
        block.forward = functools.partial(_twice, block, block.forward)
    try:
        yield len(blocks)
    finally:
        for block, before in zip(blocks, own, strict=True):
            if before is None:
                del block.forward  # the class's own shows again
            else:
                block.forward = before


def _twice(block: nn.Module, forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled() or options or not all(isinstance(x, Tensor) for x in inputs):
        return forward(*inputs, **options)
    state = [*inputs, *_other_buffers(block)]
    versions = [tensor._version for tensor in state]
    made = checkpoint(
        forward, *inputs, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), statistics_kept(block))
    )
    after = [*inputs, *_other_buffers(block)]
    if any(x is not y or x._version != version for x, y, version in zip(state, after, versions, strict=True)):
        raise ValueError(
            f"train.activation_checkpointing: {type(block).__name__} changes its input or a buffer of its own in the "
            "forward pass, so a second pass would not repeat the first; use train.rows_in_memory"
        )
    return made


def _other_buffers(block: nn.Module) -> list[Tensor]:
    return [
        buffer
        for module in block.modules()
        if not isinstance(module, _BatchNorm)
        for buffer in module.buffers(recurse=False)
    ]


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    inside = isinstance(network, nn.Sequential | nn.ModuleList)
    for child in network.children():
        if inside and any(True for _ in child.parameters()):
            yield child
        else:
            yield from _blocks(child)
