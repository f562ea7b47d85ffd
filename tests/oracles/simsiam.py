"""One direction of SimSiam's loss by loops over rows, from equations 1 and 3 of arXiv 2011.10566."""

from oracles.directions import cosine
from torch import Tensor


def simsiam(p: Tensor, t: Tensor) -> dict[str, Tensor]:
    """The mean over rows of -cos(p, t), the target a constant."""
    total = p.new_zeros(())
    for prediction, target in zip(p, t.detach(), strict=True):
        total = total - cosine(prediction, target)
    return {"negative_cosine": total / len(p)}
