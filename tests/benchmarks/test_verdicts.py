"""What ratios allow one to say: the interval of the median, the three words, two clocks that agree or do not."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import verdicts


def test_eight_values_hold_the_median_with_99_percent_and_seven_say_nothing() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 8.0, 7.0, 3.0, 6.0]
    assert verdicts.median_interval(values, 0.99) == (1.0, 8.0)
    assert verdicts.median_interval(values[:7], 0.99) == (-math.inf, math.inf)
    assert verdicts.median_interval(values[:1], 0.5) == (-math.inf, math.inf)
    assert verdicts.rounds_needed(0.99) == 8


def test_the_interval_leaves_out_as_many_on_each_side_as_the_coin_allows() -> None:
    # Of 20 tosses, fewer than 4 on one side: 2 · (1 + 20 + 190 + 1140) / 2²⁰ = 0.0026; fewer than 5: 0.012.
    assert verdicts.median_interval(list(range(20)), 0.99) == (3, 16)
    assert verdicts.median_interval(list(range(20)), 0.98) == (4, 15)


def test_the_interval_holds_the_median_as_often_as_it_says_whatever_the_distribution() -> None:
    draws = np.random.default_rng(0)
    for n in (8, 12, 28, 64):
        times = np.exp(2 * draws.standard_normal((2000, n)))  # a long tail; its median is 1
        held = [low <= 1 <= high for low, high in (verdicts.median_interval(row, 0.99) for row in times)]
        assert 0.985 < np.mean(held) <= 1


@pytest.mark.parametrize(
    ("ratios", "word"),
    [
        ([1.2, 1.3] * 4, "better"),
        ([0.7, 0.8] * 4, "worse"),
        ([0.7, 1.3] * 4, "cannot tell"),
        ([1.2] * 6, "cannot tell"),
    ],
)
def test_three_words(ratios: list[float], word: str) -> None:
    assert verdicts.verdict(ratios, 0.95, 0.99) == word


B, W, C = "better", "worse", "cannot tell"


@pytest.mark.parametrize(
    ("wall", "processor", "busy", "quiet"),
    [
        (B, B, B, B),
        (W, W, W, W),
        (C, C, C, C),
        (W, C, C, W),
        (W, B, C, W),  # it waits: seen where nobody else is there to wait for
        (B, W, C, B),
        (C, W, C, C),
        (C, B, B, B),
        (B, C, B, B),
        (W, None, W, W),
    ],
)
def test_on_a_busy_machine_a_row_is_worse_only_by_both_clocks(
    wall: verdicts.Verdict, processor: verdicts.Verdict | None, busy: str, quiet: str
) -> None:
    assert verdicts.of_both_clocks(wall, processor, quiet=False) == busy
    assert verdicts.of_both_clocks(wall, processor, quiet=True) == quiet


def test_a_row_is_as_good_as_the_promise_it_keeps_worst() -> None:
    assert verdicts.of_all([B, W, C]) == W
    assert verdicts.of_all([B, C]) == C
    assert verdicts.of_all([B, B]) == B
