"""Between which numbers an objective's loss moves: what it is for views that have nothing in common, and its least.

People ask what loss is right. The answer depends on the batch, the width and the weights: with 1,024 features and the
same images, Barlow Twins' loss starts near 1,000 with 256 rows, and near 7,000 with two. So each objective can say two
numbers for its own `rows` and `width`, from formulas that are written beside it:

- *unrelated*: the expected loss of views whose embeddings are independent, normal, and of variance 1 in every
  direction. A run that stays there has not learned that two views belong together.
- *floor*: no batch of this size can have less. Where rows are no more than features, it may be far above 0.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Levels:
    """Two losses that a run's loss stands beside; None where no formula is known."""

    unrelated: float | None
    floor: float | None


def excess(rows: int, width: int) -> float:
    """(d - (n - 1)) / (n - 1) where d > n - 1, else 0.

    Features of variance 1 whose n rows span n - 1 directions must covary: the sum of their squared correlations, over
    pairs of different features, is d times this or more.
    """
    return max(0.0, (width - (rows - 1)) / (rows - 1))


def hinge_of_normal(rows: int) -> float:
    """The expected max(0, 1 - s) of the standard deviation s of so many normal numbers of variance 1."""
    return 1 / math.sqrt(4 * math.pi * (rows - 1))


def variance_and_covariance(
    rows: int, width: int, *, variance: float, covariance: float, gamma: float, eps: float
) -> Levels:
    """VICReg's two terms that keep the embedding from collapsing, variance · v + covariance · c for one view.

    Unrelated: c is (d - 1) / (n - 1), and v is small. The floor: k features have a standard deviation of s, and the
    others are constant. Then v is gamma - s k / d, but for eps, and c is s⁴ (k / d) (k - (n - 1)) / (n - 1), if
    k > n - 1. For each k the best s is where the slope is 0. Embeddings of which some features vary by different
    amounts are not looked at.
    """
    unrelated = variance * (hinge_of_normal(rows) if gamma == 1 else max(0.0, gamma - 1))
    unrelated += covariance * (width - 1) / (rows - 1)
    lowest, most = math.inf, math.sqrt(max(gamma * gamma - eps, 0.0))
    for k in {width, min(width, rows - 1), *range(rows - 1, width, max(1, width // 64))}:
        share, burden = k / width, covariance * k / width * excess(rows, k)
        s = most if burden == 0 else min(most, (variance * share / (4 * burden)) ** (1 / 3))
        spread = share * math.sqrt(s * s + eps) + (1 - share) * math.sqrt(eps)
        lowest = min(lowest, variance * max(0.0, gamma - spread) + burden * s**4)
    return Levels(unrelated, lowest)


def contrast(candidates: int, width: int, temperature: float) -> float:
    """The expected -log of the share of the right one among so many, where all point in random directions.

    The mean of cos / τ is 0, and the log of the sum is taken as that of its mean, which is right for many candidates.
    """
    return math.log(candidates) + math.log(_mean_exponential(width, temperature))


def _mean_exponential(width: int, temperature: float) -> float:
    """The mean of exp(cos / τ) over random directions: ₀F₁(d/2; 1/(2τ)²)."""
    term, total, x = 1.0, 1.0, (1 / (2 * temperature)) ** 2
    for k in range(1, 2_000):
        term *= x / (k * (width / 2 + k - 1))
        total += term
        if term < 1e-15 * total:
            break
    return total


def least_contrast(others: int, cosine: float, temperature: float) -> float:
    """-log of the share of a right one with cosine 1 beside so many others, all with the same cosine."""
    return math.log1p(others * math.exp((cosine - 1) / temperature))
