"""One encoder that sees an image's lightness, and a head that tells the colour of each place."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from barlow.colour_spaces import grey_of_lightness, lab
from barlow.methods._networks import Method, checked_views, maps_of
from barlow.nets.heads import Head
from barlow.objectives._colour_bins import BINS
from barlow.size import Size, height_width, size_of
from barlow.types import Embedding, Features, Images, Outputs, Rows

if TYPE_CHECKING:
    from barlow.methods import NewEncoder

__all__ = ["Colorization"]


@dataclass(frozen=True, kw_only=True)
class Colorization:
    """The encoder is given each view without its colours, as a grey image of the same lightness, and has to name them.

    At each place of the map that the encoder's features are pooled from, a head makes logits of 313 colours for
    `fine` × `fine` places, which lie side by side; so they are as many as `grid` says, or are resampled to it. The
    targets are the a and b of CIE Lab, sub-sampled to the grid.

    Views are sRGB from 0 to 1: the recipe's mean is 0 and its deviation 1. The encoder takes RGB images. With one of
    the stems of lightness (`strided_lightness`) it sees of any image what it saw in training; with another stem it
    would see colours that it never learned to use.

    Source: Zhang, Isola, Efros, Colorful Image Colorization (arXiv 1603.08511); richzhang/colorization at 4aa459f,
        models/colorization_train_val_v2.prototxt: logits at a quarter of the image's side, and ab of every fourth
        pixel.
    Deviation: the head is a perceptron at each place of the last map, in place of dilated and transposed convolutions.

    Args:
        head: the layers before the last, from the channels of a place of the map; the last one, to the logits, is
            added.
        fine: places of the grid beside each other, and below each other, in one place of the map.
        grid: places of the predictions: the side of a square or (height, width). `auto`, in a recipe, is a quarter of
            the views' side, 128 at most.

    Raises:
        ValueError: a `fine` or `grid` out of range; views that are not RGB from 0 to 1.
    """

    gives: ClassVar[str] = "pairs"
    takes_pixels: ClassVar[bool] = True

    head: Head
    fine: int = 4
    grid: Size | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if not 1 <= self.fine <= MOST_FINE:
            raise ValueError(f"fine is {self.fine}: give places of the grid in one of the map, 1 to {MOST_FINE}")
        self._whole_head()  # or it is too large, and refused before anything is built
        if self.grid != "auto":
            object.__setattr__(self, "grid", size_of(self.grid, "grid", most=MOST_PLACES))

    def widths(self, views: int) -> list[tuple[int, ...]]:
        height, width = self._grid()
        return [(len(BINS) * height * width, 2 * height * width)] * views

    def build(self, new_encoder: "NewEncoder", seed: int) -> Method:
        encoder, width = new_encoder()
        return _Colorization(encoder, self._whole_head().build(width, seed, "head"), self.fine, self._grid())

    def resolved_for(self, view: Size) -> "Colorization":
        """The same with a grid of a quarter of the view's side, or the most there may be, where it is `auto`."""
        quarter = tuple(min(-(-side // QUARTER), MOST_PLACES) for side in height_width(view))
        return replace(self, grid=size_of(quarter)) if self.grid == "auto" else self

    def _whole_head(self) -> Head:
        """With its last layer, to the logits of all places in one of the map."""
        return replace(self.head, widths=[*self.head.widths, len(BINS) * self.fine**2])

    def _grid(self) -> tuple[int, int]:
        if self.grid == "auto":
            raise ValueError("the grid is auto: it is known once the size of the views is")
        return height_width(self.grid)


MOST_FINE, QUARTER = 20, 4
MOST_PLACES = 128
"""Of a side of the grid: the paper has 44. An image has 313 logits for each place."""


class _Colorization(Method):
    def __init__(self, encoder: nn.Module, head: nn.Module, fine: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.encoder, self.head, self.fine, self.grid = encoder, head, fine, grid

    def forward(self, rows: Rows) -> Outputs:
        features: list[Features] = []
        groups: list[tuple[Embedding, ...]] = []
        for view in checked_views(rows, 1, "colorization"):
            _check_pixels(view)
            found, places = maps_of(self.encoder, grey_of_lightness(view))
            features.append(found)
            groups.append((self._logits(places), self._colours(view)))
        return Outputs(features, groups)

    def _logits(self, places: Float[Tensor, "n c h w"]) -> Embedding:
        n, _, h, w = places.shape
        scores: Tensor = self.head(places.permute(0, 2, 3, 1).flatten(0, 2))
        scores = F.pixel_shuffle(scores.view(n, h, w, -1).permute(0, 3, 1, 2), self.fine)
        if scores.shape[2:] != self.grid:
            scores = F.interpolate(scores, size=self.grid, mode="bilinear")
        return scores.flatten(1)

    @torch.no_grad()
    def _colours(self, view: Images) -> Embedding:
        seen = F.interpolate(view, size=self.grid, mode="nearest")  # of every fourth pixel, where a quarter is kept
        return lab(seen)[:, 1:].flatten(1)


def _check_pixels(view: Images) -> None:
    low, high = view.aminmax()
    if view.shape[1] != 3 or not (low >= -SLACK and high <= 1 + SLACK):
        raise ValueError(
            f"views of {view.shape[1]} channels from {float(low):.3g} to {float(high):.3g}: colorization reads colours "
            "from RGB between 0 and 1; give RGB images, --data.mean '[0, 0, 0]' and --data.std '[1, 1, 1]'"
        )


SLACK = 1e-3
"""Resampling and blur leave the interval by rounding."""
