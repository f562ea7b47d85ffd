"""SwAV's codes and loss by loops, from section 3.1 and listing 1 of arXiv 2006.09882."""

import math

import torch
from oracles.directions import dot
from torch import Tensor


def sinkhorn(scores: list[list[float]], epsilon: float, iterations: int) -> list[list[float]]:
    """Rows are samples, columns prototypes, as in `barlow.objectives._sinkhorn`."""
    q = [[math.exp(s / epsilon) for s in row] for row in scores]
    n, k = len(q), len(q[0])
    whole = sum(map(sum, q))
    q = [[value / whole for value in row] for row in q]
    for _ in range(iterations):
        for j in range(k):
            column = sum(row[j] for row in q)
            for row in q:
                row[j] = row[j] / column / k
        for i, row in enumerate(q):
            mass = sum(row)
            q[i] = [value / mass / n for value in row]
    return [[value * n for value in row] for row in q]


def log_softmax(scores: list[Tensor]) -> list[Tensor]:
    largest = max(float(s.detach()) for s in scores)
    total = scores[0].new_zeros(())
    for s in scores:
        total = total + torch.exp(s - largest)
    return [s - largest - torch.log(total) for s in scores]


def swapped(
    views: list[Tensor],
    prototypes: Tensor,
    queues: list[list[Tensor]] | None = None,
    *,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    assigned: int = 2,
) -> Tensor:
    """The loss of views whose rows need not have length 1, with prototypes of length 1.

    Args:
        views: of the batch.
        prototypes: a row each.
        queues: earlier embeddings of length 1 of each assigned view, in any order; None: not in use.
        temperature: of the predictions.
        epsilon: of the codes.
        iterations: of Sinkhorn's algorithm.
        assigned: views that have codes.
    """
    scores = [[[dot(row, c) / dot(row, row) ** 0.5 for c in prototypes] for row in view] for view in views]
    total = views[0].new_zeros(())
    for i in range(assigned):
        earlier = [] if queues is None else [[float(dot(row, c.detach())) for c in prototypes] for row in queues[i]]
        now = [[float(s.detach()) for s in row] for row in scores[i]]
        codes = sinkhorn([*earlier, *now], epsilon, iterations)[len(earlier) :]
        others = [v for v in range(len(views)) if v != i]
        for v in others:
            for code, row in zip(codes, scores[v], strict=True):
                predicted = log_softmax([s / temperature for s in row])
                for q, p in zip(code, predicted, strict=True):
                    total = total - q * p / (assigned * len(others) * len(codes))
    return total
