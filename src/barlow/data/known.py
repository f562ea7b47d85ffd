"""What is known of the images of a batch, beside their pixels."""

from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from barlow.data.captions import Captions
from barlow.types import Ids


@dataclass(frozen=True)
class Known:
    """Of every position in a source. What nothing asks for is None: objectives must not see labels that they need not.

    Args:
        labels: class numbers.
        captions: of which a step gets one for each image.
    """

    labels: Int64[Tensor, "count"] | None = None
    captions: Captions | None = None

    def of(self, ids: Ids, seed: int, epoch: int) -> dict[str, Tensor]:
        """What is known of some images in an epoch, by name; `ids` always."""
        found = {"ids": ids}
        if self.labels is not None:
            found["labels"] = self.labels[ids]
        if self.captions is not None:
            found["caption"] = self.captions.drawn(ids, seed, epoch)
        return found
