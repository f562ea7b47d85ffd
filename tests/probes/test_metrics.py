import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from barlow.probes.average_precision import average_precision, macro_average_precision
from barlow.probes.metrics import Predicted, best_epoch, compare, measure


def loop_average_precision(scores, positive):
    """Slow and plain: at every distinct threshold, the recall gained times the precision there."""
    total, before, value = sum(positive), 0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [p for s, p in zip(scores, positive, strict=True) if s >= threshold]
        value += (sum(chosen) - before) / total * sum(chosen) / len(chosen)
        before = sum(chosen)
    return value


@pytest.mark.parametrize("levels", [3, 1000])  # with and without ties
def test_average_precision_equals_a_loop_and_scikit_learn(levels):
    rng = np.random.default_rng(levels)
    for _ in range(20):
        scores, positive = rng.integers(levels, size=40) / levels, rng.random(40) < 0.3
        positive[0] = True
        value = average_precision(scores, positive)[0]
        assert value == pytest.approx(loop_average_precision(scores, positive), abs=1e-12)
        assert value == pytest.approx(average_precision_score(positive, scores), abs=1e-12)


def test_counting_an_image_twice_is_having_it_twice():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(5, size=30) / 5, rng.random(30) < 0.4
    counts = rng.integers(3, size=(7, 30))
    for value, times in zip(average_precision(scores, positive, counts), counts, strict=True):
        assert value == pytest.approx(average_precision(scores.repeat(times), positive.repeat(times))[0], abs=1e-12)


def test_the_macro_mean_leaves_out_labels_that_no_image_has():
    scores = np.array([[0.9, 0.1, 0.3], [0.2, 0.8, 0.4]])
    labels = np.array([[1, 1, 0], [0, 0, 0]])
    assert macro_average_precision(scores, labels)[0] == pytest.approx((1.0 + 0.5) / 2)
    assert np.isnan(macro_average_precision(scores, np.zeros((2, 3)))[0])


def test_no_label_at_all_in_test_is_refused():
    with pytest.raises(ValueError, match="no test image has any label"):
        measure(Predicted(np.zeros((3, 2)), None), np.zeros((3, 2), np.uint8))


def test_equal_scores_go_to_the_smallest_class():
    predicted = Predicted(np.array([[0.5, 0.5, 0.0]]), np.array([4, 7, 9]))
    assert predicted.predictions.tolist() == [4]


def test_top5_counts_the_five_best_with_a_score():
    scores = np.zeros((4, 12))
    scores[:, :3] = [0.5, 0.3, 0.2]
    scores[3, 3:7] = [0.19, 0.18, 0.17, 0.16]
    # Fourth column without a vote: in the five by its number alone, and not counted; column 4 is fifth, column 5 sixth.
    labels = np.array([2, 3, 4, 4])
    result = measure(Predicted(scores, np.arange(12)), labels)
    assert result["top5"].value == 0.5
    assert result["top1"].value == 0.0
    assert measure(Predicted(scores[3:], np.arange(12)), np.array([5]))["top5"].value == 0.0


def test_top5_of_a_class_the_training_set_lacks_is_a_miss():
    scores = np.eye(10)
    classes = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 10])
    labels = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])  # 9 would be looked up at 10's column
    result = measure(Predicted(scores, classes), labels)
    assert result["top1"].value == result["top5"].value == 0.9
    assert measure(Predicted(scores, classes), np.full(10, 99))["top5"].value == 0.0


def test_the_best_epoch_is_counted_apart_and_is_the_first_of_equal_ones():
    scores = np.eye(3)[[0, 1, 1, 2]]
    by_epoch = np.array([[0, 0, 0, 0], [5, 1, 2, 5], [0, 1, 2, 0], [2, 1, 2, 5], [0, 1, 1, 5]])
    classes = np.array([0, 1, 5])
    predicted = Predicted(scores, classes, by_epoch=by_epoch)
    labels = np.array([0, 1, 2, 9])  # the training set has neither 2 nor 9, so the third epoch's 2 is as if by luck
    result = measure(predicted, labels)
    assert result["top1"].value == 0.5
    assert result["best_epoch_top1"].value == 0.75
    assert best_epoch(predicted, labels) == 3
    assert best_epoch(predicted, np.array([7, 1, 2, 9])) == 2
    plain = Predicted(scores, classes)
    assert best_epoch(plain, labels) is None
    assert measure(plain, labels) == {"top1": result["top1"]}


def test_scores_of_another_epoch_than_the_last_are_a_mistake():
    with pytest.raises(AssertionError, match="last epoch"):
        Predicted(np.eye(2), np.array([0, 1]), by_epoch=np.array([[0, 1], [1, 1]]))


def test_several_labels_have_no_single_prediction():
    with pytest.raises(ValueError, match="no single prediction"):
        _ = Predicted(np.zeros((1, 2)), None).predictions


def test_two_predictions_are_compared_on_the_images_on_which_they_disagree():
    rng = np.random.default_rng(0)
    labels = rng.integers(12, size=500)
    good, poor = (Predicted(rng.random((500, 12)) + by * np.eye(12)[labels], np.arange(12)) for by in (0.6, 0.2))
    found = compare(good, poor, labels)
    assert found.keys() == {"top1", "top5", "balanced_top1"}
    for metric, difference in found.items():
        scores = [measure(predicted, labels)[metric] for predicted in (good, poor)]
        assert difference.value == pytest.approx(scores[0].value - scores[1].value)
        assert difference.low < difference.value < difference.high
        assert difference.n == 500
    same = compare(good, good, labels)["top1"]
    assert same.value == 0
    assert same.high - same.low < 0.5 * (scores[0].high - scores[0].low), "paired: equal answers cancel"


def test_several_labels_are_compared_by_their_mean_average_precision():
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 4)) < 0.3).astype(int)
    good, poor = (Predicted(rng.random((300, 4)) + by * labels, None) for by in (0.5, 0.1))
    difference = compare(good, poor, labels)["map"]
    values = [macro_average_precision(predicted.scores, labels)[0] for predicted in (good, poor)]
    assert difference.value == pytest.approx(values[0] - values[1])
    assert 0 < difference.low < difference.value < difference.high
    assert compare(good, good, labels)["map"].value == 0


def test_classes_of_uneven_size_count_alike_in_the_balanced_share():
    from sklearn.metrics import balanced_accuracy_score

    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [300, 60, 20])
    scores = rng.random((380, 3)) + (0.5, 0.3, 0.0) * np.eye(3)[labels]
    predicted = Predicted(scores / scores.sum(axis=1, keepdims=True), np.arange(3))
    found = measure(predicted, labels)
    assert found["balanced_top1"].value == pytest.approx(balanced_accuracy_score(labels, predicted.predictions))
    assert found["balanced_top1"].value < found["top1"].value - 0.1
    assert found["balanced_top1"].high - found["balanced_top1"].low > found["top1"].high - found["top1"].low
    assert "balanced_top1" not in measure(predicted, np.arange(380) % 3), "it would say what top-1 says"
    gain = compare(predicted, Predicted(np.eye(3)[np.zeros(380, int)], np.arange(3)), labels)["balanced_top1"]
    assert gain.value == pytest.approx(found["balanced_top1"].value - 1 / 3)
    assert gain.low < gain.value < gain.high


def test_the_interval_of_a_balanced_share_covers_the_truth():
    rng = np.random.default_rng(1)
    labels, truth = np.repeat([0, 1, 2], [200, 40, 12]), np.array([0.9, 0.6, 0.95])
    covered = 0
    for _ in range(400):
        hits = rng.random(252) < truth[labels]
        score = measure(Predicted(np.eye(3)[np.where(hits, labels, (labels + 1) % 3)], np.arange(3)), labels)
        covered += score["balanced_top1"].low <= truth.mean() <= score["balanced_top1"].high
    assert 0.92 <= covered / 400 <= 0.99
