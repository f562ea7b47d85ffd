"""What the gradients written by hand have in common: how they multiply matrices, and that they have no derivative.

Both sums of squares use all of it: Barlow Twins' (`_cross_correlation.py`) and VICReg's (`_covariance.py`). W-MSE's
orthogonal factor (`_whitening.py`) uses `first_derivative_only` alone.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from barlow.types import Embedding

NARROW = 64
"""Up to this width matrices are multiplied in the precision they come in, even where a lower one is asked for.

A correlation near 0 is a sum of n numbers of order 1 that cancel. Over 4096 rows float32 keeps three or four digits of
it. In a wide matrix these errors average out over the entries. In a narrow one they do not, and there float64 costs
next to nothing.
"""


def first_derivative_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a backward function written by hand raise an error where its result would have to be differentiated.

    torch's own `once_differentiable` is not enough. Where the incoming gradient is a constant, it lets a second
    derivative pass and takes this gradient for a constant too: a wrong number and no error.
    """

    @functools.wraps(backward)
    def checked(ctx: Any, *gradients: Tensor | None) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("this gradient has no derivative of its own: call backward without create_graph=True")
        return backward(ctx, *gradients)

    return checked


def as_factor(x: Embedding, products: torch.dtype | None) -> Embedding:
    """The batch in the precision in which its products are taken: `products`, or its own where it is `NARROW`."""
    return x if products is None or x.shape[1] <= NARROW else x.to(products)


def add_product_(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Adds left @ right in place; the product has the precision of its factors, the sum that of the total."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def off_diagonal_squares_(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """Sets the diagonal to 0 in place, and returns the squares of what is left.

    Subtracting the diagonal's squares from the sum of all is no substitute: near the identity matrix the two nearly
    cancel, and the difference has no digits left.
    """
    return matrix.fill_diagonal_(0).square()
