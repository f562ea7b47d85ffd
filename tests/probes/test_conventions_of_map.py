"""The three conventions of average precision, by hand and against scikit-learn."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from barlow.probes.average_precision import (
    CONVENTIONS,
    UNJUDGED,
    average_precision,
    by_chance,
    chance,
    eleven_point_average_precision,
    envelope_average_precision,
    macro_average_precision,
)

POSITIVE = np.array([1, 0, 1, 1, 0, 0, 1, 0])
SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.55, 0.5, 0.4, 0.1])


def test_one_ranking_has_three_average_precisions() -> None:
    """Precision is 1, 2/3, 3/4 and 4/7 where the recall becomes 1/4, 1/2, 3/4 and 1."""
    assert average_precision(SCORES, POSITIVE)[0] == pytest.approx(0.7470238095, abs=5e-11)
    assert average_precision(SCORES, POSITIVE)[0] == pytest.approx(average_precision_score(POSITIVE, SCORES))
    assert envelope_average_precision(SCORES, POSITIVE)[0] == pytest.approx(0.7678571429, abs=5e-11)
    assert eleven_point_average_precision(SCORES, POSITIVE)[0] == pytest.approx(0.7694805195, abs=5e-11)


def by_hand(scores: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """Envelope and eleven points, from lists of precision and recall at every distinct score."""
    curve = [
        (positive[scores >= s].sum() / positive.sum(), positive[scores >= s].mean())
        for s in sorted(set(scores), reverse=True)
    ]
    area, before = 0.0, 0.0
    for recall, _ in curve:
        area += (recall - before) * max(p for r, p in curve if r >= recall)
        before = recall
    points = [max([p for r, p in curve if r >= t / 10 - 1e-12], default=0.0) for t in range(11)]
    return area, float(np.mean(points))


@pytest.mark.parametrize("seed", range(6))
def test_conventions_agree_with_a_loop_and_resamples_with_repeated_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, positive = rng.integers(12, size=40) / 12, rng.random(40) < 0.3  # equal scores are one threshold
    area, points = by_hand(scores, positive)
    assert envelope_average_precision(scores, positive)[0] == pytest.approx(area)
    assert eleven_point_average_precision(scores, positive)[0] == pytest.approx(points)
    counts = rng.integers(3, size=(5, 40))
    for average in CONVENTIONS.values():
        repeated = [average(np.repeat(scores, row), np.repeat(positive, row), None)[0] for row in counts]
        np.testing.assert_allclose(average(scores, positive, counts), repeated)


def test_images_that_nobody_has_judged_take_no_part() -> None:
    labels = np.stack([np.insert(POSITIVE, 1, UNJUDGED), np.insert(POSITIVE, 9 - 1, 0)], axis=1)
    scores = np.stack([np.insert(SCORES, 1, 0.85), np.insert(SCORES, 9 - 1, 0.0)], axis=1)
    for average in CONVENTIONS.values():
        alone = average(SCORES, POSITIVE, None)[0]
        assert macro_average_precision(scores[:, :1], labels[:, :1], None, average)[0] == pytest.approx(alone)
        assert macro_average_precision(scores, labels, None, average)[0] == pytest.approx(alone)
        counts = np.full((1, 9), 2)
        assert macro_average_precision(scores, labels, counts, average)[0] == pytest.approx(alone)


@pytest.mark.parametrize(("right", "n"), [(1, 1), (1, 5), (2, 5), (3, 6), (6, 6)])
def test_chance_without_interpolation_is_the_mean_over_all_orders(right: int, n: int) -> None:
    each = [average_precision(-np.arange(float(n)), np.isin(np.arange(n), chosen))[0]
            for chosen in combinations(range(n), right)]  # fmt: skip
    assert by_chance(right, n) == pytest.approx(np.mean(each), abs=1e-12)


def test_on_few_images_chance_is_above_the_share_that_has_the_label() -> None:
    assert by_chance(30, 300) == pytest.approx(0.116, abs=5e-4)
    assert by_chance(0, 10) == 0


@pytest.mark.parametrize("convention", list(CONVENTIONS))
@pytest.mark.parametrize("n", [40, 4000])
def test_chance_is_what_random_orders_have_by_each_convention(convention: str, n: int) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((n, 3)) < (0.1, 0.3, 0.6)).astype(np.int8)
    labels[rng.random((n, 3)) < 0.1] = UNJUDGED
    with_none = np.append(labels, np.zeros((n, 1), np.int8), axis=1)
    times = 1500 if n == 40 else 20
    average = CONVENTIONS[convention]
    found = [macro_average_precision(rng.random((n, 4)), with_none, None, average)[0] for _ in range(times)]
    assert chance(with_none, convention) == pytest.approx(np.mean(found), abs=0.01)
    assert chance(with_none, convention) == chance(labels, convention)
    assert chance(with_none, convention) > (labels == 1).sum() / (labels >= 0).sum()
    assert np.isnan(chance(np.zeros((4, 2), np.int8), convention))
