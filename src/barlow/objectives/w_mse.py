"""W-MSE: the distance between two views after each has been whitened."""

from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from barlow.objectives._directions import squared_distance
from barlow.objectives._inputs import check_one_of, full_precision, in_float64
from barlow.objectives._levels import Levels
from barlow.objectives._whitening import Whitening, whiten
from barlow.types import Embedding, Terms

__all__ = ["WMSE"]

Distance = Literal["cosine", "euclidean"]


@dataclass(frozen=True, kw_only=True)
class WMSE:
    """Views should point the same way once whitening has given every direction of the embedding the same variance.

    Each slice of k rows of each view is whitened on its own:
    w = L⁻¹ (z - mean), L Lᵀ = (1 - shrinkage) Σ + shrinkage I;
    loss = mean over rows of 2 - 2 cos(wₐ, w_b).

    Terms: ``distance``: 0 for equal views, about 2 for unrelated ones, and 4 at most.

    Source: Ermolov et al., Whitening for Self-Supervised Representation Learning (arXiv 2007.06346), section 3;
        htdt/self-supervised at d9662c8, methods/w_mse.py, methods/whitening.py, methods/norm_mse.py.
    Convention: that of the authors' code. Whitening is by Cholesky's factor with divisor k - 1, and every slice of
        every view is whitened on its own. Gradients go to all views and through the covariance. The loss is the mean
        over rows, pairs of views and slicings. It is unchanged by a shift of each view and by lower-triangular maps
        with a positive diagonal, but a permutation of the features changes it. With ZCA it is the other way round: a
        permutation or rotation of the features in all views changes nothing, but a triangular map does. The Euclidean
        distance is a mean over the features too, as in the authors' code. Whitening is in float64 (in float32 on
        devices without it), because a nearly singular covariance costs digits.
    Deviation: the authors draw new slices at every step. Here the first slicing takes contiguous rows (batches come
        shuffled), and each further one takes a fixed permutation, the same for every view, which depends on n and the
        slicing's number alone. The paper's formula whitens over all views together; here, as in the authors' code, each
        view is whitened on its own. A row that whitens to 0 has no direction: its cosine is 0, without gradient.

    Args:
        slice_rows: k, the number of rows that are whitened together. It divides n, and is above d unless there is
            shrinkage. None stands for 2 d, the authors' rule, or where that does not divide n, for the divisor that is
            nearest to it by ratio: with d = 32, a batch of 128 has slices of 64, one of 100 has slices of 50, and one
            of 97 is a slice as a whole.
        shrinkage: weight of the identity in the covariance, in [0, 1). It is 0 in the paper, and better left at 0 for
            training: directions of less variance than the shrinkage are no longer whitened, so the loss can be lowered
            by a collapse into few directions. With 0.001, runs on 64-pixel views did so (docs/choosing.md). Above 0,
            slices of fewer rows than features can be whitened.
        slicings: number of ways in which the rows are sliced, 1 or more; the loss is the mean over them. With one slice
            for the whole batch they are all the same.
        whitening: "cholesky" is the formula above. "zca" is w = Σ^(-1/2) (z - mean), with the shrinkage in Σ.
        distance: "cosine" is the formula above. With "euclidean" the loss is the mean over rows and features of
            (wₐ - w_b)².

    Raises:
        ValueError: hyper-parameters out of range; embeddings that are not aligned float matrices; n not a multiple of
            the slice; a slice of k ≤ d rows, or a collapsed embedding, without shrinkage (`SingularCovarianceError`).

    Example:
        >>> z = torch.tensor([[0.0], [1.0], [3.0], [4.0]])
        >>> WMSE()(z, 2 * z + 1)["distance"].item()
        0.0
    """

    spreads_by: ClassVar[str] = "decorrelation"

    slice_rows: int | None = None
    shrinkage: float = 0.0
    slicings: int = 1
    whitening: Whitening = "cholesky"
    distance: Distance = "cosine"

    def __post_init__(self) -> None:
        if self.slice_rows is not None and self.slice_rows < 2:
            raise ValueError(f"slice_rows is {self.slice_rows}: give 2 rows or more, or None for twice the width")
        if not 0 <= self.shrinkage < 1:
            raise ValueError(f"shrinkage is {self.shrinkage}: give a number in [0, 1); 1 would not whiten at all")
        if self.slicings < 1:
            raise ValueError(f"slicings is {self.slicings}: give 1 or more")
        check_one_of(get_args(Whitening), whitening=self.whitening)
        check_one_of(get_args(Distance), distance=self.distance)

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated directions are 2 apart, and so are, per feature, unrelated numbers of variance 1."""
        return Levels(2.0, 0.0)

    def __call__(self, *z: Embedding) -> Terms:
        with full_precision(z) as views:
            n, d = views[0].shape
            k = self._rows(n, d)
            stacked = torch.stack([in_float64(view) for view in views])
            rows = torch.stack([_row_order(n, slicing) for slicing in range(self.slicings)]).to(stacked.device)
            slices = stacked[:, rows].unflatten(2, (n // k, k))  # (view, slicing, slice, row in slice, feature)
            whitened = whiten(slices, self.shrinkage, method=self.whitening)
            if self.distance == "cosine":
                whitened = torch.nn.functional.normalize(whitened, dim=-1)
                distances = [squared_distance(ua, ub).mean() for ua, ub in combinations(whitened, 2)]
            else:
                distances = [(wa - wb).square().mean() for wa, wb in combinations(whitened, 2)]
            return {"distance": torch.stack(distances).mean().to(views[0].dtype)}

    def least_rows(self, width: int) -> int:
        """The rows of a slice of embeddings of this width: a batch should have so many, or a multiple."""
        return 2 * width if self.slice_rows is None else self.slice_rows

    def _rows(self, n: int, d: int) -> int:
        k = self.slice_rows
        if k is None:
            return self._near_twice_the_width(n, d)
        if k <= d and self.shrinkage == 0:
            raise ValueError(
                f"a slice of {k} rows (slice_rows) cannot whiten {d} features: set slice_rows above {d} (the authors "
                f"use 2 x {d} = {2 * d}), or use a narrower projector, or shrinkage > 0"
            )
        if n < k:
            raise ValueError(f"a batch of {n} rows is smaller than one slice of {k} (slice_rows): use a batch of {k}")
        if n % k:
            raise ValueError(
                f"a batch of {n} rows does not divide into slices of {k} (slice_rows): use a batch of {n // k * k} or "
                f"{(n // k + 1) * k}, or another slice_rows"
            )
        return k

    def _near_twice_the_width(self, n: int, d: int) -> int:
        """The divisor of n, of those that can whiten d features, whose ratio to 2 d is nearest to 1."""
        least = 2 if self.shrinkage > 0 else d + 1
        fitting = [k for k in range(least, n + 1) if n % k == 0]
        if not fitting:
            raise ValueError(
                f"a batch of {n} rows cannot whiten {d} features: use a batch of {2 * d} or a projector of "
                f"{max(n // 2, 1)} features or fewer, or another objective"
            )
        return min(fitting, key=lambda k: max(k / (2 * d), 2 * d / k))


def _row_order(n: int, slicing: int) -> Int64[Tensor, "n"]:
    """The order in which the rows are cut into slices. It depends on n and the slicing's number only."""
    if slicing == 0:
        return torch.arange(n)
    # numpy keeps the raw stream of a bit generator the same across versions, but not that of `permutation`.
    draws = np.random.PCG64([n, slicing]).random_raw(n)
    return torch.from_numpy(np.argsort(draws, kind="stable"))
