"""What every objective asks of its inputs, checked once, at the boundary."""

import math
import operator
from collections.abc import Sequence
from functools import reduce
from types import TracebackType

import torch

from barlow.linalg import Scalar
from barlow.types import Embedding

FEW = 16
"""A batch with at most this many rows, or this many features, is computed in float64: that costs next to nothing."""


def full_precision(views: Sequence[Embedding], *, fewest: int = 2) -> "_Views":
    """Checks the views and hands them out in float32 (in float64 if one of them is), with autocast off in the body.

    These losses are small differences and sums of squares over d² entries. Half precision loses the first and overflows
    on the second. The backward pass is left to the caller: like any other, it belongs outside autocast, which would
    take its products in half precision.

    Args:
        views: what the objective was called with.
        fewest: how many views it needs, and how many rows: 2 for one that compares views by statistics over the batch,
            1 for one that could be computed row by row.

    Raises:
        ValueError: fewer views or rows, or views that are not float matrices of one shape.
    """
    _check(views, fewest)
    dtype = torch.float64 if torch.float64 in [z.dtype for z in views] else torch.float32
    prepared = [z.to(dtype) for z in views]
    return _Views(prepared)


class _Views:
    """The views, and autocast switched off while they are in use.

    It is a class of its own because torch.compile breaks its graph inside one and goes on, and fails inside a
    `contextlib.nullcontext` that hands out a list.
    """

    def __init__(self, views: list[Embedding]) -> None:
        kind = views[0].device.type
        self.views = views
        self.off = torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else None

    def __enter__(self) -> list[Embedding]:
        if self.off is not None:
            self.off.__enter__()
        return self.views

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.off is not None:
            self.off.__exit__(kind, error, trace)


def _check(views: Sequence[Embedding], fewest: int) -> None:
    if len(views) < fewest:
        raise ValueError(f"an objective compares two views or more, got {len(views)}: call it as objective(za, zb)")
    first = getattr(views[0], "shape", None)
    for z in views:
        if not isinstance(z, torch.Tensor):
            raise TypeError(f"embeddings are tensors, got {type(z).__name__}: call it as objective(za, zb)")
        shape = z.shape
        if not z.is_floating_point():
            raise ValueError(f"embeddings are floating point, got {z.dtype}: convert them with .float()")
        if len(shape) != 2 or shape[1] == 0:
            raise ValueError(f"embeddings are (n, d) matrices, got shape {tuple(shape)}: flatten all but the rows")
        if shape != first:
            raise ValueError(
                f"all views have one shape, got {', '.join(str(tuple(v.shape)) for v in views)}: row i of each view "
                "comes from image i, and all come from one projector width"
            )
    if shape[0] < fewest:
        rows = "statistics over a batch need two rows or more" if fewest > 1 else "a mean over rows needs a row"
        raise ValueError(f"{rows}, got {shape[0]}: use a larger batch")


def in_float64(z: Embedding) -> Embedding:
    """The embedding in float64, or as it is on a device that has none (mps).

    It is meant for work that costs n × d, where every known form loses digits in float32.
    """
    return z if z.device.type == "mps" else z.double()


def few_in_float64(z: Embedding) -> Embedding:
    """The embedding as it is, or `in_float64` if it has few rows or few features (see `FEW`).

    With few rows, the gradient is a small difference of large numbers. Standardising removes two directions from it,
    that of the mean and that of the feature itself. Of three rows one direction remains, and of two rows only what eps
    leaves. With few features, a small correlation is such a difference too, and there are not enough of them for their
    errors to average out.
    """
    return in_float64(z) if min(z.shape) <= FEW else z


def mean(terms: Sequence[Scalar]) -> Scalar:
    """The mean of terms, of which there is one for each view or for each pair of views."""
    return reduce(operator.add, terms) / len(terms) if len(terms) > 1 else terms[0]


def check_non_negative(**values: float) -> None:
    """Raises ValueError for a hyper-parameter that is negative, infinite or NaN."""
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value}: give a finite number of 0 or more")


def check_positive(**values: float) -> None:
    """Raises ValueError for a hyper-parameter that is 0, negative, infinite or NaN."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}: give a finite number above 0")


def check_one_of(allowed: tuple[str, ...], **values: str) -> None:
    """Raises ValueError for a hyper-parameter that is not one of the allowed names."""
    for name, value in values.items():
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}: choose one of {', '.join(allowed)}")
