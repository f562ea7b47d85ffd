"""One encoder and one projector for every view: the networks of Barlow Twins, VICReg and W-MSE."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from barlow.types import Embedding, Features, Ids, Images


@dataclass(frozen=True)
class Outputs:
    """What the networks made of a batch, one tensor per view, rows in the order of the ids."""

    features: list[Features]
    """Encoder outputs: what the run keeps."""
    embeddings: list[Embedding]
    """Projector outputs."""

    @property
    def compared(self) -> list[Embedding]:
        """What the objective reads."""
        return self.embeddings


class Siamese(nn.Module):
    """Every view through the same encoder and the same projector.

    Source: Barlow Twins and VICReg, released code: each view in a forward pass of its own through both networks
    (`each_view`). W-MSE, released code: the encoder takes the views one by one, the head all of them in one pass, so
    its batch norm normalises over all views together (`all_views`).

    Args:
        encoder: images to (n, features).
        projector: features to embeddings.
        batch_norm_sees: each_view or all_views: what the projector's batch norm takes its statistics from.

    Raises:
        ValueError: an unknown `batch_norm_sees`.
    """

    def __init__(
        self, encoder: nn.Module, projector: nn.Module, batch_norm_sees: Literal["each_view", "all_views"] = "each_view"
    ) -> None:
        super().__init__()
        if batch_norm_sees not in ("each_view", "all_views"):
            raise ValueError(f"batch_norm_sees {batch_norm_sees!r} is unknown; allowed: each_view, all_views")
        self.encoder = encoder
        self.projector = projector
        self.batch_norm_sees = batch_norm_sees

    def forward(self, views: Sequence[Images], ids: Ids | None = None) -> Outputs:
        """Features and embeddings of each view. `ids` are for methods that remember samples; this one does not.

        Raises:
            ValueError: no views, or the encoder's output is not (n, features).
        """
        if not views:
            raise ValueError("no views were given; give two or more batches of the same samples")
        features = [self._features(view) for view in views]
        if self.batch_norm_sees == "each_view":
            embeddings = [self.projector(f) for f in features]
        else:
            embeddings = list(self.projector(torch.cat(features)).split([len(f) for f in features]))
        return Outputs(features, embeddings)

    def _features(self, view: Tensor) -> Tensor:
        features = self.encoder(view)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(view):
            got = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(
                f"the encoder made {got} of images of shape {tuple(view.shape)}; it must return one row of features "
                "per image, (n, features): pool over space, and flatten"
            )
        return features
