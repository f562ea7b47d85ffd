"""Jigsaw's loss by loops, from the orders themselves: which order is told is counted in the list of all."""

from itertools import islice, permutations

import torch
from oracles import classification
from torch import Tensor


def jigsaw(logits: Tensor, told: Tensor, orders: list[tuple[int, ...]]) -> Tensor:
    """The mean surprisal of the order of each row.

    Args:
        logits: a score for each order of the set.
        told: of each row, the number of its order in the list of all orders.
        orders: the set.
    """
    tiles = range(len(orders[0]))
    classes = []
    for number in told.tolist():
        order = next(islice(permutations(tiles), number, None))
        classes.append(orders.index(order))
    return classification.cross_entropy(logits, torch.tensor(classes))
