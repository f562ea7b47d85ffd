"""The three conventions of average precision, by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from barlow.probes.average_precision import (
    CONVENTIONS,
    UNJUDGED,
    average_precision,
    eleven_point_average_precision,
    envelope_average_precision,
    macro_average_precision,
    prevalence,
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


def test_prevalence_is_what_a_random_order_has() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((4000, 3)) < (0.1, 0.3, 0.6)).astype(np.int8)
    labels[rng.random((4000, 3)) < 0.1] = UNJUDGED
    assert prevalence(labels) == pytest.approx(1 / 3, abs=0.02)
    for average in CONVENTIONS.values():
        assert macro_average_precision(rng.random((4000, 3)), labels, None, average)[0] == pytest.approx(
            1 / 3, abs=0.03
        )
