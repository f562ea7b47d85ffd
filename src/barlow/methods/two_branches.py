"""Two encoders, each with a projector of its own: the first view goes through one, the second through the other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from barlow.methods._networks import Method, checked_views, features_of
from barlow.nets.heads import Head
from barlow.types import Outputs, Rows

if TYPE_CHECKING:
    from barlow.methods import NewEncoder

__all__ = ["TwoBranches"]


@dataclass(frozen=True, kw_only=True)
class OtherEncoder:
    """An encoder of another architecture, as the recipe's section `encoder` describes the run's own."""

    name: str
    stem: str = "as_is"
    zero_init_last: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TwoBranches:
    """Branches that share no weights, and perhaps not even an architecture. The objective compares their embeddings.

    Views 1, 3, ... go through the recipe's `encoder` and `projector`, views 2, 4, ... through the other branch. The run
    keeps the first branch: it is what `encoder/` holds and what is evaluated. The other one is in the checkpoints. The
    first lines of a run say so, and so do `encoder/config.json` and the card of an export.

    Source: Bardes, Ponce, LeCun, VICReg (arXiv 2105.04906), table 5, for VICReg, Barlow Twins and SimCLR with shared
        weights, different weights and different architectures.
    Convention: both branches are trained by the same loss, without a slow copy or a stop-gradient.
    Deviation: which view goes through which branch is not said in the paper.

    Args:
        projector: the head of the first branch.
        other: the encoder of the other branch; null: the architecture of the recipe's encoder, with weights of its own.
        other_projector: the head of the other branch; null: one like the first, with weights of its own.

    Raises:
        ValueError: projectors whose embeddings differ in width.
    """

    gives: ClassVar[str] = "views"

    projector: Head
    other: OtherEncoder | None = None
    other_projector: Head | None = None

    def __post_init__(self) -> None:
        if self.other_projector is not None and self.other_projector.widths[-1] != self.projector.widths[-1]:
            raise ValueError(
                f"the projectors end in {self.projector.widths[-1]} and {self.other_projector.widths[-1]} features, "
                "and embeddings of both branches are compared: give both the same last width"
            )

    def widths(self, views: int) -> list[tuple[int, ...]]:
        return [(self.projector.widths[-1],) * views] if views > 1 else []

    def kept(self, encoder: str) -> str:
        other = f"another {encoder}" if self.other is None else self.other.name
        return f"first of two branches ({encoder}, of views 1, 3, …); the other ({other}) is in the checkpoints alone"

    def build(self, new_encoder: "NewEncoder", seed: int) -> Method:
        encoder, width = new_encoder()
        changes = {} if self.other is None else {**vars(self.other), "options": dict(self.other.options)}
        other, other_width = new_encoder(part="other", **changes)
        head = self.other_projector or self.projector
        return _TwoBranches(
            encoder,
            self.projector.build(width, seed, "projector"),
            other,
            head.build(other_width, seed, "other projector"),
        )


class _TwoBranches(Method):
    def __init__(self, encoder: nn.Module, projector: nn.Module, other: nn.Module, other_projector: nn.Module) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, projector
        self.other = nn.ModuleDict({"encoder": other, "projector": other_projector})

    def forward(self, rows: Rows) -> Outputs:
        views = checked_views(rows, 2, "two_branches")
        features = [features_of(self.other["encoder"] if i % 2 else self.encoder, v) for i, v in enumerate(views)]
        z = [(self.other["projector"] if i % 2 else self.projector)(f) for i, f in enumerate(features)]
        return Outputs(features[::2], [tuple(z)])
