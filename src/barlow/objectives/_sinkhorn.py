"""Sinkhorn's iterations: from the scores of a batch to codes that use all prototypes equally."""

import torch
from jaxtyping import Float
from torch import Tensor

Scores = Float[Tensor, "n k"]
"""How alike each row and each prototype are."""


@torch.no_grad()
def sinkhorn(scores: Scores, epsilon: float, iterations: int) -> Float[Tensor, "n k"]:
    """Soft assignments of rows to prototypes, near those of exp(scores / epsilon) that fill every prototype equally.

    Q = exp(scores / epsilon); then, again and again, each prototype's column is divided by its sum, and each row by its
    own. The result has rows that sum to 1 exactly. The columns sum to n / k nearly, the better the more iterations.

    Source: Cuturi, Sinkhorn distances (arXiv 1306.0895); Caron et al., SwAV (arXiv 2006.09882), section 3.1 and
        listing 1; facebookresearch/swav at 06b1b7c, main_swav.py.
    Convention: the last division is that of the rows. A number that is added to all scores of a prototype, or to all
        scores, changes nothing; one that is added to the scores of a row does. Computed with logarithms, so that no
        epsilon is too small for the exponential.

    Args:
        scores: of the global batch. Codes of a part of it would be others.
        epsilon: smoothness, above 0; the smaller, the harder the codes.
        iterations: 1 or more.
    """
    logs = scores / epsilon
    for _ in range(iterations):
        logs = logs - logs.logsumexp(dim=0)
        logs = logs - logs.logsumexp(dim=1, keepdim=True)
    return logs.exp()
