import math

import numpy as np
import pytest

from barlow.probes.average_precision import average_precision
from barlow.probes.intervals import Difference, Score, bootstrap, bootstrap_on_logits, paired, wilson
from barlow.probes.metrics import Predicted, measure


def test_wilson_ends_solve_the_score_equation():
    # By definition the ends are the p at which the observed share lies 1.96 standard errors of p away.
    for hits, n in ((1, 10), (50, 100), (4_800, 10_000), (9, 9)):
        score = wilson(hits, n)
        for p in (score.low, score.high):
            if 0 < p < 1:
                assert abs(hits / n - p) == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / n), rel=1e-5)


def test_wilson_stays_inside_at_the_ends():
    assert wilson(0, 20) == Score(0.0, 0.0, pytest.approx(0.1611, abs=1e-4), 20)
    assert wilson(20, 20) == Score(1.0, pytest.approx(0.8389, abs=1e-4), 1.0, 20)


def test_wilson_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    for p in (0.03, 0.5, 0.9):
        scores = [wilson(int(hits), 100) for hits in rng.binomial(100, p, size=2000)]
        assert 0.92 < np.mean([s.low <= p <= s.high for s in scores]) < 0.98


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_share(hits, n):
    with pytest.raises(ValueError, match="at least one test image"):
        wilson(hits, n)


def answers(b, c, both, neither):
    """Right answers of two, of whom the first alone is right b times and the other alone c times."""
    first = [True] * (both + b) + [False] * (c + neither)
    other = [True] * both + [False] * b + [True] * c + [False] * neither
    return np.array(first), np.array(other)


def test_a_paired_difference_counts_the_images_on_which_the_two_disagree():
    few = paired(*answers(20, 10, both=40, neither=30))
    assert few == Difference(0.1, pytest.approx(-0.00724, abs=1e-5), pytest.approx(0.20332, abs=1e-5), 100)
    assert paired(*answers(20, 10, both=0, neither=70)) == few, "where they agree does not matter"
    back = paired(*answers(10, 20, both=40, neither=30))
    assert (back.value, back.low, back.high) == (-few.value, -few.high, -few.low)


def test_a_paired_difference_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    for n, cells in ((100, (0.15, 0.1, 0.5, 0.25)), (400, (0.3, 0.1, 0.3, 0.3)), (30, (0.05, 0.05, 0.9, 0.0))):
        found = [paired(*answers(*map(int, rng.multinomial(n, cells)))) for _ in range(1000)]
        covered = np.mean([d.low <= cells[0] - cells[1] <= d.high for d in found])
        assert covered > 0.92, (n, cells)


def test_two_that_never_disagree_differ_by_nothing_and_a_little():
    same = paired(*answers(0, 0, both=50, neither=50))
    assert same.value == 0
    assert same.low == -same.high < 0


def test_a_paired_difference_refuses_other_images():
    with pytest.raises(ValueError, match="same test images"):
        paired(np.ones(3, bool), np.ones(4, bool))


def test_bootstrap_of_a_mean_is_as_wide_as_its_standard_error():
    x = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap(lambda counts: counts @ x / len(x), len(x))
    assert high - low == pytest.approx(2 * 1.96 * x.std() / 20, rel=0.1)
    assert low < x.mean() < high


def test_bootstrap_draws_each_image_once_on_average():
    seen = []
    bootstrap(lambda counts: seen.append(counts) or counts[:, 0].astype(float), 50, resamples=200)
    counts = np.concatenate(seen)
    assert counts.shape == (200, 50)
    assert (counts.sum(axis=1) == 50).all()
    assert counts[:, 0].var() == pytest.approx(1, abs=0.4)


def test_bootstrap_is_the_same_for_the_same_seed_whatever_the_blocks():
    def statistic(counts):
        return counts @ np.arange(30.0)

    assert bootstrap(statistic, 30, seed=3) == bootstrap(statistic, 30, seed=3)
    assert bootstrap(statistic, 30, seed=3) != bootstrap(statistic, 30, seed=4)


def test_bootstrap_leaves_undefined_resamples_out():
    low, high = bootstrap(lambda counts: np.where(counts[:, 0] > 0, 0.5, np.nan), 10)
    assert (low, high) == (0.5, 0.5)
    assert bootstrap(lambda counts: np.full(len(counts), np.nan), 10) == (0.0, 1.0)


def test_intervals_of_average_precision_hold_the_truth_where_a_label_has_few_positives():
    """With the percentile bootstrap 79 % of these intervals hold it, and the others are nearly all above it."""
    rng = np.random.default_rng(0)

    def drawn(n):
        labels = rng.random(n) < 0.07
        return rng.normal(size=n) + 3 * labels, labels

    truth, found = average_precision(*drawn(400_000))[0], []
    for _ in range(300):
        scores, labels = drawn(100)
        if labels.any():
            found.append(measure(Predicted(scores[:, None], None), labels[:, None].astype(np.int8))["map"])
    assert all(0 <= score.low < score.value <= score.high <= 1 for score in found)
    assert np.mean([score.low <= truth <= score.high for score in found]) > 0.92
    assert np.mean([score.low > truth for score in found]) < 0.03


def test_average_precision_on_logits_is_the_bootstrap_where_images_are_many():
    x = np.random.default_rng(1).random(400)

    def mean(counts):
        return counts @ x / len(x)

    low, high = bootstrap_on_logits(mean, x.mean(), 400, 200)
    assert (low, high) == pytest.approx(bootstrap(mean, 400), abs=0.003)
    assert bootstrap_on_logits(mean, 1.0, 400, 5) == (wilson(5, 5).low, 1.0)
    assert bootstrap_on_logits(lambda counts: np.full(len(counts), np.nan), 0.5, 10, 1) == (0.0, 1.0)
