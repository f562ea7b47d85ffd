"""How features lie: along their axes, beside each other, and on the sphere. No labels are needed."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from barlow.diagnostics.rank import Grouped, Rows
from barlow.linalg import Scalar, at_least_float32, center, standardize

PAIRS_OF = 5_000
"""Rows of which all pairs are compared. So many give uniformity to three digits, and take less than a second."""

BLOCK = 1_024
"""Features whose correlations are computed at a time, with those that come after them: half of a symmetric table, of
which that of 8,192 features would be 268 MB."""

DEAD = 1e-3
"""A feature whose spread is this small beside the typical one is no part of the representation. For comparison,
bfloat16 rounds by 4e-3."""


def per_dimension_std(x: Rows) -> Float[Tensor, "d"]:
    """Each feature's standard deviation over the rows, after each row is scaled to length √d.

    So isotropic rows give 1 everywhere, whatever the features' scale.

    Source: SimSiam (arXiv 2011.10566), section 4.1, whose rows have length 1, and whose ideal is 1/√d therefore.
    Convention: divisor n.
    """
    rows = torch.nn.functional.normalize(scaled(x), dim=1) * math.sqrt(x.shape[1])
    return center(rows).square().mean(0).sqrt()


def dead(x: Rows) -> Float[Tensor, "d"]:
    """Which features vary by less than 1/1000 of the root mean square of all features' spreads (`DEAD`)."""
    spread = center(scaled(x)).square().mean(0).sqrt()
    return ~(spread > DEAD * spread.square().mean().sqrt())


def correlations(x: Rows, columns: int | None = None) -> tuple[Scalar, Scalar]:
    """The mean and the largest |correlation| of two different features, of those that are not dead.

    Args:
        x: features or embeddings.
        columns: of wider ones so many are looked at, evenly spaced. None: all of them.

    Returns:
        Both 0 where fewer than two features are alive.
    """
    x = center(scaled(x))[:, ~dead(x)]
    if (d := x.shape[1]) < 2:
        return x.new_zeros(()), x.new_zeros(())
    if columns is not None and d > columns:
        x = x[:, torch.linspace(0, d - 1, columns, device=x.device).long()]
        d = columns
    z = standardize(x / x.abs().amax(0)).x  # unscaled, the squares of very small features would be 0
    total, most = x.new_zeros(()), x.new_zeros(())
    for start in range(0, d, BLOCK):
        table = (z[:, start : start + BLOCK].T @ z[:, start:] / len(z)).abs_()
        table.fill_diagonal_(0)
        own = len(table)
        total = total + table[:, :own].sum() + 2 * table[:, own:].sum()
        most = torch.maximum(most, table.amax())
    return total / (d * (d - 1)), most


def alignment(views: Grouped) -> float:
    """The mean squared distance of two views of one image, both of length 1: 0 if they are equal, 2 on average if they
    have nothing to do with each other.

    Source: Wang and Isola (arXiv 2005.10242), with their exponent 2.
    Convention: all pairs of views.
    """
    return 2 - 2 * cosine_between_views(views)


def cosine_between_views(views: Grouped) -> float:
    """The mean cosine of two views of one image, over all pairs of views.

    Raises:
        ValueError: there are not two views.
    """
    _, q, _ = views.shape
    if q < 2:
        raise ValueError(f"two views or more are compared, got {tuple(views.shape)}, (n, q, d)")
    unit = torch.nn.functional.normalize(at_least_float32(views.detach()), dim=-1)
    # The sum over all pairs of views, each with itself included, is the squared length of the views' sum.
    of_all = unit.sum(1).square().sum(-1)
    return float(((of_all - unit.square().sum((1, 2))) / (q * (q - 1))).mean())


def uniformity(x: Rows, *, t: float = 2.0) -> float:
    """ln of the mean of exp(-t ‖zᵢ - zⱼ‖²) over pairs of different rows of length 1: 0 if all are equal.

    Source: Wang and Isola (arXiv 2005.10242), t = 2.
    Convention: pairs i < j. Of more than 5,000 rows, 5,000 evenly spaced ones are read.

    Raises:
        ValueError: there are not two rows.
    """
    if len(x) < 2:
        raise ValueError(f"uniformity compares two rows or more, got {tuple(x.shape)}")
    x = x.detach()
    if len(x) > PAIRS_OF:
        x = x[torch.linspace(0, len(x) - 1, PAIRS_OF, device=x.device).long()]
    unit = torch.nn.functional.normalize(at_least_float32(x), dim=1)
    n, total = len(unit), 0.0
    for start in range(0, n, 1_000):  # all at once would be a matrix of 200 MB
        block = unit[start : start + 1_000]
        near = (block @ unit[start:].T - 1).mul_(2 * t).exp_()  # ‖a - b‖² = 2 - 2 a·b
        own = near[:, : len(block)]
        total += float(near[:, len(block) :].double().sum()) + float(own.double().triu(1).sum())
    return math.log(total / (n * (n - 1) / 2))


def scaled(x: Rows) -> Rows:
    """Features in float32 or more, with a largest value of 1: otherwise squares could overflow or vanish."""
    x = at_least_float32(x.detach())
    return x / x.abs().amax().clamp_min(torch.finfo(x.dtype).tiny)
