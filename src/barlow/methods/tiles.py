"""One encoder for each tile of a view, and a classifier on all of them: jigsaw puzzles, context prediction."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from barlow.methods._networks import Method, checked_views
from barlow.methods._tiles import TileHeads, Tiling, check_tiling
from barlow.nets.heads import Head
from barlow.types import Outputs, Rows

if TYPE_CHECKING:
    from barlow.methods import NewEncoder

__all__ = ["Tiles"]


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """The same encoder takes every tile of a view; what it makes of them, side by side, is classified.

    The tiles stay in the order in which they lie, so a classifier can tell how they were shuffled. The run keeps the
    encoder, which has seen single tiles.

    Source: Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles (arXiv
        1603.09246): nine tiles, a layer for each of them, two for all. Doersch et al., Unsupervised Visual
        Representation Learning by Context Prediction (arXiv 1505.05192): two tiles, three layers for both.
        facebookresearch/vissl at 09270ed, for ResNet-50: Linear to 1000, batch norm and ReLU for each of nine tiles.
    Deviation: the encoder takes all tiles in one pass, so its batch norm normalises over them together.

    Args:
        tiling: rows and columns of the tiles in a view: [3, 3] as the op `tiles` lays them, [1, 2] for `patch_pair`.
        each: from a tile's features to its part; null: the features are the part.
        rectified: whether a ReLU follows `each`.
        head: from all parts, side by side, to logits.

    Raises:
        ValueError: a tiling that is no two positive numbers.
    """

    gives: ClassVar[str] = "one"

    tiling: Tiling = (3, 3)
    each: Head | None = None
    rectified: bool = False
    head: Head

    def __post_init__(self) -> None:
        object.__setattr__(self, "tiling", check_tiling(self.tiling, "tiles"))

    def widths(self, views: int) -> list[tuple[int, ...]]:
        return [(self.head.widths[-1],)] * views

    def build(self, new_encoder: "NewEncoder", seed: int) -> Method:
        encoder, width = new_encoder()
        heads = TileHeads(self.tiling, width, each=self.each, rectified=self.rectified, together=self.head, seed=seed)
        return _Tiles(encoder, heads)


class _Tiles(Method):
    def __init__(self, encoder: nn.Module, heads: TileHeads) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, heads

    def forward(self, rows: Rows) -> Outputs:
        made = [self.heads(self.encoder, view) for view in checked_views(rows, 1, "tiles")]
        return Outputs([features for features, _ in made], [(logits,) for _, logits in made])
