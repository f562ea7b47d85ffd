"""The gradient of the loss of the global batch: in one pass, or exactly the same in the memory of a few rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import torch
from torch import Tensor, nn

from barlow.distributed import World
from barlow.methods.siamese import Outputs
from barlow.types import Ids, Images

Objective = Callable[..., Mapping[str, Tensor]]
Draws = Callable[[int], AbstractContextManager[object]]


def chunks(rows: int, rows_in_memory: int) -> list[slice]:
    """Cuts `rows` into as few blocks of at most `rows_in_memory` as can be, as equal as can be."""
    count = -(-rows // rows_in_memory)
    edges = [i * rows // count for i in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def backward(
    network: nn.Module,
    objective: Objective,
    views: Sequence[Images],
    ids: Ids,
    *,
    world: World,
    precision: str,
    draws: Draws,
    loss_weight: float = 1.0,
    rows_in_memory: int | None = None,
) -> tuple[Outputs, Mapping[str, Tensor]]:
    """Adds the gradient of `loss_weight` × the sum of the terms to the parameters.

    With `rows_in_memory`, the global batch is embedded in chunks without a graph, the objective's gradient with respect
    to the embeddings is taken once, on all of them, and each chunk is run again to carry its rows of that gradient on
    to the parameters. Memory holds the graph of one chunk at a time; the price is one more forward pass.

    Source: the chain rule; Gao et al., Scaling deep contrastive learning batch size under memory limited setup (arXiv
    2101.06983), for a contrastive loss.
    Convention: the objective is exact over the global batch; batch norm sees one chunk at a time, as without
    synchronisation one process does. Chunks of a process are equally many on all.

    Args:
        network: the method, wrapped by `world`.
        objective: called once, with the embeddings of the global batch.
        views: this process's rows of each.
        ids: of these rows.
        world: the processes.
        precision: of the forward passes, bf16 or float32.
        draws: from a chunk's number to the context in which layers draw: the second run of a chunk draws the same.
        loss_weight: factor of the gradient; the terms stay as they are.
        rows_in_memory: rows of a chunk, at most; None or all rows: one pass.

    Returns:
        What the networks made of this process's rows, and the terms.
    """
    rows = len(ids)
    if rows_in_memory is None or rows_in_memory >= rows:
        with draws(0), world.autocast(precision):
            outputs: Outputs = network(views, ids)
        terms = objective(*world.gather(outputs.compared))
        (loss_weight * torch.stack(list(terms.values())).sum()).backward()
        return outputs, terms

    def embedded(number: int, part: slice) -> Outputs:
        with draws(number), world.autocast(precision):
            made: Outputs = network([view[part] for view in views], ids[part])
        return made

    parts = chunks(rows, rows_in_memory)
    before = [buffer.clone() for buffer in network.buffers()]
    with torch.no_grad(), world.apart(network):
        outputs = _joined([embedded(number, part) for number, part in enumerate(parts)])
        # The second run goes from the same state: every row changes buffers (batch norm's, a queue) once.
        for buffer, value in zip(network.buffers(), before, strict=True):
            buffer.copy_(value)
    compared = [z.detach().requires_grad_() for z in outputs.compared]
    terms = objective(*world.gather(compared))
    (loss_weight * torch.stack(list(terms.values())).sum()).backward()
    for number, part in enumerate(parts):
        last = number == len(parts) - 1  # with this pass the sum over the chunks is averaged over processes
        with nullcontext() if last else world.apart(network):
            _carry(embedded(number, part), compared, part)
    return outputs, terms


def _carry(again: Outputs, compared: Sequence[Tensor], part: slice) -> None:
    pairs = [
        (z, whole.grad[part])
        for z, whole in zip(again.compared, compared, strict=True)
        if z.requires_grad and whole.grad is not None
    ]
    torch.autograd.backward([z for z, _ in pairs], [gradient for _, gradient in pairs])


def _joined(made: Sequence[Outputs]) -> Outputs:
    def views(of: Callable[[Outputs], list[Tensor]]) -> Iterator[Tensor]:
        return (torch.cat(parts) for parts in zip(*map(of, made), strict=True))

    return Outputs(list(views(lambda o: o.features)), list(views(lambda o: o.embeddings)))
