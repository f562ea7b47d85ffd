"""Groups of objectives whose members are of several widths: logits and colours, predictions and all candidates."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from oracles.vectors import batch_in
from torch import Tensor, nn

from barlow.objectives._colour_bins import BINS


@dataclass(frozen=True)
class OwnGroup:
    """How a group is made: of so many rows in a state, and of members that have nothing in common."""

    inputs: Callable[[str, int, int, int], list[Tensor]]
    """From state, rows, width and seed. Members agree, and are exact in float32."""
    unrelated: Callable[[int, int, int], list[Tensor]]
    """From rows, width and seed."""


PLACES = 2
"""Of an image whose colours are told."""


def _colours(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Which bin each place of n images has, and a and b near to it, in the order of targets. None is grey."""
    generator = torch.Generator().manual_seed(1_000 + seed)
    coloured = torch.tensor([i for i, colour in enumerate(BINS) if max(map(abs, colour)) > 10])
    right = coloured[torch.randint(len(coloured), (n, PLACES), generator=generator)]
    off = 3 * torch.rand(n, PLACES, 2, generator=generator, dtype=torch.float64) - 1.5
    ab = torch.tensor(BINS, dtype=torch.float64)[right] + off
    return right, ab.transpose(1, 2).flatten(1).float().double()


def _logits_and_colours(state: str, n: int, d: int, seed: int) -> list[Tensor]:
    right, ab = _colours(n, seed)
    logits, _ = batch_in(state, n, len(BINS) * PLACES, seed)
    sure = nn.functional.one_hot(right, len(BINS)).transpose(1, 2).flatten(1)
    return [(logits / logits.std() + 6 * sure).float().double(), ab]


WIDTH, PATCHES, PREDICTIONS = 8, 6, 4
"""Of CPC on a grid of three rows of two patches: two rows are predicted."""


def _predictions_and_patches(state: str, n: int, d: int, seed: int) -> list[Tensor]:
    a, b = batch_in(state, n, WIDTH * PATCHES, seed)
    return [a[:, -WIDTH * PREDICTIONS :], b]


def _of_nothing_in_common(n: int, d: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    counts = (PREDICTIONS, PATCHES)
    return [torch.randn(n, WIDTH * count, generator=generator, dtype=torch.float64) for count in counts]


OWN_GROUPS: dict[str, OwnGroup] = {
    "colorization": OwnGroup(
        _logits_and_colours,
        lambda n, d, seed: [torch.zeros(n, len(BINS) * PLACES, dtype=torch.float64), _colours(n, seed)[1]],
    ),
    "cpc": OwnGroup(_predictions_and_patches, _of_nothing_in_common),
}
"""By the objective's kind."""
