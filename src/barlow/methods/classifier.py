"""One encoder and a linear classifier on it: rotation, supervised training."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

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
        head: from features to logits. `widths: [4]` is a linear layer to four classes. `auto`, in a recipe, is a linear
            layer to as many classes as the images have.
    """

    gives: ClassVar[str] = "one"

    head: Head | Literal["auto"]

    def widths(self, views: int) -> list[tuple[int, ...]]:
        return [(self._head().widths[-1],)] * views

    def build(self, new_encoder: "NewEncoder", seed: int) -> Method:
        encoder, width = new_encoder()
        return _Classifier(encoder, self._head().build(width, seed, "head"))

    def resolved(self, classes: int) -> "Classifier":
        """The same with a head where it is `auto`: a linear layer to so many classes."""
        linear = Head(widths=[classes], hidden_bias=True, last_bias=True)
        return replace(self, head=linear) if self.head == "auto" else self

    def _head(self) -> Head:
        if self.head == "auto":
            raise ValueError("the head is auto: the number of classes is known once the images are")
        return self.head


class _Classifier(Method):
    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, rows: Rows) -> Outputs:
        features = [features_of(self.encoder, view) for view in checked_views(rows, 1, "classifier")]
        return Outputs(features, [(self.head(f),) for f in features])
