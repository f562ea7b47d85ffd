"""What methods make of a view of tiles: each through the encoder, and all of them, side by side, through a head."""

import torch
from torch import nn

from barlow.methods._networks import features_of
from barlow.nets.heads import Head
from barlow.types import Embedding, Features, Images
from barlow.views.ops.tiles import cut

Tiling = tuple[int, int]
"""Rows and columns of the tiles of a view."""


def check_tiling(tiling: Tiling, method: str) -> Tiling:
    """Rows and columns as two integers; raises ValueError if they are no two positive ones."""
    if len(tiling) != 2 or min(tiling) < 1:
        raise ValueError(f"{method}: tiling is {list(tiling)}: give rows and columns of the tiles, [3, 3] for example")
    return int(tiling[0]), int(tiling[1])


class TileHeads(nn.Module):
    """From the features of a view's tiles to one embedding of the view.

    Args:
        tiling: rows and columns of the tiles.
        features: width of the encoder's features.
        each: the head of every tile, with the same weights for all; None: none.
        rectified: whether a ReLU follows it.
        together: the head that takes what they give, side by side in the order in which the tiles lie.
        seed: of the heads' weights.
        by_place: whether the encoder takes the tiles of one place after the other, and not all in one pass. Batch norm
            in groups needs it, which has groups for the rows of the batch.
        part: what the heads are in their method: two such modules of one method have other weights.
    """

    def __init__(
        self,
        tiling: Tiling,
        features: int,
        *,
        each: Head | None,
        rectified: bool,
        together: Head,
        seed: int,
        by_place: bool = False,
        part: str = "tiles",
    ) -> None:
        super().__init__()
        self.tiling, self.by_place = tiling, by_place
        self.each = each.build(features, seed, f"{part}, each") if each is not None else nn.Identity()
        width = each.widths[-1] if each is not None else features
        self.rectifier = nn.ReLU() if rectified else nn.Identity()
        self.together = together.build(tiling[0] * tiling[1] * width, seed, f"{part}, together")

    def forward(self, encoder: nn.Module, view: Images) -> tuple[Features, Embedding]:
        """The encoder's features, their mean over the tiles of each view, and the view's embedding.

        Tiles of one image show different things, so no two of them are held up as views that should agree.

        Args:
            encoder: takes the tiles of all rows in one pass.
            view: tiles side by side, as the ops `tiles` and `patch_pair` lay them.
        """
        if self.by_place:
            tiles = cut(view, self.tiling)
            each_place = tiles.view(len(view), -1, *tiles.shape[1:]).unbind(1)
            of_places = [features_of(encoder, place) for place in each_place]
            parts = torch.cat([self.rectifier(self.each(f)) for f in of_places], dim=1)
            return torch.stack(of_places).mean(0), self.together(parts)
        features = features_of(encoder, cut(view, self.tiling))
        parts = self.rectifier(self.each(features))
        of_views = features.view(len(view), -1, features.shape[1]).mean(1)
        return of_views, self.together(torch.flatten(parts.view(len(view), -1, parts.shape[1]), 1))
