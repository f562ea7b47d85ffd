"""How far a score can be trusted: 95 % intervals over the test images.

An interval here answers one question only: how much would the number move if other test images of the same kind had
been drawn? It says nothing about other seeds of the training. For that, repeat the training.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

Z95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""


@dataclass(frozen=True)
class Score:
    """A metric in [0, 1] with its 95 % interval.

    Args:
        value: the metric on the test images.
        low: lower end of the interval.
        high: upper end of the interval.
        n: number of test images it was measured on.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Difference:
    """The difference of two metrics on the same test images, in [-1, 1], with its 95 % interval.

    Args:
        value: the first metric less the second.
        low: lower end of the interval. Above 0, the first is better, beyond what the choice of test images explains.
        high: upper end of the interval.
        n: number of test images.
    """

    value: float
    low: float
    high: float
    n: int


def end_of_difference(value: float) -> str:
    """An end of the interval of a difference, in per cent. It says on which side of zero it is: `-0.0` would not.

    Example:
        >>> [end_of_difference(value) for value in (-0.143, -0.0003, 0.0, 0.00001)]
        ['-14.3', '-0.03', '0.0', '>0']
    """
    if abs(value) < 1e-12:
        return "0.0"
    for digits in (1, 2):
        if float(text := f"{100 * value:.{digits}f}"):
            return text
    return "<0" if value < 0 else ">0"


def wilson(hits: int, n: int) -> Score:
    """The share of hits, with Wilson's score interval.

    Unlike value ± 1.96 standard errors, this interval stays inside [0, 1], and it also holds near 0 and 1 and for few
    images.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927);
    without continuity correction.

    Example:
        >>> score = wilson(50, 100)
        >>> round(score.low, 4), round(score.high, 4)
        (0.4038, 0.5962)
    """
    if n < 1 or not 0 <= hits <= n:
        raise ValueError(f"{hits} hits of {n} images: a score needs at least one test image and 0 <= hits <= n")
    p, z2 = hits / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # With no hits the lower end is exactly 0, and with all hits the upper end is exactly 1. Rounding must not take an
    # end past the value.
    return Score(p, max(0.0, min(centre - half, p)), min(1.0, max(centre + half, p)), n)


def paired(right: np.ndarray, other: np.ndarray) -> Difference:
    """The difference of two shares of right answers on the same images, with its interval.

    Only the images on which the two disagree count: with b that the first alone gets right, c that the other alone
    does, and n in all, the difference is (b - c) / n.

    Source: A. Agresti and Y. Min, "Simple improved confidence intervals for comparing matched proportions", Statistics
    in Medicine 24 (2005): Wald's interval after half an image is added to each of the four cells (right or wrong by the
    first and by the other). It also holds for few images, and has a width where the two never disagree.

    Args:
        right: (n,) whether the first gets each image right.
        other: (n,) the same of the other.
    """
    if right.shape != other.shape or right.ndim != 1 or not len(right):
        raise ValueError(
            f"answers of shapes {right.shape} and {other.shape} cannot be compared; give those of the same test images"
        )
    n = len(right)
    b, c = int((right & ~other).sum()), int((~right & other).sum())
    value, padded = (b - c) / n, n + 2
    centre = (b - c) / padded
    spread = Z95 * math.sqrt((b + c + 1) / padded - centre**2) / math.sqrt(padded)
    return Difference(value, max(-1.0, min(centre - spread, value)), min(1.0, max(centre + spread, value)), n)


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], n: int, *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles of a statistic over images drawn again with replacement (percentile bootstrap).

    If a statistic is perfect on all images, it is perfect on every resample too. Then the interval has no width, while
    Wilson's has some.

    Source: B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.

    Args:
        statistic: takes (b, n) integers, which say how often each image was drawn, and returns (b,) values. Where it is
            undefined for a resample it returns NaN, and the resample is left out.
        n: number of images.
        resamples: how many times n images are drawn. 1000 leaves the ends of the interval uncertain by a few per cent
            of its width.
        seed: of the draws, so that a repeated evaluation prints the same interval.
    """
    defined = _resampled(statistic, n, resamples, seed)
    if not len(defined):
        return 0.0, 1.0
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


def bootstrap_on_logits(
    statistic: Callable[[np.ndarray], np.ndarray],
    value: float,
    n: int,
    right: int,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """The ends of an interval for a mean average precision: 1.96 standard errors on the scale log(p / (1 - p)).

    The standard error is that of the bootstrap, carried to that scale by its derivative. So the interval stays inside
    (0, 1), and it is longer towards the middle, as the distribution is.

    The quantiles of the bootstrap itself are too high: a positive image that is drawn twice raises the precision at its
    own place. How often intervals held the average precision of very many images (and were wholly above it), with a
    label on 7 % of the images and normal scores some deviations apart, in 500 draws (`experiments/intervals.py`):

    ==========  ============  ============  ============  ============  ============
    images      100           100           100           1,000         1,000
    apart       1.5           2             3             1.5           3
    ==========  ============  ============  ============  ============  ============
    percentile  89 % (7 %)    91 % (7 %)    79 % (21 %)   93 % (5 %)    92 % (6 %)
    this one    91 % (6 %)    95 % (3 %)    98 % (0 %)    93 % (5 %)    95 % (3 %)
    ==========  ============  ============  ============  ============  ============

    Average precision is itself too high in the mean where positives are few. No interval takes that off.

    Source: K. Boyd, K. Eng and D. Page, "Area under the precision-recall curve: point estimates and confidence
    intervals" (ECML PKDD 2013). They recommend the scale, with p (1 - p) / positives for the variance.
    Convention: where everything is right, no resample says how wrong it could be. The lower end is then that of
    Wilson's interval, if as many answers were all right as there are positives.

    Args:
        statistic: as for `bootstrap`.
        value: of the statistic on all images, above 0 and at most 1.
        n: number of images.
        right: how many positives there are, in all labels.
        resamples, seed: as for `bootstrap`.
    """
    if value >= 1:
        return wilson(right, right).low, 1.0
    defined = _resampled(statistic, n, resamples, seed)
    if not len(defined):
        return 0.0, 1.0
    odds = math.log(value / (1 - value))
    reach = Z95 * float(defined.std()) / (value * (1 - value))
    return 1 / (1 + math.exp(min(reach - odds, 700))), 1 / (1 + math.exp(-odds - reach))


def _resampled(
    statistic: Callable[[np.ndarray], np.ndarray], n: int, resamples: int, seed: int
) -> Float64[np.ndarray, "b"]:
    """The values of a statistic on images drawn again with replacement, where it is defined."""
    generator = np.random.default_rng(seed)
    block = max(1, 2**22 // n)  # resamples at a time, so that counts and sums have 32 MiB each
    values = []
    for start in range(0, resamples, block):
        b = min(block, resamples - start)
        drawn = generator.integers(n, size=(b, n)) + n * np.arange(b)[:, None]
        values.append(statistic(np.bincount(drawn.ravel(), minlength=b * n).reshape(b, n)))
    found = np.concatenate(values)
    return found[~np.isnan(found)]


def mean_of_shares(shares: Sequence[Score]) -> Score:
    """The mean of independent shares, such as those of each class, with its interval; n is that of all together.

    Each end is as far from the mean as the ends of the shares are from theirs, added in squares and divided by their
    number.

    Source: G. Zou and A. Donner, "Construction of confidence limits about effect measures: a general approach",
    Statistics in Medicine 27 (2008): from Wilson's intervals it makes one that also holds near 0 and 1.
    """
    value = math.fsum(share.value for share in shares) / len(shares)
    below, above = _spreads(shares)
    return Score(value, max(0.0, value - below), min(1.0, value + above), sum(share.n for share in shares))


def mean_of_differences(differences: Sequence[Difference]) -> Difference:
    """The mean of independent differences, with an interval made as that of `mean_of_shares`."""
    value = math.fsum(difference.value for difference in differences) / len(differences)
    below, above = _spreads(differences)
    return Difference(value, max(-1.0, value - below), min(1.0, value + above), sum(d.n for d in differences))


def _spreads(parts: Sequence[Score] | Sequence[Difference]) -> tuple[float, float]:
    below = math.hypot(*(part.value - part.low for part in parts)) / len(parts)
    return below, math.hypot(*(part.high - part.value for part in parts)) / len(parts)


def over_draws(values: np.ndarray) -> tuple[float, float, float]:
    """The mean of the values of several draws, and the ends of its 95 % interval (Student's t).

    It says how far the mean would move with other draws of training images, on the same test images.

    Args:
        values: (draws,) at least two.
    """
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    half = student_quantile(len(values) - 1) * spread / math.sqrt(len(values))
    return mean, mean - half, mean + half


_STUDENT = (12.7062, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157)
"""The 97.5 % quantiles of Student's t for 1 to 9 degrees of freedom."""


def student_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, to three digits.

    Source: M. Abramowitz and I. Stegun, "Handbook of Mathematical Functions", 26.7.5; four terms, and the exact values
    where those do not suffice.
    """
    if degrees <= len(_STUDENT):
        return _STUDENT[degrees - 1]
    z = Z95
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return math.fsum(term / degrees**power for power, term in enumerate(terms))
