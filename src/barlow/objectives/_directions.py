"""Embeddings as directions: what the objectives that compare by cosines are made of."""

import torch
from jaxtyping import Float
from torch import Tensor

from barlow.linalg import Scalar
from barlow.objectives._inputs import in_float64
from barlow.types import Embedding

SHORTEST = 1e-12
"""Length up to which a row counts as a row of zeros: the eps of `torch.nn.functional.normalize`."""


def directions(z: Embedding) -> Embedding:
    """Scales each row to length 1. A row of zeros has no direction: it stays as it is and gets no gradient."""
    length = torch.linalg.vector_norm(z, dim=1, keepdim=True)
    directed = ~(length <= SHORTEST)  # a row with a NaN is no row of zeros: it has to stay one that is seen
    return torch.where(directed, z / torch.where(directed, length, 1), 0)


def prediction_error(p: Embedding, t: Embedding) -> Scalar:
    """The mean over rows of 2 - 2 cos(p, t), the target a constant, in float64 (float32 on devices without it)."""
    aim = directions(in_float64(t.detach()))
    return squared_distance(directions(in_float64(p)), aim).mean()


def squared_distance(a: Float[Tensor, "*rows d"], b: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows"]:
    """2 - 2 cos of each pair of directions, as the square of their difference.

    It is the same number, and keeps its digits where the two nearly agree. With a row that has no direction the cosine
    is 0.
    """
    undirected = (a == 0).all(dim=-1) | (b == 0).all(dim=-1)
    return torch.where(undirected, 2.0, (a - b).square().sum(dim=-1))
