"""The gradient of the loss of the global batch: in one pass, or exactly the same in the memory of a few rows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import torch
from torch import Tensor, nn

from barlow.distributed import World
from barlow.types import Outputs, Rows

Compare = Callable[[list[tuple[Tensor, ...]]], Mapping[str, Tensor]]
"""From the groups of the global batch to the terms of the loss."""

Draws = Callable[[int], AbstractContextManager[object]]
"""From a chunk's number to the context in which layers draw random numbers."""


def chunks(rows: int, rows_in_memory: int) -> list[slice]:
    """Cuts `rows` into as few blocks of at most `rows_in_memory` as can be, as equal as can be."""
    count = -(-rows // rows_in_memory)
    edges = [i * rows // count for i in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def backward(
    network: nn.Module,
    compare: Compare,
    rows: Rows,
    *,
    world: World,
    precision: str,
    draws: Draws,
    loss_weight: float = 1.0,
    rows_in_memory: int | None = None,
) -> tuple[Outputs, Mapping[str, Tensor]]:
    """Adds the gradient of `loss_weight` × the sum of the terms to the parameters.

    With `rows_in_memory`, a batch takes the memory of a few rows. First the global batch is embedded in chunks, without
    a graph. Then the gradient of the loss with respect to the embeddings is taken once, on all of them. Last, each
    chunk is run again, and carries its rows of that gradient on to the parameters. The price is one more forward pass.

    Source: the chain rule; Gao et al., Scaling deep contrastive learning batch size under memory limited setup (arXiv
    2101.06983), for a contrastive loss.
    Convention: the objective is exact over the global batch. Batch norm sees one chunk at a time, as it sees one
    process's rows where it is not synchronised. All processes cut their rows into equally many chunks.

    Args:
        network: the method, wrapped by `world`.
        compare: the objective; called once, with the groups of the global batch.
        rows: of this process.
        world: the processes.
        precision: of the forward passes, bf16 or float32.
        draws: the second run of a chunk draws what the first one drew.
        loss_weight: factor of the gradient; the terms stay as they are.
        rows_in_memory: rows of a chunk, at most; None or all rows: one pass.

    Returns:
        What the networks made of this process's rows, and the terms.
    """

    def embedded(number: int, part: Rows) -> Outputs:
        with draws(number), world.autocast(precision):
            made: Outputs = network(part)
        return made

    def terms_of(tensors: Sequence[Tensor], places: Sequence[tuple[int, ...]]) -> Mapping[str, Tensor]:
        terms = compare(_grouped(world.gather(tensors), places))
        (loss_weight * torch.stack(list(terms.values())).sum()).backward()
        return terms

    if rows_in_memory is None or rows_in_memory >= len(rows):
        outputs = embedded(0, rows)
        return outputs, terms_of(*distinct(outputs.groups))

    parts = chunks(len(rows), rows_in_memory)
    before = [buffer.clone() for buffer in network.buffers()]
    with torch.no_grad(), world.apart(network):
        outputs = _joined([embedded(number, rows[part]) for number, part in enumerate(parts)])
        # The second run starts from the same state, so that every row counts once in batch norm's running statistics.
        for buffer, value in zip(network.buffers(), before, strict=True):
            buffer.copy_(value)
    tensors, places = distinct(outputs.groups)
    held = [z.detach().requires_grad_() for z in tensors]
    terms = terms_of(held, places)
    for number, part in enumerate(parts):
        last = number == len(parts) - 1  # with this pass the sum over the chunks is averaged over the processes
        with nullcontext() if last else world.apart(network):
            _carry(distinct(embedded(number, rows[part]).groups)[0], held, part)
    return outputs, terms


def distinct(groups: Iterable[tuple[Tensor, ...]]) -> tuple[list[Tensor], list[tuple[int, ...]]]:
    """The tensors of all groups, each once, and for each group the places of its own among them.

    With three views, BYOL compares the prediction of view 1 with two targets: it stands in two groups, and is sent to
    the other processes once.
    """
    tensors: list[Tensor] = []
    where: dict[int, int] = {}
    places = []
    for group in groups:
        for z in group:
            if id(z) not in where:
                where[id(z)] = len(tensors)
                tensors.append(z)
        places.append(tuple(where[id(z)] for z in group))
    return tensors, places


def _grouped(tensors: Sequence[Tensor], places: Sequence[tuple[int, ...]]) -> list[tuple[Tensor, ...]]:
    return [tuple(tensors[i] for i in place) for place in places]


def _carry(again: Sequence[Tensor], held: Sequence[Tensor], part: slice) -> None:
    pairs = [
        (z, whole.grad[part])
        for z, whole in zip(again, held, strict=True)
        if z.requires_grad and whole.grad is not None
    ]
    torch.autograd.backward([z for z, _ in pairs], [gradient for _, gradient in pairs])


def _joined(made: Sequence[Outputs]) -> Outputs:
    """The outputs of all chunks as those of one pass."""
    features = [torch.cat(parts) for parts in zip(*(outputs.features for outputs in made), strict=True)]
    flat = [distinct(outputs.groups) for outputs in made]
    tensors = [torch.cat(parts) for parts in zip(*(tensors for tensors, _ in flat), strict=True)]
    return Outputs(features, _grouped(tensors, flat[0][1]))
