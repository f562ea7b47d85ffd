"""What measured ratios allow one to say: better than a line, worse than it, or that one cannot tell.

A row asks one question: does it stay above its line? The line is the promise less the margin. (For two trees the
promise is 1: as fast as the old one.) Only a row that is surely below its line fails.

The spread of a row is an interval for the median of its paired ratios, between two of the sorted ratios: the k-th from
below and the k-th from above. The true median lies outside it only if fewer than k of n ratios fell on one side of it,
which has the chance of a fair coin, whatever the distribution. Times on a shared machine have long tails, so quartiles
would say how noisy single pairs are and not how well the median is known, and a standard error would be that of a few
outliers.
"""

import math
from collections.abc import Sequence
from typing import Literal

Verdict = Literal["better", "worse", "cannot tell"]

BETTER: Verdict = "better"
WORSE: Verdict = "worse"
CANNOT_TELL: Verdict = "cannot tell"

QUIET = 0.05
"""Share of the machine that others may take while it still counts as quiet."""


def median_interval(values: Sequence[float], confidence: float) -> tuple[float, float]:
    """The narrowest interval of its kind that holds the median with at least this confidence.

    Example: of 8 values the smallest and the largest hold it with 99.2 %. Of 7 they do so with 98.4 % only, so with a
    confidence of 0.99 seven values say nothing: the interval is infinite.
    """
    ordered, n = sorted(values), len(values)
    outside, k = 0.0, 0
    while k < n // 2:
        outside += math.comb(n, k) / 2.0**n
        if 1 - 2 * outside < confidence:
            break
        k += 1
    return (ordered[k - 1], ordered[n - k]) if k else (-math.inf, math.inf)


def rounds_needed(confidence: float) -> int:
    """The smallest even number of pairs whose ratios can tell anything with this confidence; even, because the two
    sides take turns in going first."""
    n = 2
    while 1 - 2.0 ** (1 - n) < confidence:
        n += 2
    return n


def verdict(ratios: Sequence[float], line: float, confidence: float) -> Verdict:
    """Where the median of some ratios is, of which larger ones are better."""
    low, high = median_interval(ratios, confidence)
    if low >= line:
        return BETTER
    return WORSE if high < line else CANNOT_TELL


def of_both_clocks(wall: Verdict, processor: Verdict | None, quiet: bool) -> Verdict:
    """One verdict from those of the wall clock and of processor seconds.

    The wall clock has what users wait for, and also what the neighbours on the machine did meanwhile. Processor seconds
    hardly notice the neighbours, but do not see waiting: for a disk, a lock, or a core that lies idle. So on a busy
    machine a row is worse only if both say so, and on a quiet one, where there is nobody else to wait for, the wall
    clock is believed alone. It is better if one of them says so and the other does not say the opposite.

    Args:
        wall: by the wall clock.
        processor: by processor seconds; None if the work is not a processor's.
        quiet: whether others took next to nothing of the machine.
    """
    if processor is None or wall == processor or (quiet and wall != CANNOT_TELL):
        return wall
    return CANNOT_TELL if WORSE in (wall, processor) else BETTER


def of_all(verdicts: Sequence[Verdict]) -> Verdict:
    """Of a row with several promises: as good as the one that is kept worst."""
    return next((one for one in (WORSE, CANNOT_TELL) if one in verdicts), BETTER)
