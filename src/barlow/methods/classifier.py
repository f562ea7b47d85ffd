"""One encoder and a linear classifier on it: rotation, supervised training."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from barlow.methods._networks import Method, checked_views, features_of
from barlow.nets.heads import Head
from barlow.types import Outputs, Rows

if TYPE_CHECKING:
    from barlow.methods import NewEncoder

__all__ = ["Classifier"]


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """Every view is classified on its own: the objective is called with the logits of one view at a time.

    Source: Gidaris et al., Unsupervised Representation Learning by Predicting Image Rotations (arXiv 1803.07728): a
        network with four outputs, one for each rotation.

    Args:
        head: from features to logits. `widths: [4]` is a linear layer to four classes.
    """

    gives: ClassVar[str] = "one"

    head: Head

    def widths(self, views: int) -> list[tuple[int, ...]]:
        return [(self.head.widths[-1],)] * views

    def build(self, new_encoder: "NewEncoder", seed: int) -> Method:
        encoder, width = new_encoder()
        return _Classifier(encoder, self.head.build(width, seed, "head"))


class _Classifier(Method):
    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, rows: Rows) -> Outputs:
        features = [features_of(self.encoder, view) for view in checked_views(rows, 1, "classifier")]
        return Outputs(features, [(self.head(f),) for f in features])
