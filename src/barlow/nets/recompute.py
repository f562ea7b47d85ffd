"""Activations made twice instead of kept: memory for one block at a time, at the price of a second forward pass."""

import contextlib
import functools
from collections.abc import Iterator

from torch import nn
from torch.utils.checkpoint import checkpoint

from barlow.nets.norms import statistics_kept


@contextlib.contextmanager
def recomputed(network: nn.Module) -> Iterator[int]:
    """Inside, the blocks of a network keep their inputs only, and make the rest again in the backward pass.

    The second pass sees the same rows and draws the same random numbers, and batch norm's running statistics count the
    first one only: values, gradients and buffers are those of the ordinary pass, for batch norm too.

    Source: Chen et al., Training deep nets with sublinear memory cost (arXiv 1604.06174); torch.utils.checkpoint.

    Args:
        network: blocks are the members of its outermost `Sequential`s and `ModuleList`s: the residual blocks of a
            ResNet, the blocks of a ViT, the stages of others.

    Yields:
        The number of blocks.

    Raises:
        ValueError: there are none.
    """
    blocks = list(_blocks(network))
    if not blocks:
        raise ValueError(
            f"train.activation_checkpointing: {type(network).__name__} has no blocks (members of a Sequential or a "
            "ModuleList) to make again; use train.rows_in_memory"
        )
    for block in blocks:
        block.forward = functools.partial(
            checkpoint,
            block.forward,
            use_reentrant=False,
            context_fn=functools.partial(_contexts, block),
        )
    try:
        yield len(blocks)
    finally:
        for block in blocks:
            del block.forward  # the class's own shows again


def _contexts(
    block: nn.Module,
) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
    return contextlib.nullcontext(), statistics_kept(block)


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    inside = isinstance(network, nn.Sequential | nn.ModuleList)
    for child in network.children():
        if inside and any(True for _ in child.parameters()):
            yield child
        else:
            yield from _blocks(child)
