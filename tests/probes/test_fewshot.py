"""Few-shot classification against a loop over images, and its draws."""

import time

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import normalize

from barlow.probes import FeatureSet, measure
from barlow.probes.drawn import Drawn
from barlow.probes.intervals import paired, student_quantile, wilson
from barlow.probes.metrics import compare
from barlow.probes.report import evaluate_features, render
from barlow.probes.splits import of_each_class
from barlow.protocols.fewshot import FewShot


def clouds(classes: int, n: int, apart: float, seed: int, width: int = 12) -> FeatureSet:
    centres = np.random.default_rng(5).normal(size=(classes, width))
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    features = 3 + apart * centres[labels] + rng.normal(size=(n, width))
    return FeatureSet(torch.tensor(features, dtype=torch.float32), labels, np.arange(n))


@pytest.mark.parametrize("shots", [1, 5])
def test_it_is_scikit_learns_nearest_centroid_on_centred_rows_of_unit_length(shots: int) -> None:
    train, test = clouds(6, 120, 0.8, 0), clouds(6, 90, 0.8, 1)
    protocol = FewShot(shots=shots, draws=7, seed=3)
    mean = train.features.numpy().astype(np.float64).mean(axis=0)
    x, z = (normalize(each.features.numpy().astype(np.float64) - mean) for each in (train, test))
    expected = []
    for draw in range(7):
        rows = np.concatenate(of_each_class(train.labels, shots, 3, draw))
        assert np.array_equal(np.unique(train.labels[rows], return_counts=True)[1], [shots] * 6)
        model = NearestCentroid() if shots > 1 else KNeighborsClassifier(1)  # one row is its own mean
        expected.append(model.fit(x[rows], train.labels[rows]).predict(z))
    predicted = protocol.predict(train, test.features)
    np.testing.assert_array_equal(predicted.answers[:, :, 0], expected)
    values = (np.array(expected) == test.labels).mean(axis=1)
    low, high = stats.t.interval(0.95, 6, values.mean(), stats.sem(values))
    score = measure(predicted, test.labels)["top1"]
    assert score.value == pytest.approx(values.mean())
    assert (score.low, score.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_draws_depend_on_labels_and_seed_only() -> None:
    labels = np.arange(40) % 4
    first = of_each_class(labels, 3, 0, 0)
    assert all((labels[rows] == c).all() and len(set(rows)) == 3 for c, rows in enumerate(first))
    np.testing.assert_array_equal(first, of_each_class(labels, 3, 0, 0))
    assert not np.array_equal(first, of_each_class(labels, 3, 0, 1))
    assert not np.array_equal(first, of_each_class(labels, 3, 1, 0))


def test_a_class_with_fewer_images_gives_all_it_has() -> None:
    train = clouds(3, 9, 2, 0)
    predicted = FewShot(shots=5, draws=4).predict(train, clouds(3, 30, 2, 1).features)
    assert predicted.notes["fewest_of_a_class"] == 3
    assert (predicted.answers == predicted.answers[0]).all(), "all images are in every draw"


def test_more_shots_and_better_features_are_better_and_gains_are_paired_by_draw() -> None:
    train, test = clouds(8, 400, 0.6, 0), clouds(8, 200, 0.6, 1)
    one, ten = (FewShot(shots=k, draws=30).predict(train, test.features) for k in (1, 10))
    assert measure(one, test.labels)["top1"].high < measure(ten, test.labels)["top1"].low
    noisy = [FeatureSet(s.features + 0.5 * torch.randn(s.features.shape, generator=torch.Generator().manual_seed(9)),
                        s.labels, s.ids) for s in (train, test)]  # fmt: skip
    worse = FewShot(shots=1, draws=30).predict(noisy[0], noisy[1].features)
    gain = compare(one, worse, test.labels)["top1"]
    assert gain.low > 0
    apart = [measure(each, test.labels)["top1"] for each in (one, worse)]
    assert gain.value == pytest.approx(apart[0].value - apart[1].value)
    assert gain.high - gain.low < (apart[0].high - apart[0].low) + (apart[1].high - apart[1].low)


def test_one_draw_has_an_interval_over_the_test_images() -> None:
    train, test = clouds(4, 80, 0.6, 0), clouds(4, 100, 0.6, 1)
    predicted = FewShot(shots=2, draws=1).predict(train, test.features)
    score = measure(predicted, test.labels)["top1"]
    assert score.high - score.low > 0.05
    assert compare(predicted, predicted, test.labels)["top1"].value == 0


def test_draws_that_all_have_the_same_images_have_an_interval_over_the_test_images() -> None:
    train, test = clouds(4, 80, 0.3, 0), clouds(4, 80, 0.3, 1)
    other = [FeatureSet(s.features[:, :4], s.labels, s.ids) for s in (train, test)]
    mine = FewShot(shots=20, draws=10).predict(train, test.features)
    theirs = FewShot(shots=20, draws=10).predict(other[0], other[1].features)
    right, worse = (each.answers[0, :, 0] == test.labels for each in (mine, theirs))
    assert not np.array_equal(right, worse)
    score, expected = measure(mine, test.labels)["top1"], wilson(int(right.sum()), 80)
    assert (score.value, score.low, score.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert score.high - score.low > 0.05
    gain, between = compare(mine, theirs, test.labels)["top1"], paired(right, worse)
    assert (gain.value, gain.low, gain.high) == pytest.approx((between.value, between.low, between.high))


def test_draws_that_differ_and_have_one_value_are_not_taken_for_certain() -> None:
    """Two draws of which each is right on another half of the images, and an encoder that is always right."""
    labels = np.zeros(40, np.int64)
    half = np.arange(40) % 2
    drawn = Drawn(np.stack([half, 1 - half])[:, :, None], None, 2)
    perfect = Drawn(np.zeros((2, 40, 1), np.int64), None, 2)
    for each, hits in ((drawn, 20), (perfect, 40)):
        score = measure(each, labels)["top1"]
        assert (score.low, score.high) == pytest.approx((wilson(hits, 40).low, wilson(hits, 40).high))
    gain = compare(perfect, drawn, labels)["top1"]
    assert gain.low < gain.value == 0.5 < gain.high


def test_of_several_labels_draws_that_are_alike_have_the_interval_of_one() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 2)) < 0.4).astype(np.int8)
    scores = rng.random((60, 2)) + 0.3 * labels
    one, three = (Drawn(None, np.stack([scores] * draws), 2) for draws in (1, 3))
    assert measure(one, labels) == measure(three, labels)
    worse = [Drawn(None, np.stack([scores[::-1]] * draws), 2) for draws in (1, 3)]
    assert compare(one, worse[0], labels) == compare(three, worse[1], labels)
    assert measure(one, labels)["map"].low < measure(one, labels)["map"].high


def test_the_interval_of_a_gain_is_students_of_the_differences_draw_by_draw() -> None:
    """Draws that are hard for both: the gain hardly varies, if each draw is compared with itself."""
    rng = np.random.default_rng(0)
    hard = np.linspace(0.2, 0.8, 12)[:, None]
    labels = np.zeros(200, np.int64)
    mine, theirs = ((rng.random((12, 200)) > hard + worse).astype(np.int64) for worse in (0.0, 0.05))
    both = [Drawn(1 - right[:, :, None], None, 2) for right in (mine, theirs)]
    gains = mine.mean(axis=1) - theirs.mean(axis=1)
    low, high = stats.t.interval(0.95, 11, gains.mean(), stats.sem(gains))
    gain = compare(both[0], both[1], labels)["top1"]
    assert (gain.value, gain.low, gain.high) == pytest.approx((gains.mean(), low, high), abs=1e-4)
    assert gain.high - gain.low < 0.1


def test_the_share_by_class_of_draws_is_the_mean_of_that_of_each_draw() -> None:
    labels = np.repeat([0, 1, 2], [6, 3, 1])
    answers = np.stack([labels, labels])
    answers[0, :3], answers[1, 6:8] = 1, 2  # half of the first class, and two of the three of the second
    score = measure(Drawn(answers[:, :, None], None, 3), labels)["balanced_top1"]
    assert score.value == pytest.approx(np.mean([(1 / 2 + 1 + 1) / 3, (1 + 1 / 3 + 1) / 3]))


def test_the_words_of_a_table_say_what_its_intervals_are_over() -> None:
    sets = {"encoder": (clouds(3, 60, 1, 0), clouds(3, 30, 1, 1))}

    def caption(*protocols: str) -> str:
        return " ".join(render(evaluate_features(sets, protocols)).partition("Per cent")[2].split())

    assert caption("knn").startswith("[95 % interval over 30 test images].")
    assert caption("fewshot:2").startswith("[95 % interval over draws, on 30 test images].")
    assert caption("knn", "fewshot:2").startswith("[95 % interval over 30 test images, or over draws: see below].")
    assert "over the test images where all draws have one value: 2-shot 100." in caption("fewshot:2")


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 30, 99])
def test_students_quantile_is_scipys_to_three_digits(degrees: int) -> None:
    assert student_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-3)


def test_a_hundred_draws_of_ten_thousand_images_take_seconds() -> None:
    """Half a minute of one core is promised; it takes some two seconds."""
    rng = np.random.default_rng(0)
    labels = np.arange(10_000) % 10
    train, test = (FeatureSet(torch.tensor(rng.normal(size=(10_000, 512)), dtype=torch.float32), labels,
                              np.arange(10_000)) for _ in range(2))  # fmt: skip
    started = time.process_time()
    measure(FewShot(shots=10, draws=100).predict(train, test.features), test.labels)
    assert time.process_time() - started < 30
