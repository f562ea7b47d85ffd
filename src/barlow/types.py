"""What goes through a step: rows in, outputs out, and the array types that both are made of.

Shapes are annotations, checked only in tests.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt
from torch import Tensor

Images = Float[Tensor, "n c h w"]
"""Batches of float images: in [0, 1] while view ops work on them, normalised once the view pipeline hands them out."""

Features = Float[Tensor, "n f"]
"""Encoder outputs: what probes and users read."""

Embedding = Float[Tensor, "n d"]
"""Projector outputs: what objectives read."""

Pixels = UInt[Tensor, "n c h w"]
"""Decoded images as they are held and cross process boundaries: uint8, or uint16 where 8 bits would lose levels."""

Ids = Int64[Tensor, "n"]
"""Sample ids: positions in the sorted listing of the data, stable when a file is quarantined."""

Embed = Callable[..., tuple[Ids, Embedding]]
"""Embeddings of all images, for an objective that looks at them (`barlow.objectives.ObjectiveWithState`)."""

Terms = dict[str, Float[Tensor, ""]]
"""Named, weighted scalar terms of an objective; their sum is the loss."""


def taken(pixels: Pixels, rows: Int64[Tensor, "k"]) -> Pixels:
    """Some of the images, in this order. (On a GPU torch does not index uint16, so its bits are indexed.)"""
    return pixels[rows] if pixels.dtype == torch.uint8 else pixels.view(torch.int16)[rows].view(pixels.dtype)


MapSizes = Sequence[tuple[int, int, int]]
"""Height, width and channels of each feature map of an image. As an objective reads them, they are laid out in a row,
one after the other: h × w × c numbers each, the channels of a position side by side."""


@dataclass(frozen=True)
class Rows:
    """Some rows of a step's global batch: the views, and what is known of each row."""

    views: list[Images]
    """Any number from one on, of any sizes; row i of each comes from sample i."""
    known: dict[str, Tensor]
    """Always `ids`; `labels` where they are asked for; and what a view op drew and tells (`rotation`)."""

    def __len__(self) -> int:
        return len(self.known["ids"])

    def __getitem__(self, part: slice) -> "Rows":
        """The same of a part of the rows."""
        return Rows([view[part] for view in self.views], {name: value[part] for name, value in self.known.items()})


@dataclass(frozen=True)
class Outputs:
    """What a method's networks make of some rows."""

    features: list[Features]
    """Of the encoder that the run keeps, a batch for each view that it saw."""
    groups: list[tuple[Embedding, ...]]
    """The embeddings that an objective compares: those of a group with each other. Barlow Twins has one group, of all
    views; BYOL has two, (prediction of view 1, target of view 2) and the other way round; a classifier has its logits
    alone in one."""

    def compared(self) -> dict[str, Features | Embedding]:
        """What is looked at for collapse: the first view's features, and its embeddings where views are compared.

        A classifier's logits are compared with classes, not with another view; to lie in few directions is their task.
        Nor are they looked at where a group has members of several widths, as logits of colours and the colours have.
        """
        first = {"features": self.features[0].detach()}
        if len(self.groups[0]) > 1 and self.groups[0][0].shape == self.groups[0][1].shape:
            first["embeddings"] = self.groups[0][0].detach()
        return first
