"""Jigsaw: in which of a set of orders do the tiles of the image lie?"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from barlow.objectives._classification import Classes, cross_entropy
from barlow.objectives._levels import Levels
from barlow.orders import Distance, check_set, chosen_orders
from barlow.types import Embedding, Terms

__all__ = ["Jigsaw"]


@dataclass(frozen=True, kw_only=True)
class Jigsaw:
    """A classifier should tell in which of a set of orders the tiles of each image were laid.

    loss = mean over rows of -log softmax(logits)_order.

    The set is the objective's state, which a checkpoint holds. The op `tiles` tells the order itself, and the set says
    which class it is: so a network that was trained on one set never goes on with another.

    Terms: ``cross_entropy``, log of the number of orders where all are equally likely.

    Source: Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles (arXiv
        1603.09246), section 3; MehdiNoroozi/JigsawPuzzleSolver at 8c7ec09.
    Convention: class k is the order that is k-th by its rank (`barlow.orders`), counted from 0. A mean over rows.
        Unchanged by adding a number to all logits of a row. Computed in float64 (float32 on devices without it).
    Deviation: none in the formula. The authors' file numbers its orders as they were chosen.

    Args:
        permutations: how many orders, as the `orders` of the op `tiles`.
        tiles: how many tiles: nine of a grid of three.
        distance: mean or min: how the orders were chosen, as the op's `distance`.

    Raises:
        ValueError: a set that there is not; logits that are no (n, permutations) matrix of floats; an order that is not
            in the set.

    Example:
        >>> import torch
        >>> module = Jigsaw(permutations=8, tiles=4).build()
        >>> groups, told = [(torch.zeros(2, 8),)], torch.tensor([23, 23])  # tiles backwards: the last of 24 orders
        >>> round(module(groups, permutation=told)["cross_entropy"].item(), 4)  # log 8
        2.0794
    """

    permutations: int = 100
    tiles: int = 9
    distance: Distance = "mean"

    def __post_init__(self) -> None:
        check_set(self.tiles, self.permutations, self.distance)

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: all orders are equally likely."""
        return Levels(math.log(width), 0.0)

    def build(self) -> nn.Module:
        return _Jigsaw(torch.tensor(chosen_orders(self.tiles, self.permutations, self.distance)))


class _Jigsaw(nn.Module):
    """The set of orders, by their ranks."""

    orders: Int64[Tensor, "permutations tiles"]

    def __init__(self, orders: Int64[Tensor, "permutations tiles"]) -> None:
        super().__init__()
        self.register_buffer("orders", orders)

    def forward(self, groups: list[tuple[Embedding]], *, permutation: Classes) -> Terms:
        classes = self._classes(permutation)
        losses = [cross_entropy(z, classes, name="permutation", width=len(self.orders)) for (z,) in groups]
        return {"cross_entropy": torch.stack(losses).mean()}

    def _classes(self, told: Classes) -> Classes:
        """Which orders of the set these are, given by their ranks among all orders."""
        ranks = _ranks(self.orders)
        classes = torch.searchsorted(ranks, told).clamp(max=len(ranks) - 1)
        if not bool((ranks[classes] == told).all()):
            raise ValueError(
                f"the views lay tiles in orders that are not among the {len(ranks)} that this objective tells apart: "
                f"give the op tiles order: chosen, and the objective's permutations ({len(ranks)}), tiles "
                f"({self.orders.shape[1]}) and distance"
            )
        return classes


def _ranks(orders: Int64[Tensor, "permutations tiles"]) -> Int64[Tensor, "permutations"]:
    """The rank of each order among all orders of its tiles; as `barlow.orders.ranks_of`, wherever the set is."""
    tiles = orders.shape[1]
    weights = torch.tensor([math.factorial(tiles - 1 - place) for place in range(tiles)], device=orders.device)
    smaller_after = torch.stack([(orders[:, at + 1 :] < orders[:, at : at + 1]).sum(1) for at in range(tiles)], 1)
    return (smaller_after * weights).sum(1)
