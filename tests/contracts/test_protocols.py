"""What every protocol that reads features promises."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch

from barlow import protocols
from barlow.probes import FeatureSet, Predicted, measure
from barlow.probes.drawn import Drawn
from barlow.probes.metrics import BEST_EPOCH
from barlow.probes.ranked import Ranked
from barlow.probes.report import outcome_of
from barlow.protocols import Probe
from barlow.protocols.retrieval import Retrieval


def blobs(classes: int, n: int, apart: float, seed: int, width: int = 16) -> FeatureSet:
    """One Gaussian cloud per class; the centres are the same for every seed."""
    centres = np.random.default_rng(99).normal(size=(classes, width))
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    features = apart * centres[labels] + rng.normal(size=(n, width))
    return FeatureSet(torch.tensor(features, dtype=torch.float32), labels, np.arange(n))


def tagged(n: int, seed: int, noise: float = 0.3) -> FeatureSet:
    """Three labels an image, each shown by features of its own."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 3)) < 0.4).astype(np.uint8)
    features = np.concatenate([labels, labels], axis=1) * 2.0 - 1 + noise * rng.normal(size=(n, 6))
    return FeatureSet(torch.tensor(features, dtype=torch.float32), labels, np.arange(n))


FEATURES = [kind for kind in protocols.kinds() if not protocols.load(kind).trains_encoder]
SEARCHES = {"retrieval"}
"""Protocols that do not say of which class an image is."""


QUICK = {"svm": {"costs": (0.1, 1.0, 10.0)}, "linear": {"rates": (0.1, 0.3, 1.0)}}
"""Settings of protocols that take long; all others are as a user gets them."""


def built(kind: str) -> Probe:
    return protocols.load(kind)(**QUICK.get(kind, {}))


@pytest.fixture(params=FEATURES)
def probe(request) -> Probe:
    return built(request.param)


@pytest.fixture(params=[kind for kind in FEATURES if kind not in SEARCHES])
def classifier(request) -> Probe:
    return built(request.param)


def said(prediction) -> list[np.ndarray]:
    """Everything that a prediction says of the test images, with the images along the first axis."""
    if isinstance(prediction, Predicted):
        return [prediction.scores]
    if isinstance(prediction, Ranked):
        return [prediction.precision, np.minimum(prediction.first, 10**6)]
    assert isinstance(prediction, Drawn)
    return [np.moveaxis(prediction.answers if prediction.answers is not None else prediction.scores, 1, 0)]


def right(scores) -> float:
    """How often the first answer was right."""
    return scores["top1" if "top1" in scores else "recall_at_1"].value


def map_of(scores) -> float:
    return next(score.value for name, score in scores.items() if name.startswith("map"))


def several(probe: Probe) -> None:
    if not probe.several_labels:
        with pytest.raises(ValueError, match="images of one class each"):
            probe(tagged(100, 0), tagged(50, 1))
        pytest.skip("it is for images of one class each, and says so")


def test_there_are_probes():
    assert {"knn", "knn5_euclidean", "logistic", "linear_sgd", "linear_adam"} <= set(protocols.kinds())
    assert set(protocols.DEFAULT) <= set(protocols.kinds())


def test_it_is_a_frozen_dataclass(probe):
    with pytest.raises(FrozenInstanceError):
        probe.label = 1


def test_separable_features_are_read_without_error(probe):
    scores = probe(blobs(5, 200, 8, 0), blobs(5, 100, 8, 1))
    assert right(scores) == 1.0
    assert next(iter(scores.values())).n == 100


def test_features_without_information_give_chance(probe):
    scores = probe(blobs(4, 600, 0, 0), blobs(4, 600, 0, 1))
    assert abs(right(scores) - 0.25) < 0.04


def test_two_classes_work(probe):
    scores = probe(blobs(2, 100, 4, 0), blobs(2, 100, 4, 1))
    assert right(scores) > 0.95
    assert "top5" not in scores


def test_top5_is_reported_from_ten_classes_up(classifier):
    assert "top5" not in classifier(blobs(9, 180, 1, 0), blobs(9, 90, 1, 1))
    scores = classifier(blobs(10, 400, 0.5, 0), blobs(10, 200, 0.5, 1))
    assert scores["top1"].value < scores["top5"].value <= 1


def test_intervals_enclose_the_value(probe):
    of_classes, of_labels = (blobs(10, 300, 0.5, 0), blobs(10, 200, 0.5, 1)), (tagged(200, 0, 2.0), tagged(100, 1, 2.0))
    for train, test in (of_classes, of_labels) if probe.several_labels else (of_classes,):
        for score in probe(train, test).values():
            assert 0 <= score.low <= score.value <= score.high <= 1
            assert score.low < score.high or score.value == 1


def test_an_epoch_chosen_on_the_test_images_is_never_the_number(probe):
    train, test = blobs(10, 200, 0.2, 0), blobs(10, 300, 0.2, 1)
    predicted, scores = probe.predict(train, test.features), probe(train, test)
    if not isinstance(predicted, Predicted):
        assert BEST_EPOCH not in scores
        return
    assert scores["top1"].value == (predicted.predictions == test.labels).mean(), "read from the last scores"
    assert (BEST_EPOCH in scores) == (predicted.by_epoch is not None)
    if predicted.by_epoch is not None:
        assert scores[BEST_EPOCH].value == max((row == test.labels).mean() for row in predicted.by_epoch)
        assert scores[BEST_EPOCH].value >= scores["top1"].value


def test_the_order_of_test_rows_changes_nothing(probe):
    train, test = blobs(6, 200, 1, 0), blobs(6, 120, 1, 1)
    order = np.random.default_rng(2).permutation(len(test))
    straight, shuffled = probe.predict(train, test.features), probe.predict(train, test.features[order])
    for moved, still in zip(said(shuffled), said(straight), strict=True):
        np.testing.assert_allclose(moved, still[order], atol=1e-5)
    moved = replace(test, features=test.features[order], labels=test.labels[order], ids=test.ids[order])
    again = probe(train, moved)
    for name, score in probe(train, test).items():
        assert again[name].value == pytest.approx(score.value, abs=1e-9)


def test_a_test_row_is_scored_as_if_it_were_alone(probe):
    train, test = blobs(6, 200, 1, 0), blobs(6, 120, 1, 1)
    alone, together = (said(probe.predict(train, features)) for features in (test.features[7:8], test.features))
    for one, all_of_them in zip(alone, together, strict=True):
        np.testing.assert_allclose(one[0], all_of_them[7], atol=1e-5)


def test_test_labels_take_no_part(probe):
    train, test = blobs(4, 200, 1, 0), blobs(4, 100, 1, 1)
    garbage = replace(test, labels=(test.labels + 1) % 4)
    before = probe.predict(train, test.features)
    assert probe(train, test) == measure(before, test.labels)
    assert probe(train, garbage) == measure(before, garbage.labels)
    after = probe.predict(train, garbage.features)
    for one, other in zip(said(before), said(after), strict=True):
        np.testing.assert_array_equal(one, other)
    assert before.notes == after.notes


def test_train_labels_do_take_part(probe):
    train, test = blobs(4, 200, 8, 0), blobs(4, 100, 8, 1)
    assert right(probe(replace(train, labels=(train.labels + 1) % 4), test)) == 0


def test_inputs_are_not_modified(probe):
    train, test = blobs(4, 100, 1, 0), blobs(4, 50, 1, 1)
    copies = train.features.clone(), test.features.clone(), train.labels.copy()
    probe(train, test)
    assert torch.equal(train.features, copies[0])
    assert torch.equal(test.features, copies[1])
    np.testing.assert_array_equal(train.labels, copies[2])


def test_a_probe_repeated_says_the_same(probe):
    train, test = blobs(4, 200, 0.5, 0), blobs(4, 100, 0.5, 1)
    one, other = (said(probe.predict(train, test.features)) for _ in range(2))
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first, second)


def test_scores_are_shares_and_predictions_are_classes_of_the_training_set(classifier):
    train = blobs(4, 100, 1, 0)
    gaps = replace(train, labels=np.array([2, 3, 5, 11])[train.labels])
    predicted = classifier.predict(gaps, blobs(4, 50, 1, 1).features)
    if isinstance(predicted, Drawn):
        assert set(np.unique(predicted.answers)) == {2, 3, 5, 11}
        return
    np.testing.assert_allclose(predicted.scores.sum(axis=1), 1, atol=1e-5)
    assert set(predicted.predictions) <= {2, 3, 5, 11}
    assert ((predicted.confidence > 0.2) & (predicted.confidence <= 1 + 1e-6)).all()


def test_one_class_in_train_is_refused(probe):
    with pytest.raises(ValueError, match=r"class 3.*at least two"):
        probe(replace(blobs(2, 40, 1, 0), labels=np.full(40, 3)), blobs(2, 10, 1, 1))


def test_features_of_another_width_are_refused(probe):
    with pytest.raises(ValueError, match="16 wide"):
        probe(blobs(2, 40, 1, 0), blobs(2, 40, 1, 1, width=8))


def test_a_class_only_in_test_counts_as_an_error(probe):
    test = blobs(4, 100, 8, 1)
    scores = probe(blobs(4, 200, 8, 0), replace(test, labels=np.where(test.labels == 3, 9, test.labels)))
    assert right(scores) == 0.75


def test_a_handful_of_training_images_is_enough_to_answer(probe):
    assert right(probe(blobs(3, 30, 8, 0), blobs(3, 30, 8, 1))) > 0.9
    # One image a class: five neighbours are then all there are, and equal votes go to class 0.
    assert right(probe(blobs(3, 3, 8, 0), blobs(3, 30, 8, 1))) > 0.3


def test_collapsed_features_are_an_answer_and_not_an_error(probe):
    train, test = blobs(4, 80, 1, 0), blobs(4, 40, 1, 1)
    constant = [replace(rows, features=torch.full_like(rows.features, 0.7)) for rows in (train, test)]
    if isinstance(probe, Retrieval):  # equals come in an order that is drawn for each search
        assert right(probe(*constant)) == pytest.approx(0.25, abs=0.05)
    else:
        assert right(probe(*constant)) == 0.25


def test_several_labels_an_image_are_read(probe):
    several(probe)
    scores = probe(tagged(300, 0), tagged(100, 1))
    assert not {"top1", "top5", BEST_EPOCH} & set(scores)
    # A search that asks for three labels at once finds images that have only one of them.
    assert map_of(scores) > (0.65 if isinstance(probe.predict(tagged(300, 0), tagged(9, 1).features), Ranked) else 0.95)


def test_several_labels_without_information_give_their_frequency(probe):
    several(probe)
    train, test = tagged(300, 0), tagged(300, 1)
    noise = [
        replace(s, features=torch.randn(300, 6, generator=torch.Generator().manual_seed(5 + i)))
        for i, s in enumerate((train, test))
    ]
    assert abs(map_of(probe(*noise)) - 0.4) < 0.1


def test_a_label_that_no_image_has_is_no_error(probe):
    several(probe)
    train, test = tagged(100, 0), tagged(60, 1)
    extra = [
        replace(s, labels=np.concatenate([s.labels, np.zeros((len(s), 1), np.uint8)], axis=1)) for s in (train, test)
    ]
    assert map_of(probe(*extra)) == pytest.approx(map_of(probe(train, test)))


def test_shuffled_test_labels_change_nothing_that_was_chosen(probe):
    """What a protocol chooses (a penalty, a rate, a cost) it reads off its notes, which test labels never reach."""
    train, test = blobs(4, 120, 0.7, 0), blobs(4, 80, 0.7, 1)
    shuffled = replace(test, labels=np.random.default_rng(3).permutation(test.labels))
    chosen = [outcome_of(probe.predict(train, t.features), t.labels) for t in (test, shuffled)]
    assert chosen[0].notes == chosen[1].notes
    assert chosen[0].metrics != chosen[1].metrics, "the labels do count in the end"


def test_every_docstring_says_where_it_is_from(probe):
    words = type(probe).__doc__
    assert "Source: " in words
    assert "Convention: " in words
    assert "Deviation: " in words
