"""MoCo's loss and queue by loops over rows, from equation 1 and algorithm 1 of arXiv 1911.05722."""

from oracles.classification import surprisal
from oracles.directions import cosine, dot
from torch import Tensor


def contrast(q: Tensor, k: Tensor, queue: list[Tensor], temperature: float) -> Tensor:
    """The mean over the queries, keys and queue constants; the queue as a list of keys of length 1."""
    total = q.new_zeros(())
    for query, key in zip(q, k.detach(), strict=True):
        length = dot(query, query) ** 0.5
        negatives = [dot(query, earlier) / length / temperature for earlier in queue]
        total = total + surprisal(cosine(query, key) / temperature, negatives)
    return total / len(q)


def moco(
    groups: list[tuple[Tensor, Tensor]], queue: list[Tensor], *, temperature: float = 0.07
) -> tuple[Tensor, list[Tensor]]:
    """The loss, all groups against the queue that is given, and the queue after it, the oldest key first."""
    loss = sum((contrast(q, k, queue, temperature) for q, k in groups), groups[0][0].new_zeros(()))
    keys = [key / dot(key, key) ** 0.5 for _, k in groups for key in k.detach()]
    return loss, [*queue, *keys][len(keys) :]
