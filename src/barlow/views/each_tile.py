"""An op that works on each tile of a view by itself: `each_tile: true` in a recipe."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from barlow.types import Images
from barlow.views.keys import Keys
from barlow.views.ops import Op, RandomResizedCrop
from barlow.views.ops._op import kind_of
from barlow.views.ops.tiles import cut, joined

OF_TILE = 1 << 32
"""Keys of a tile's op: the op's position in its list plus a multiple of this, which no list is long enough for."""


@dataclass(frozen=True)
class EachTile(Op):
    """Cuts a view into its tiles, changes each with draws of its own, and lays them side by side again.

    Where the tiles lie does not change, so an op that told their order before it has still told the truth.

    Args:
        op: what is done to each tile.
        tiling: rows and columns of the tiles.

    Raises:
        ValueError: an op that tells what it drew, that makes images of another size, or a crop.
    """

    op: Op
    tiling_of_views: tuple[int, int]

    geometric: ClassVar[bool] = False

    def __post_init__(self) -> None:
        kind = kind_of(type(self.op))
        if isinstance(self.op, RandomResizedCrop) or self.op.tells is not None or self.op.tiling() is not None:
            raise ValueError(f"{kind} cannot work on each tile: give it to the view, or leave each_tile out")

    def tiling(self) -> tuple[int, int]:
        """Rows and columns of the tiles, as they were."""
        return self.tiling_of_views

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """What the op draws for each tile of each image: arrays whose second axis are the tiles."""
        rows, columns = self.tiling_of_views
        tiles = [self.op.draws(replace(keys, op=keys.op + (t + 1) * OF_TILE)) for t in range(rows * columns)]
        return tuple(np.stack(each, axis=1) for each in zip(*tiles, strict=True))

    def apply(self, x: Images, *draws: Any) -> Images:
        """See the class."""
        of_tiles = [draw.reshape(-1, *draw.shape[2:]) for draw in draws]
        return joined(self.op.apply(cut(x, self.tiling_of_views), *of_tiles), self.tiling_of_views)
