"""One direction of MoCo v3's loss by loops over rows, from algorithm 1 of arXiv 2104.02057."""

from oracles.classification import surprisal
from oracles.directions import cosine
from torch import Tensor


def moco_v3(q: Tensor, k: Tensor, *, temperature: float = 1.0) -> dict[str, Tensor]:
    """4 · temperature · the mean over the queries of the surprisal of their own key among all keys."""
    total = q.new_zeros(())
    keys = list(k.detach())
    for i, query in enumerate(q):
        right = cosine(query, keys[i]) / temperature
        total = total + surprisal(right, [cosine(query, key) / temperature for j, key in enumerate(keys) if j != i])
    return {"contrast": 4 * temperature * total / len(q)}
