"""One encoder for every patch of a grid, and masked networks that predict patches from those above them."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from barlow.methods._networks import Method, checked_views, features_of
from barlow.nets.heads import PARAMETERS
from barlow.nets.norms import has_fixed_statistics
from barlow.nets.seeding import seeded
from barlow.types import Embedding, Features, Images, Outputs, Rows

if TYPE_CHECKING:
    from barlow.methods import NewEncoder

__all__ = ["CPC"]

Map = Float[Tensor, "n c rows columns"]

DIRECTIONS = 4

MOST_ROWS, MOST_WIDTH, MOST_BLOCKS = 16, 4_096, 64
"""The paper has 7, 64 and 5; every patch of a batch is compared with every other."""


@dataclass(frozen=True, kw_only=True)
class CPC:
    """The encoder sees the patches of a view one by one, and each row of them is predicted from the rows above it.

    The features of the patches lie in a map. In each of four directions a masked network looks at the map: at a place
    it sees the rows up to its own. From what it has seen there, a linear layer for each distance predicts the patch so
    many rows further on, as `width` numbers; another linear layer makes as many of the patch itself. For each direction
    and distance there is a group: the predictions of a view, and all of its patches.

    No patch may see another in the encoder, and batch norm would let it, so an encoder that has it is refused. For
    ResNets the option `norm_layer: groupnorm1` gives norms of one image. Batch norm whose statistics are fixed
    (`encoder.fixed_norms`) is taken.

    Source: Hénaff et al., Data-Efficient Image Recognition with Contrastive Predictive Coding (arXiv 1905.09272),
        section 2 and appendix; there is no official code; Lightning-Universe/lightning-bolts at 34958a8,
        models/self_supervised/cpc.
    Deviation: patches of an image are augmented together. The encoder that is kept gets whole images; the paper
        averages the features of patches.

    Args:
        grid: patches in a row, and in a column.
        patch: side of a patch in pixels, which leaves equal steps between patches; null: they overlap by about half.
        ahead: distances, in rows, that are predicted. Neighbours share pixels, so the paper leaves them out.
        width: numbers of a prediction.
        hidden: channels inside the blocks of the masked networks.
        blocks: of each masked network.

    Raises:
        ValueError: a grid, patch, distance or width out of range; an encoder with batch norm.
    """

    gives: ClassVar[str] = "pairs"

    grid: int = 7
    patch: int | None = None
    ahead: tuple[int, ...] = (2, 3)
    width: int = 64
    hidden: int = 256
    blocks: int = 5

    def __post_init__(self) -> None:
        ahead = tuple(self.ahead)
        object.__setattr__(self, "ahead", ahead)
        if not 2 <= self.grid <= MOST_ROWS or (self.patch is not None and self.patch < 1):
            raise ValueError(
                f"grid is {self.grid} and patch {self.patch}: give 2 to {MOST_ROWS} patches in a row, and their side "
                "in pixels or null"
            )
        if not ahead or sorted(set(ahead)) != list(ahead) or ahead[0] < 1 or ahead[-1] >= self.grid:
            raise ValueError(
                f"ahead is {list(ahead)}: give distances in rows, in order, from 1 to {self.grid - 1} of a grid of "
                f"{self.grid}, such as [1]"
            )
        if not (1 <= self.width <= MOST_WIDTH and 1 <= self.hidden <= MOST_WIDTH and 0 <= self.blocks <= MOST_BLOCKS):
            raise ValueError(
                f"width is {self.width}, hidden {self.hidden}, blocks {self.blocks}: give widths of 1 to "
                f"{MOST_WIDTH:,} and 0 to {MOST_BLOCKS} blocks"
            )
        if (numbers := DIRECTIONS * self.blocks * 5 * self.hidden**2) > PARAMETERS:
            raise ValueError(
                f"{self.blocks} blocks of {self.hidden} channels have {numbers:,} parameters in {DIRECTIONS} "
                f"directions: at most {PARAMETERS:,} are allowed"
            )

    def widths(self, views: int) -> list[tuple[int, ...]]:
        row = self.grid * self.width
        of_a_direction: list[tuple[int, ...]] = [((self.grid - rows) * row, self.grid * row) for rows in self.ahead]
        return of_a_direction * (DIRECTIONS * views)

    def build(self, new_encoder: "NewEncoder", seed: int) -> Method:
        encoder, features = new_encoder()
        _check_norms(encoder)
        looks = []
        for direction in range(DIRECTIONS):
            with seeded(seed, f"direction {direction}"):
                looks.append(_Direction(self, features))
        return _CPC(encoder, looks, self)


def _check_norms(encoder: nn.Module) -> None:
    """Refuses an encoder in which patches see each other."""
    norms = [
        name
        for name, module in encoder.named_modules()
        if isinstance(module, _BatchNorm) and not has_fixed_statistics(module)
    ]
    if norms:
        others = f" and {len(norms) - 1} others" if len(norms) > 1 else ""
        raise ValueError(
            f"the encoder has batch norm ({norms[0]}{others}), through which CPC's patches see what they are to "
            "predict: take norms of one image, for a ResNet --encoder.options '{norm_layer: groupnorm1}', or "
            "--encoder.fixed_norms true with given weights"
        )


class _CPC(Method):
    def __init__(self, encoder: nn.Module, directions: list["_Direction"], section: CPC) -> None:
        super().__init__()
        self.encoder, self.directions, self.section = encoder, nn.ModuleList(directions), section

    def forward(self, rows: Rows) -> Outputs:
        features: list[Features] = []
        groups: list[tuple[Embedding, ...]] = []
        for view in checked_views(rows, 1, "cpc"):
            seen = self._map(view)
            features.append(seen.mean((2, 3)))
            for turns, direction in enumerate(self.directions):
                groups += direction(torch.rot90(seen, turns, (2, 3)))
        return Outputs(features, groups)

    def _map(self, view: Images) -> Map:
        """The features of all patches, each at its place."""
        grid = self.section.grid
        cut = patches(view, grid, self.section.patch)
        return features_of(self.encoder, cut).view(len(view), grid, grid, -1).permute(0, 3, 1, 2)


class _Direction(nn.Module):
    """Predictions of the rows below, for each distance, and what they are compared with."""

    def __init__(self, section: CPC, features: int) -> None:
        super().__init__()
        self.context = nn.Sequential(
            *(_MaskedBlock(features, section.hidden) for _ in range(section.blocks)), nn.ReLU()
        )
        self.predict = nn.ModuleDict({str(rows): nn.Conv2d(features, section.width, 1) for rows in section.ahead})
        self.target = nn.Conv2d(features, section.width, 1)

    def forward(self, seen: Map) -> list[tuple[Embedding, ...]]:
        context, targets = self.context(seen), _in_order(self.target(seen))
        return [(_in_order(layer(context[:, :, : -int(rows)])), targets) for rows, layer in self.predict.items()]


class _MaskedBlock(nn.Module):
    """A residual block in which no place sees a row below its own: beside it, and one row up."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            OrderedDict(
                narrow=nn.Conv2d(features, hidden, 1),
                relu0=nn.ReLU(),
                beside=nn.Conv2d(hidden, hidden, (1, 3), padding=(0, 1)),
                shift=nn.ZeroPad2d((0, 0, 1, 0)),
                above=nn.Conv2d(hidden, hidden, (2, 1)),
                relu1=nn.ReLU(),
                widen=nn.Conv2d(hidden, features, 1),
            )
        )

    def forward(self, seen: Map) -> Map:
        made: Tensor = seen + self.layers(seen)
        return made


def _in_order(places: Map) -> Embedding:
    """The vectors of an image's places one after the other, row by row."""
    return places.permute(0, 2, 3, 1).flatten(1)


def patches(view: Images, grid: int, patch: int | None) -> Float[Tensor, "patches c h w"]:
    """An image's patches one after the other, row by row, and so image by image.

    Raises:
        ValueError: the patches do not fit the view in equal steps.
    """
    sides = [_side_and_step(side, grid, patch) for side in view.shape[2:]]
    (high, down), (wide, across) = sides
    cut = view.unfold(2, high, down).unfold(3, wide, across)
    return cut.permute(0, 2, 3, 1, 4, 5).reshape(-1, view.shape[1], high, wide)


def _side_and_step(side: int, grid: int, patch: int | None) -> tuple[int, int]:
    step = side // (grid + 1)
    length = side - (grid - 1) * step if patch is None else patch
    if patch is not None:
        step = max(0, side - patch) // (grid - 1)
    if step < 1 or length + (grid - 1) * step != side:
        raise ValueError(
            f"{grid} patches of {length} pixels do not fill {side} in equal steps: give a method.patch p with "
            f"(side - p) a multiple of {grid - 1}, such as {_fitting(side, grid)}, or null, or a smaller method.grid"
        )
    return length, step


def _fitting(side: int, grid: int) -> int:
    step = max(1, side // (grid + 1))
    return side - (grid - 1) * step
