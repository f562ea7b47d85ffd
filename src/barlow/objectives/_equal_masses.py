"""The assignment of all images to clusters of one size that fits best: SeLa's labels."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Logs = Float[Tensor, "n k"]

MOST_ITERATIONS = 2_000
"""Where the iterations end at the latest. They are counted only where images are far from filling the clusters."""

LARGEST = 1e100
"""A factor beyond it is multiplied into the matrix: float64 ends at 1e308."""


@torch.no_grad()
def equal_masses(logs: Logs, *, tolerance: float) -> Logs:
    """n times the matrix nearest to exp(logs) whose rows sum to 1 / n each, and whose columns to 1 / k.

    Q = diag(c) exp(logs) diag(r). In turns r is what gives the columns their sum, and c the rows, until c hardly
    changes: Σᵢ |cᵢ / cᵢ' - 1| < tolerance.

    Source: Asano et al., Self-labelling via simultaneous clustering and representation learning (arXiv 1911.05371),
        equations 7 and 8; yukimasano/self-label at 3891e37. Cuturi, Sinkhorn distances (arXiv 1306.0895).
    Convention: rows sum to 1 exactly, columns to n / k nearly. The first turn is computed with logarithms, so that no
        power of a probability is too small; the others on the matrix that it gives.
    Deviation: after 2,000 turns it ends.

    Args:
        logs: of all images. It is overwritten.
        tolerance: above 0.
    """
    n, k = logs.shape
    logs -= logs.logsumexp(dim=0)
    logs -= logs.logsumexp(dim=1, keepdim=True)
    m = logs.exp_()
    c, r = m.new_ones(n), m.new_ones(k)
    for _ in range(MOST_ITERATIONS):
        r = (n / k) / (c @ m)
        before, c = c, 1 / (m @ r)
        if float((before / c - 1).abs().sum()) < tolerance:
            break
        if float(torch.maximum(r.max(), c.max())) > LARGEST:
            m *= r
            m *= c[:, None]
            c, r = torch.ones_like(c), torch.ones_like(r)
    m *= r
    m *= c[:, None]
    return m


def labels_of_equal_masses(logs: Logs, *, tolerance: float) -> Int64[Tensor, "n"]:
    """For each row, the column that has most of it; the first of them where several have.

    Args:
        logs: of all images. It is overwritten.
        tolerance: above 0.
    """
    return equal_masses(logs, tolerance=tolerance).argmax(dim=1)
