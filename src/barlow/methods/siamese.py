"""One encoder and one projector for every view: Barlow Twins, VICReg, W-MSE, SimCLR."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from torch import nn

from barlow.methods._networks import Method, checked_views, features_of, through
from barlow.nets.heads import Head
from barlow.types import Outputs, Rows

if TYPE_CHECKING:
    from barlow.methods import NewEncoder

__all__ = ["Siamese"]

BatchNormSees = Literal["each_view", "all_views"]


@dataclass(frozen=True, kw_only=True)
class Siamese:
    """Every view goes through the same encoder and the same projector, and all views are compared with each other.

    Source: Barlow Twins and VICReg, released code: each view takes a forward pass of its own through both networks
        (`each_view`). W-MSE, released code: the encoder takes the views one by one; the projector takes all of them in
        one pass, so that its batch norm normalises over all views together (`all_views`).

    Args:
        projector: the head between the encoder and the objective. The run does not keep it.
        batch_norm_sees: each_view or all_views: where the projector's batch norm takes its statistics from.

    Raises:
        ValueError: an unknown `batch_norm_sees`.
    """

    gives: ClassVar[str] = "views"

    projector: Head
    batch_norm_sees: BatchNormSees = "each_view"

    def __post_init__(self) -> None:
        if self.batch_norm_sees not in get_args(BatchNormSees):
            raise ValueError(f"batch_norm_sees is {self.batch_norm_sees!r}: choose one of each_view, all_views")

    def widths(self, views: int) -> list[tuple[int, ...]]:
        return [(self.projector.widths[-1],) * views]

    def build(self, new_encoder: "NewEncoder", seed: int) -> Method:
        encoder, width = new_encoder()
        return _Siamese(encoder, self.projector.build(width, seed, "projector"), self.batch_norm_sees == "all_views")


class _Siamese(Method):
    def __init__(self, encoder: nn.Module, projector: nn.Module, together: bool) -> None:
        super().__init__()
        self.encoder, self.projector, self.together = encoder, projector, together

    def forward(self, rows: Rows) -> Outputs:
        features = [features_of(self.encoder, view) for view in checked_views(rows, 1, "siamese")]
        return Outputs(features, [tuple(through(self.projector, features, self.together))])
