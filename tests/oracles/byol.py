"""One direction of BYOL's loss by loops over rows, from equation 2 of arXiv 2006.07733."""

from oracles.directions import dot
from torch import Tensor


def byol(p: Tensor, t: Tensor) -> dict[str, Tensor]:
    """Twice the mean over rows of ‖p/‖p‖ - t/‖t‖‖², the target a constant."""
    total = p.new_zeros(())
    for prediction, target in zip(p, t.detach(), strict=True):
        difference = prediction / dot(prediction, prediction) ** 0.5 - target / dot(target, target) ** 0.5
        total = total + dot(difference, difference)
    return {"distance": 2 * total / len(p)}
