"""What neighbours say of an image: the sum of their votes."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor


def votes(
    weights: Float[Tensor, "m k"], positions: Int64[Tensor, "m k"], labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Adds up the neighbours' votes: each test row's share for every class, and the class of each column.

    Where an image may have several labels, the share is that of the neighbours that have the label, and the classes are
    None.
    """
    weights = weights.double().cpu()
    weights = weights / weights.sum(dim=1, keepdim=True)
    chosen = positions.cpu().numpy()
    if labels.ndim == 2:
        rows = [
            torch.einsum("mk,mkc->mc", w, torch.from_numpy((labels[i] == 1).astype(np.float64)))
            for w, i in zip(weights.split(1024), np.split(chosen, range(1024, len(chosen), 1024)), strict=True)
        ]
        return torch.cat(rows).numpy(), None
    classes, columns = np.unique(labels, return_inverse=True)
    share = torch.zeros(len(chosen), len(classes), dtype=torch.float64)
    share.scatter_add_(1, torch.from_numpy(columns[chosen]), weights)
    return share.numpy(), classes.astype(np.int64)
