"""One encoder for an image at half its size and for each of its quarters, whose embeddings are summed: counting."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from barlow.methods._networks import Method, checked_views, features_of
from barlow.nets.heads import Head
from barlow.types import Embedding, Features, Images, Outputs, Rows
from barlow.views.ops.tiles import cut

if TYPE_CHECKING:
    from barlow.methods import NewEncoder

__all__ = ["TileSum"]

QUARTERS = 2, 2


@dataclass(frozen=True, kw_only=True)
class TileSum:
    """What the networks make of a view at half its size is compared with the sum of what they make of its quarters.

    All five are of one size, and the same encoder and head take them. A view has a group of its own: the embedding of
    the whole, and the sum. The run keeps the encoder, which has seen images of half the views' size.

    Source: Noroozi, Pirsiavash, Favaro, Representation Learning by Learning to Count (arXiv 1708.06734), section 3:
        fc8 with a ReLU, 1000 wide, so that counts are not negative.
    Convention: half the size is the mean of 2 × 2 pixels, which no pixel of another quarter enters.
    Deviation: the paper's network has no batch norm. Where the encoder has it, all five go through it in one pass, and
        it normalises over them together: in passes of their own, wholes and quarters would each get the same mean,
        whatever is in them.

    Args:
        head: from features to embeddings.
        rectified: whether a ReLU follows it, so that embeddings are counts.
    """

    gives: ClassVar[str] = "views"

    head: Head
    rectified: bool = True

    def widths(self, views: int) -> list[tuple[int, ...]]:
        return [(self.head.widths[-1],) * 2] * views

    def build(self, new_encoder: "NewEncoder", seed: int) -> Method:
        encoder, width = new_encoder()
        return _TileSum(encoder, self.head.build(width, seed, "head"), self.rectified)


class _TileSum(Method):
    def __init__(self, encoder: nn.Module, head: nn.Module, rectified: bool) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.rectifier = nn.ReLU() if rectified else nn.Identity()

    def forward(self, rows: Rows) -> Outputs:
        made = [self._counted(view) for view in checked_views(rows, 1, "tile_sum")]
        return Outputs([f for features, _ in made for f in features], [group for _, group in made])

    def _counted(self, view: Images) -> tuple[list[Features], tuple[Embedding, Embedding]]:
        """Features of the whole and of each quarter; the embedding of the whole, and the sum of the quarters'."""
        n, quarters = len(view), cut(view, QUARTERS)  # which refuses sides that cannot be halved
        features = features_of(self.encoder, torch.cat([F.avg_pool2d(view, QUARTERS), quarters]))
        whole, parts = self.rectifier(self.head(features)).split([n, len(quarters)])
        of_places = features[n:].view(n, -1, features.shape[1]).unbind(1)
        return [features[:n], *of_places], (whole, parts.view(n, -1, whole.shape[1]).sum(dim=1))
