"""One encoder and one projector for every view: Barlow Twins, VICReg, W-MSE, SimCLR."""

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from torch import nn

from barlow.methods._networks import Method, Passes, checked_views, features_of_views, through
from barlow.nets.heads import Head
from barlow.types import Outputs, Rows

if TYPE_CHECKING:
    from barlow.methods import NewEncoder

__all__ = ["Siamese"]

BatchNormSees = Literal["each_view", "all_views"]


@dataclass(frozen=True, kw_only=True)
class Siamese:
    """Every view goes through the same encoder and the same projector, and all views are compared with each other.

    With small crops beside large ones (multi-crop) two things may differ. `passes: each_size` takes all views of a size
    through the encoder at once, so that its batch norm normalises over them together. `large: 2` says that the first
    two views are large; then the groups are the pairs of views of which at least one is large, in place of one group of
    all views, and the objective's mean over groups is the mean over these pairs.

    Source: Barlow Twins and VICReg, released code: each view takes a forward pass of its own through both networks
        (`each_view`). W-MSE, released code: the encoder takes the views one by one; the projector takes all of them in
        one pass, so that its batch norm normalises over all views together (`all_views`). Multi-crop: SwAV (arXiv
        2006.09882), section 3.3; facebookresearch/swav at 06b1b7c, src/resnet50.py, whose encoder takes each size in
        one pass and whose head takes all views in one.
    Deviation: Barlow Twins, VICReg and W-MSE were published without small crops; the mean over the pairs with a large
        view is ours.

    Args:
        projector: the head between the encoder and the objective. The run does not keep it.
        batch_norm_sees: each_view or all_views: where the projector's batch norm takes its statistics from.
        passes: each_view or each_size: which views the encoder takes in one pass.
        large: how many views are large, from the first on; null: all views are compared with each other.

    Raises:
        ValueError: an unknown `batch_norm_sees` or `passes`; less than one large view.
    """

    gives: ClassVar[str] = "views"

    projector: Head
    batch_norm_sees: BatchNormSees = "each_view"
    passes: Passes = "each_view"
    large: int | None = None

    def __post_init__(self) -> None:
        if self.batch_norm_sees not in get_args(BatchNormSees):
            raise ValueError(f"batch_norm_sees is {self.batch_norm_sees!r}: choose one of each_view, all_views")
        if self.passes not in get_args(Passes):
            raise ValueError(f"passes is {self.passes!r}: choose one of each_view, each_size")
        if self.large is not None and self.large < 1:
            raise ValueError(f"large is {self.large}: give the number of large views, 2 for example, or null")

    def widths(self, views: int) -> list[tuple[int, ...]]:
        return [(self.projector.widths[-1],) * len(compared) for compared in self.compared(views)]

    def compared(self, views: int) -> list[tuple[int, ...]]:
        """The views of each group, counted from 0."""
        if self.large is None:
            return [tuple(range(views))]
        return [(i, j) for i, j in combinations(range(views), 2) if i < self.large]

    def build(self, new_encoder: "NewEncoder", seed: int) -> Method:
        encoder, width = new_encoder()
        return _Siamese(encoder, self.projector.build(width, seed, "projector"), self)


class _Siamese(Method):
    def __init__(self, encoder: nn.Module, projector: nn.Module, section: Siamese) -> None:
        super().__init__()
        self.encoder, self.projector, self.section = encoder, projector, section

    def forward(self, rows: Rows) -> Outputs:
        views = checked_views(rows, 1 if self.section.large is None else 2, "siamese")
        features = features_of_views(self.encoder, views, self.section.passes)
        z = through(self.projector, features, self.section.batch_norm_sees == "all_views")
        return Outputs(features, [tuple(z[i] for i in group) for group in self.section.compared(len(views))])
