"""Thresholds follow the set: how similar its look-alikes are, and how similar its own copies."""

import math

import numpy as np
import pytest

from barlow.data import thresholds
from barlow.data.thresholds import FALSE, RANKS, calibrated, without_copies


def look_alikes(count: int, exponent: float, seed: int = 0) -> np.ndarray:
    """Similarities whose share above s is (1 − s) to a power, as it is of a set's look-alikes far out."""
    return 1 - np.random.default_rng(seed).uniform(size=count) ** (1 / exponent)


def copies(hardest: float, others: float = 0.99) -> dict[str, np.ndarray]:
    return {"easy": np.full(50, others), "harder": np.full(50, others), "hard": np.full(50, hardest)}


@pytest.mark.parametrize("exponent", [3.0, 6.0, 12.0])
def test_as_many_look_alikes_are_above_the_threshold_as_it_promises(exponent: float) -> None:
    found = [calibrated(look_alikes(2000, exponent, seed), copies(0.0, 0.0)).value for seed in range(20)]
    right = 1 - (FALSE / RANKS) ** (1 / exponent)
    assert 1 - np.median(found) == pytest.approx(1 - right, rel=0.15)
    both = calibrated(look_alikes(2000, exponent), copies(0.0, 0.0), measures=2)
    assert both.value > found[0], "each may err half as often"


def test_the_threshold_moves_half_of_the_way_to_copies_that_stand_out() -> None:
    alike = look_alikes(2000, 6.0)
    plain = calibrated(alike, copies(0.0, 0.0))
    assert plain.value == plain.distinct
    better = calibrated(alike, copies(0.95))
    assert better.distinct is not None
    assert better.value == pytest.approx(1 - math.sqrt((1 - better.distinct) * 0.05))
    assert plain.value < better.value < 0.95


def test_where_crops_are_among_look_alikes_the_next_kind_counts() -> None:
    found = calibrated(look_alikes(2000, 6.0), copies(0.5, 0.99))
    assert found.distinct is not None
    assert found.value == pytest.approx(1 - math.sqrt((1 - found.distinct) * 0.01))


@pytest.mark.parametrize("twins", [3, 60, 900])
def test_a_set_full_of_copies_has_the_threshold_that_it_would_have_without(twins: int) -> None:
    alike = look_alikes(2000, 8.0)
    rng = np.random.default_rng(1)
    pairs = np.concatenate([alike, 1 - 0.1 * rng.uniform(size=twins)])
    alone, together = calibrated(alike, copies(0.9)), calibrated(pairs, copies(0.9))
    assert 1 - together.value == pytest.approx(1 - alone.value, rel=0.2)
    assert together.value < 0.9


def test_where_there_is_no_valley_all_pairs_count() -> None:
    """As among slices of a scan, which are as like each other as crops are to their originals."""
    slices = 0.7 + 0.29 * np.random.default_rng(0).beta(3, 3, 2000)
    marks = [0.86, 0.95]
    assert len(without_copies(slices, marks)) == 2000
    found = calibrated(slices, copies(0.86, 0.95))
    assert (slices > found.value).mean() < 0.02


def test_a_set_of_few_images_goes_by_its_copies_alone() -> None:
    few = calibrated(look_alikes(RANKS * (thresholds.FEWEST - 1), 6.0), copies(0.97))
    assert few.distinct is None
    assert few.value == pytest.approx(0.97)
    equal = calibrated(np.ones(1000), copies(1.0, 1.0))
    assert equal.value < 1, "copies to the bit are above it"
