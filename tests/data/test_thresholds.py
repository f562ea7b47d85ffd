"""Thresholds follow the set: where its distinct pairs thin out, and how similar its own copies are."""

import math

import numpy as np
import pytest
import torch
from scipy.special import betaincinv

from barlow.data import thresholds
from barlow.data.near_duplicates import Points
from barlow.data.thresholds import Copies, across, within


def directions(n: int, d: int, seed: int) -> torch.Tensor:
    """Drawn evenly from all directions in d dimensions."""
    return torch.nn.functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))


def points(vectors: torch.Tensor) -> Points:
    return Points.of_vectors(vectors, torch.zeros(vectors.shape[1]))


def copies(hardest: float, typical: float = 0.9999) -> Copies:
    return Copies({"easy": np.full(50, typical), "harder": np.full(50, typical), "hard": np.full(50, hardest)})


def pairs_above(vectors: torch.Tensor, threshold: float) -> int:
    n = len(vectors)
    return int(((vectors @ vectors.T).numpy()[np.triu_indices(n, 1)] > threshold).sum())


@pytest.mark.parametrize("d", [4, 8, 16])
@pytest.mark.parametrize("n", [300, 2000])
def test_about_as_many_distinct_pairs_are_above_the_threshold_as_it_promises(d: int, n: int) -> None:
    """Of directions that are drawn evenly, it is known where the threshold belongs; and it errs towards too few."""
    drawn = [directions(n, d, seed) for seed in range(4)]
    found = [within(points(x), copies(0.0)).value for x in drawn]
    promised = thresholds.FALSE * n
    share = promised / (n * (n - 1) / 2)
    right = math.sqrt(1 - betaincinv((d - 1) / 2, 0.5, 2 * share))
    for value in found:
        assert 0.3 * (1 - right) < 1 - value < 1.5 * (1 - right), (value, right)
    assert np.mean([pairs_above(x, value) for x, value in zip(drawn, found, strict=True)]) <= 2 * promised


def test_copies_in_the_set_hardly_move_the_threshold() -> None:
    x = directions(600, 8, 0)
    noise = torch.randn(400, 8, generator=torch.Generator().manual_seed(1))
    twice = torch.nn.functional.normalize(torch.cat([x, x[:400] + 0.005 * noise]))
    alone = within(points(x), copies(0.0)).value
    together = within(points(twice), copies(0.0, typical=0.9998)).value
    assert 1 - together == pytest.approx(1 - alone, rel=0.35)
    assert pairs_above(twice, together) >= 395, "and they are found"


def test_the_threshold_moves_half_of_the_way_to_copies_that_stand_out_and_stays_where_they_do_not() -> None:
    x = points(directions(500, 8, 0))
    plain = within(x, copies(0.0))
    assert plain.distinct is not None
    assert plain.value == plain.distinct
    assert plain.found == {"easy": 1.0, "harder": 1.0, "hard": 0.0}
    better = within(x, copies(0.999))
    assert better.value == pytest.approx(1 - math.sqrt((1 - plain.distinct) * 0.001))
    assert plain.value < better.value < 0.999
    assert better.found["hard"] == 1.0


def test_a_set_of_few_images_goes_by_its_copies_alone() -> None:
    few = within(points(directions(10, 8, 0)), copies(0.97))
    assert few.distinct is None
    assert few.value == pytest.approx(0.97)
    alike = within(points(torch.ones(100, 8)), copies(0.97))
    assert alike.distinct is None, "all are equal"


def test_pairs_of_two_sets_have_a_threshold_of_their_own() -> None:
    one, two = directions(800, 8, 0), directions(400, 8, 1)
    found = across(points(two), points(one), copies(0.0))
    assert found.distinct is not None
    errors = int((two @ one.T > found.value).sum())
    assert errors <= 4 * thresholds.FALSE * 400 + 2
    assert across(points(two), points(one), copies(0.0), measures=2).value > found.value, "each may err half as often"


def test_what_has_no_direction_is_like_nothing() -> None:
    x = directions(300, 8, 0)
    x[:5] = 0
    assert 0.5 < within(points(x), copies(0.0)).value < 1
