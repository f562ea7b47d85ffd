"""NT-Xent by loops over rows, from equation 1 and algorithm 1 of arXiv 2002.05709."""

from oracles.classification import surprisal
from oracles.directions import cosine
from torch import Tensor


def losses_of_rows(za: Tensor, zb: Tensor, temperature: float) -> list[Tensor]:
    """ℓ of the n rows of the first view, then of those of the second."""
    rows, n = [*za, *zb], len(za)
    losses = []
    for i in range(2 * n):
        similarities = {k: cosine(rows[i], rows[k]) / temperature for k in range(2 * n) if k != i}
        losses.append(surprisal(similarities.pop((i + n) % (2 * n)), list(similarities.values())))
    return losses


def simclr(za: Tensor, zb: Tensor, *, temperature: float = 0.1, convention: str = "code") -> dict[str, Tensor]:
    n = len(za)
    total = sum(losses_of_rows(za, zb, temperature), za.new_zeros(()))
    return {"contrast": total / n if convention == "code" else total / (2 * n)}
