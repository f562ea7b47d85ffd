"""An image through encoder and projector, and its shuffled tiles through the same encoder: PIRL, InfoMin."""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from barlow.methods._networks import Method, checked_views, features_of
from barlow.methods._slow import Schedule, check_momentum, follow
from barlow.methods._tiles import TileHeads, Tiling, check_tiling
from barlow.nets.heads import Head
from barlow.types import Features, Outputs, Rows

if TYPE_CHECKING:
    from barlow.methods import NewEncoder

__all__ = ["ImageAndTiles"]


@dataclass(frozen=True, kw_only=True)
class ImageAndTiles:
    """What is made of an image and what is made of its tiles are compared with the same thing.

    Without a momentum (PIRL) the first view is the image, and the others are tiles; all are one group of embeddings,
    which an objective compares with a memory bank. With one (InfoMin) the second view goes through a slow copy of
    encoder and projector: it is the target of the first view and of the tiles, and each (p, t) is a group.

    Source: Misra and van der Maaten, Self-Supervised Learning of Pretext-Invariant Representations (arXiv 1912.01991),
        section 3.2: Linear to 128 for the image and for each of nine tiles, and Linear from 9 · 128 to 128. Tian et
        al., What Makes for Good Views for Contrastive Learning (arXiv 2005.10243); HobbitLong/PyContrast at 84f94ea,
        whose tiles have MoCo v2's head.
    Convention: all tiles have the same networks and lie in the order in which the op `tiles` has shuffled them. The
        slow copy moves after every update, as in `distillation`.
    Deviation: without groups of batch norm the encoder takes all tiles in one pass, so its batch norm normalises over
        them together; with groups it takes place after place, and each has the groups of the image. PyContrast shuffles
        the embeddings of tiles that lie in order, which is the same network on the same tiles.

    Args:
        projector: the head of the image.
        each: the head of every tile; null: none.
        tiles: the head that takes what all tiles give, side by side, to the embedding.
        tiling: rows and columns of the tiles in a view, as the op `tiles` lays them.
        momentum: τ of the slow copy, in [0, 1); null: there is none.
        momentum_schedule: "cosine" (to 1 at the end) or "constant" (MoCo).
        batch_norm_rows: batch norm takes its statistics from groups of so many rows, drawn anew in each step and
            differently for the slow copy; null: from the whole batch. See `distillation`.

    Raises:
        ValueError: heads that end in different widths, a tiling that is no two positive numbers, a momentum outside
            [0, 1), groups of fewer than two rows, or groups without a momentum.
    """

    projector: Head
    each: Head | None = None
    tiles: Head
    tiling: Tiling = (3, 3)
    momentum: float | None = None
    momentum_schedule: Schedule = "constant"
    batch_norm_rows: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tiling", check_tiling(self.tiling, "image_and_tiles"))
        if self.tiles.widths[-1] != self.projector.widths[-1]:
            raise ValueError(
                f"the heads of image and tiles end in {self.projector.widths[-1]} and {self.tiles.widths[-1]} features,"
                " and both are compared with the same thing: give both the same last width"
            )
        check_momentum(0.0 if self.momentum is None else self.momentum, self.momentum_schedule)
        if self.batch_norm_rows is not None and (self.batch_norm_rows < 2 or self.momentum is None):
            raise ValueError(
                f"batch_norm_rows is {self.batch_norm_rows} and momentum {self.momentum}: give groups of 2 rows or more"
                " and a momentum, since they are drawn apart for two networks, or null for the whole batch"
            )

    @property
    def gives(self) -> str:
        return "views" if self.momentum is None else "pairs"

    def widths(self, views: int) -> list[tuple[int, ...]]:
        width = self.projector.widths[-1]
        if self.momentum is None:
            return [(width,) * views] if views > 1 else []
        return [(width, width)] * (views - 1) if views > 2 else []

    def build(self, new_encoder: "NewEncoder", seed: int) -> Method:
        encoder, width = new_encoder()
        heads = TileHeads(
            self.tiling,
            width,
            each=self.each,
            rectified=False,
            together=self.tiles,
            seed=seed,
            by_place=self.batch_norm_rows is not None,
        )
        return _ImageAndTiles(encoder, self.projector.build(width, seed, "projector"), heads, self)


class _ImageAndTiles(Method):
    def __init__(self, encoder: nn.Module, projector: nn.Module, tiles: TileHeads, section: ImageAndTiles) -> None:
        super().__init__()
        self.encoder, self.projector, self.tiles = encoder, projector, tiles
        self.momentum, self.schedule = section.momentum, section.momentum_schedule
        self.batch_norm_rows = section.batch_norm_rows
        self.target = None
        if self.momentum is not None:
            self.target = nn.ModuleDict({"encoder": copy.deepcopy(encoder), "projector": copy.deepcopy(projector)})
            self.target.requires_grad_(False)

    def apart(self) -> dict[str, nn.Module]:
        # Those that are called with rows: batch norm in groups sorts what comes into each of them.
        heads = {"projector": self.projector, "each": self.tiles.each, "tiles": self.tiles.together}
        online = nn.ModuleDict({"encoder": self.encoder} | heads)
        networks: dict[str, nn.Module] = {"online": online}
        return networks if self.target is None else networks | {"target": self.target}

    def forward(self, rows: Rows) -> Outputs:
        first = 1 if self.target is None else 2
        image, *others = checked_views(rows, first + 1, "image_and_tiles")
        features: list[Features] = [features_of(self.encoder, image)]
        embeddings = [self.projector(features[0])]
        for view in others[first - 1 :]:
            of_view, z = self.tiles(self.encoder, view)
            features.append(of_view)
            embeddings.append(z)
        if self.target is None:
            return Outputs(features, [tuple(embeddings)])
        with torch.no_grad():
            t: Tensor = self.target["projector"](self.target["encoder"](others[0]))
        return Outputs(features, [(z, t) for z in embeddings])

    def after_step(self, progress: float) -> None:
        if self.target is not None and self.momentum is not None:
            online = [*self.encoder.parameters(), *self.projector.parameters()]
            follow(self.target.parameters(), online, self.momentum, self.schedule, progress)
