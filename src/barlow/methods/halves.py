"""One encoder of two halves (lightness and colour), each with a projector of its own: CMC."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from barlow.methods._networks import Method, checked_views, features_of
from barlow.nets.heads import Head
from barlow.types import Outputs, Rows

if TYPE_CHECKING:
    from barlow.methods import NewEncoder

__all__ = ["Halves"]


@dataclass(frozen=True, kw_only=True)
class Halves:
    """The first half of an encoder's features is compared with the second: each view is a group of both embeddings.

    It takes encoders of two networks that see different things of an image: `encoder.name: lab_resnet50` is two, of
    which one sees the lightness and the other the colour (`barlow.nets.lab_halves`). The run keeps both, and hands out
    their features side by side. Of one network both halves would see the same, and agree at once, so it is refused. A
    module of one's own says by a method `halves` that it is two.

    Source: Tian et al., Contrastive Multiview Coding (arXiv 1906.05849), section 3; HobbitLong/CMC at 7b227be,
        models/resnet.py.
    Convention: both halves are trained by the same loss, without a slow copy or a stop-gradient.
    Deviation: none.

    Args:
        projector: the head of each half; they share no weights.

    Raises:
        ValueError: an encoder that is one network, or whose number of features is odd.
    """

    gives: ClassVar[str] = "views"

    projector: Head

    def widths(self, views: int) -> list[tuple[int, ...]]:
        return [(self.projector.widths[-1],) * 2] * views

    def build(self, new_encoder: "NewEncoder", seed: int) -> Method:
        encoder, width = new_encoder()
        if not callable(getattr(encoder, "halves", None)):
            built = getattr(encoder, "built_as", None)
            raise ValueError(
                f"{built.name if built else type(encoder).__name__} is one network, and the method halves compares two "
                "that see different things of an image: take --encoder.name lab_resnet18 or lab_resnet50 (lightness "
                "and colour), or a module with a method `halves`"
            )
        if width % 2:
            raise ValueError(f"the encoder has {width} features, which have no halves: take one like lab_resnet50")
        heads = [self.projector.build(width // 2, seed, part) for part in ("projector", "second projector")]
        return _Halves(encoder, nn.ModuleList(heads))


class _Halves(Method):
    def __init__(self, encoder: nn.Module, projectors: nn.ModuleList) -> None:
        super().__init__()
        self.encoder, self.projectors = encoder, projectors

    def forward(self, rows: Rows) -> Outputs:
        features = [features_of(self.encoder, view) for view in checked_views(rows, 1, "halves")]
        halves = [f.chunk(2, dim=1) for f in features]
        heads = list(self.projectors)
        return Outputs(features, [tuple(head(f) for head, f in zip(heads, pair, strict=True)) for pair in halves])
