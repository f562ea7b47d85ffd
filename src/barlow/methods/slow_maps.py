"""The first view goes through a slow copy of the encoder, which gives its maps; crops should tell what is in them."""

import copy
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from barlow.methods._networks import Method, Passes, checked_views, features_of_views
from barlow.methods._slow import Schedule, check_momentum, follow
from barlow.nets.maps import last_stages, maps_of
from barlow.types import Images, MapSizes, Outputs, Rows

if TYPE_CHECKING:
    from barlow.methods import NewEncoder

__all__ = ["SlowMaps"]


@dataclass(frozen=True, kw_only=True)
class SlowMaps:
    """A slow copy of the encoder sees the first view, the encoder all others; what is given of the first are maps.

    There is a group (p, t) for each view but the first: p are the encoder's features of the view, those that the run
    keeps, and t the slow copy's maps of the first view, of its last stages and before they are pooled, laid out in a
    row. All groups share the maps. Heads there are none: what predicts maps from features belongs to the objective.

    After every update the copy moves: slow ← τ slow + (1 - τ) online, over parameters.

    Source: Gidaris et al., Online Bag-of-Visual-Words Generation for Unsupervised Representation Learning (arXiv
        2012.11552), figure 2 and section 3.1; valeoai/obow at 3758504, obow/builder_obow.py.
    Convention: the copy is in train mode, and its batch norm collects running statistics of its own. The first update
        is made with τ = `momentum`.
    Deviation: the authors move the copy in the forward pass, before the update of the step and with the weights of the
        last one; moved after that last update, it is the same one.

    Args:
        levels: how many of the encoder's last stages give maps.
        border: positions that are left out at each edge of a map, as they see what is padded.
        momentum: τ, in [0, 1).
        momentum_schedule: "cosine" (to 1 at the end) or "constant".
        passes: each_view or each_size: which views the encoder takes in one pass, so that its batch norm sees them
            together.
        features: how many the encoder gives; `auto`, in a recipe: measured.
        maps: height, width and channels of each level's map without its border; `auto`, in a recipe: measured.

    Raises:
        ValueError: no levels, a negative border, a momentum outside [0, 1); an unknown schedule or `passes`; maps that
            are not as many as levels.
    """

    gives: ClassVar[str] = "pairs"

    levels: int = 2
    border: int = 1
    momentum: float = 0.99
    momentum_schedule: Schedule = "cosine"
    passes: Passes = "each_size"
    features: int | Literal["auto"] = "auto"
    maps: list[tuple[int, int, int]] | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        check_momentum(self.momentum, self.momentum_schedule)
        if self.passes not in get_args(Passes):
            raise ValueError(f"passes is {self.passes!r}: choose one of each_view, each_size")
        if self.levels < 1 or self.border < 0:
            raise ValueError(
                f"levels is {self.levels} and border {self.border}: give 1 or more levels, 0 or more border"
            )
        if self.maps != "auto" and (len(self.maps) != self.levels or min(map(min, self.maps)) < 1):
            raise ValueError(
                f"maps is {self.maps} and levels {self.levels}: give the height, width and channels of each level's "
                "map, all positive, or auto"
            )

    def widths(self, views: int) -> list[tuple[int, ...]]:
        features, sizes = self._sizes()
        return [(features, sum(map(prod, sizes)))] * max(views - 1, 0)

    def resolved(self, features: int, maps: MapSizes) -> "SlowMaps":
        """The same with what was measured in the place of `auto`."""
        return replace(
            self,
            features=features if self.features == "auto" else self.features,
            maps=list(maps) if self.maps == "auto" else self.maps,
        )

    def build(self, new_encoder: "NewEncoder", seed: int) -> Method:
        encoder, width = new_encoder()
        features, _ = self._sizes()
        if width != features:
            raise ValueError(f"method.features is {features}, and the encoder gives {width}: give {width}, or auto")
        return _SlowMaps(encoder, self)

    def _sizes(self) -> tuple[int, MapSizes]:
        if self.features == "auto" or self.maps == "auto":
            raise ValueError("features or maps are auto: they are known once the encoder and the size of images are")
        return self.features, self.maps


class _SlowMaps(Method):
    def __init__(self, encoder: nn.Module, section: SlowMaps) -> None:
        super().__init__()
        self.encoder, self.section = encoder, section
        self.stages = last_stages(encoder, section.levels)
        self.target = nn.ModuleDict({"encoder": copy.deepcopy(encoder)}).requires_grad_(False)

    def forward(self, rows: Rows) -> Outputs:
        first, *others = checked_views(rows, 2, "slow_maps")
        features = features_of_views(self.encoder, others, self.section.passes)
        t = self._maps(first)
        return Outputs(features, [(f, t) for f in features])

    @torch.no_grad()
    def _maps(self, view: Images) -> Tensor:
        maps = maps_of(self.target["encoder"], view, self.stages, self.section.border)
        return torch.cat([m.flatten(1) for m in maps], dim=1)

    def after_step(self, progress: float) -> None:
        s = self.section
        follow(self.target.parameters(), self.encoder.parameters(), s.momentum, s.momentum_schedule, progress)
