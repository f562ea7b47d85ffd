"""All diagnostics of features by name, each with the lowest and highest value that n rows of d features can have."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from barlow.diagnostics import geometry, rank
from barlow.diagnostics.rank import EPSILON, Grouped, Rows, Spectrum

COLUMNS = 2_048
"""Of wider features so many are correlated, evenly spaced: the cost grows with the square."""

PUBLISHED_RANGE = (11, 100)
"""Eigenvalues that α is fitted over, where there are so many."""


@dataclass(frozen=True)
class Sample:
    """Features of q views of each of n images, and what several diagnostics read of them."""

    views: Grouped

    @property
    def rows(self) -> Rows:
        """The first view of each."""
        return self.views[:, 0]

    @cached_property
    def raw(self) -> Spectrum:
        """The rows' singular values as they are."""
        return rank.singular_values(self.rows, centred=False)

    @cached_property
    def centred(self) -> Spectrum:
        """Those of the centred rows."""
        return rank.singular_values(self.rows, centred=True)

    @cached_property
    def correlations(self) -> tuple[float, float]:
        """Mean and maximum."""
        mean, most = geometry.correlations(self.rows, COLUMNS)
        return float(mean), float(most)


@dataclass(frozen=True)
class Shape:
    """n images, q views of each, d features."""

    n: int
    q: int
    d: int

    @property
    def directions(self) -> int:
        """As many as n centred rows can spread over."""
        return min(self.n - 1, self.d)


Bounds = tuple[float, float]


@dataclass(frozen=True)
class Diagnostic:
    """A number that says something about features."""

    name: str
    what: str
    value: Callable[[Sample], float]
    bounds: Callable[[Shape], Bounds]
    """The lowest and the highest that it can be where images differ and no feature is dead; otherwise it may be 0."""
    views: int = 1
    """How many of each image it takes."""
    better: str = ""
    """Which direction is good, and what its ends mean."""


@dataclass(frozen=True)
class Reading:
    """What a diagnostic gave, between its floor and its ceiling."""

    value: float
    floor: float
    ceiling: float


def _entropy_bounds(count: int, epsilon: float) -> Bounds:
    """Of `rank.entropy_rank` of so many shares: all in one, and all equal."""
    one, zero, even = (-p * math.log(p) if p else 0.0 for p in (1 + epsilon, epsilon, 1 / count + epsilon))
    return math.exp(one + (count - 1) * zero), math.exp(count * even)


def _from_one(shape: Shape) -> Bounds:
    return 1.0, float(max(shape.directions, 1))


def _share(_: Shape) -> Bounds:
    return 0.0, 1.0


def _mean_square_correlation(shape: Shape) -> float:
    """No less can be the mean of corr(i, j)² of n rows: the table has rank n - 1, and ones on its diagonal."""
    n, d = shape.n, min(shape.d, COLUMNS)
    return max(0.0, (d - (n - 1)) / ((n - 1) * (d - 1))) if d > 1 else 0.0


def _uniformity_floor(shape: Shape, t: float = 2.0) -> float:
    """Two bounds, of which the higher holds.

    By convexity, the mean over pairs is least if all distances are equal, as in a simplex: ‖zᵢ - zⱼ‖² = 2n / (n - 1).
    And the kernel is positive definite, so that its mean over all pairs, with each row and itself, is no less than that
    of the uniform distribution: e⁻²ᵗ ₀F₁(d/2; t²).
    """
    n = min(shape.n, geometry.PAIRS_OF)
    term, spread = 1.0, 1.0
    for k in range(1, 200):
        term *= t * t / (k * (shape.d / 2 + k - 1))
        spread += term
    uniform = math.exp(-2 * t) * spread
    return math.log(max(math.exp(-t * 2 * n / (n - 1)), (n * uniform - 1) / (n - 1)))


def _alpha(first: int, last: int) -> Diagnostic:
    return Diagnostic(
        f"alpha_req_{first}_{last}",
        f"how fast the eigenvalues {first} to {last} fall: 0 is a flat spectrum",
        lambda sample: rank.alpha_req_of(sample.centred, first, last),
        lambda shape: (0.0, math.inf),
        better="a band: near 1 is best; far below lies noise, far above are few directions",
    )


DIAGNOSTICS: tuple[Diagnostic, ...] = (
    Diagnostic(
        "rankme",
        "directions in use, the mean's included (RankMe)",
        lambda sample: rank.entropy_rank(sample.raw, EPSILON),
        lambda shape: _entropy_bounds(min(shape.n, shape.d), EPSILON),
        better="more is better; near 1 is a collapse, and pure noise has most of all",
    ),
    Diagnostic(
        "effective_rank",
        "directions in use around the mean",
        lambda sample: rank.entropy_rank(sample.centred, 0.0),
        _from_one,
        better="more is better; near 1 is a collapse, and pure noise has most of all",
    ),
    Diagnostic(
        "stable_rank",
        "all energy over that of the strongest direction, the mean's included",
        lambda sample: rank.stable_rank_of(sample.raw),
        lambda shape: (1.0, float(min(shape.n, shape.d))),
        better="more is better; near 1, one direction has nearly all",
    ),
    Diagnostic(
        "participation_ratio",
        "directions of equal variance that would give this spectrum",
        lambda sample: rank.participation_ratio_of(sample.centred),
        _from_one,
        better="more is better; near 1, one direction has nearly all",
    ),
    Diagnostic(
        "top_eigenvalue_share",
        "share of the variance in one direction",
        lambda sample: rank.top_eigenvalue_share_of(sample.centred),
        lambda shape: (1 / max(shape.directions, 1), 1.0),
        better="less is better; near 1, all lies on a line",
    ),
    Diagnostic(
        "std",
        "spread of a feature, of rows of length √d: 1 is isotropic",
        lambda sample: float(geometry.per_dimension_std(sample.rows).mean()),
        _share,
        better="more is better, up to 1; near 0, all images have one output",
    ),
    Diagnostic(
        "dead",
        "share of features that hardly vary",
        lambda s: float(geometry.dead(s.rows).float().mean()),
        _share,
        better="less is better",
    ),
    Diagnostic(
        "mean_abs_correlation",
        "mean absolute correlation of two features",
        lambda sample: sample.correlations[0],
        lambda shape: (_mean_square_correlation(shape), 1.0),
        better="less is better; near 1, features repeat each other",
    ),
    Diagnostic(
        "max_abs_correlation",
        "largest absolute correlation of two features",
        lambda sample: sample.correlations[1],
        lambda shape: (_mean_square_correlation(shape) ** 0.5, 1.0),
        better="less is better; at 1, two features are one",
    ),
    Diagnostic(
        "uniformity",
        "how evenly rows lie on the sphere: 0 if all are equal",
        lambda sample: geometry.uniformity(sample.rows),
        lambda shape: (_uniformity_floor(shape), 0.0),
        better="less is better; near 0, all images have one output",
    ),
    Diagnostic(
        "alignment",
        "squared distance of two views of an image: 2 if they have nothing in common",
        lambda sample: geometry.alignment(sample.views),
        lambda shape: (0.0, 2 + 2 / (shape.q - 1)),
        views=2,
        better="less is better, but 0 of all images is a collapse as well",
    ),
    Diagnostic(
        "cosine_between_views",
        "cosine of two views of an image",
        lambda sample: geometry.cosine_between_views(sample.views),
        lambda shape: (-1 / (shape.q - 1), 1.0),
        views=2,
        better="more is better, but 1 of all images is a collapse as well",
    ),
    Diagnostic(
        "lidar",
        "directions along which images differ more than their views (δ 1e-4)",
        lambda sample: rank.lidar(sample.views),
        lambda shape: _lidar_bounds(shape),
        views=2,
        better="more is better, at the same numbers of images and views",
    ),
    Diagnostic(
        "lidar_relative",
        "the same with δ 1e-4 of the views' own variance",
        lambda sample: rank.lidar(sample.views, relative=True),
        lambda shape: _lidar_bounds(shape),
        views=2,
        better="more is better, at the same numbers of images and views",
    ),
)
"""All but α-ReQ, whose name has the range of its fit."""


def told_of(name: str) -> str:
    """What a diagnostic is, and which direction is good; nothing of a name that is not known.

    Example:
        >>> told_of("dead")
        'share of features that hardly vary: less is better'
    """
    found = {each.name: each for each in DIAGNOSTICS}
    if (fitted := re.fullmatch(r"alpha_req_(\d{1,6})_(\d{1,6})", name)) is not None:
        found[name] = _alpha(int(fitted[1]), int(fitted[2]))
    return f"{found[name].what}: {found[name].better}" if name in found else ""


def _lidar_bounds(shape: Shape) -> Bounds:
    """n - 1 shares may differ from zero; the others add what ε makes of them."""
    floor, _ = _entropy_bounds(shape.d, EPSILON)
    even, zero = (-p * math.log(p) for p in (1 / shape.directions + EPSILON, EPSILON))
    return floor, math.exp(shape.directions * even + (shape.d - shape.directions) * zero)


def fitting(shape: Shape) -> Iterator[Diagnostic]:
    """Those that features of a shape allow."""
    yield from (each for each in DIAGNOSTICS if shape.q >= each.views)
    if shape.directions >= PUBLISHED_RANGE[1]:
        yield _alpha(*PUBLISHED_RANGE)
    elif shape.directions >= 8:
        yield _alpha(2, shape.directions // 2)


@torch.no_grad()
def diagnose(views: Grouped | Rows) -> dict[str, Reading]:
    """Every diagnostic that some features allow, by name.

    One that has no meaning for them, as α has where the spectrum ends within its range, is left out.

    Args:
        views: features of q views of each of n images, (n, q, d), or of one view, (n, d).

    Raises:
        ValueError: there are fewer than two images, or a feature is NaN or infinite.
    """
    views = views[:, None] if views.ndim == 2 else views
    if views.ndim != 3 or len(views) < 2 or not views.shape[2]:
        raise ValueError(f"diagnostics read two images or more, (n, q, d) or (n, d); got {tuple(views.shape)}")
    rank.as_float64(views)
    sample, shape = Sample(views), Shape(*views.shape)
    readings = {}
    for each in fitting(shape):
        try:
            value = each.value(sample)
        except rank.Undefined:
            continue
        readings[each.name] = Reading(value, *each.bounds(shape))
    return readings
