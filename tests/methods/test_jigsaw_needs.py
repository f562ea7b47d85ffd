"""A puzzle needs its gaps: without them, the pixels along two edges say which tiles were neighbours.

Source: Noroozi and Favaro (arXiv 1603.09246), section 3.3, and Doersch et al. (arXiv 1505.05192), section 3.1: a gap
that is not foreseen takes away lines and gradients that run on from one tile to the next.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from barlow.views.keys import Keys
from barlow.views.ops import Tiles
from barlow.views.ops.tiles import cut


def smooth(n: int, side: int) -> Tensor:
    """Images that change slowly from pixel to pixel."""
    coarse = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)


def neighbours_found(op: Tiles, x: Tensor) -> float:
    """How often the tile whose left edge is most like the middle tile's right edge is the one that lies there."""
    tiles = cut(op(x, Keys(seed=0, epoch=0, ids=np.arange(len(x)), view=0, op=0)), (3, 3)).view(len(x), 9, 3, -1)
    side = int(tiles.shape[-1] ** 0.5)
    tiles = tiles.view(len(x), 9, 3, side, side)
    right_edge, left_edges = tiles[:, 4, :, :, -1], tiles[..., 0]
    apart = (left_edges - right_edge[:, None]).square().sum((2, 3))
    apart[:, 4] = torch.inf
    return float((apart.argmin(1) == 5).float().mean())


@pytest.mark.parametrize(("side", "least", "most"), [(30, 0.9, 1.0), (16, 0.0, 0.7)])
def test_edges_that_run_on_give_neighbours_away_only_where_windows_fill_their_cells(
    side: int, least: float, most: float
) -> None:
    assert least <= neighbours_found(Tiles(side=side, order="listing"), smooth(200, 90)) <= most
