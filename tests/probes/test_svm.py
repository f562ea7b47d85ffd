"""The SVM protocol against scikit-learn's own cross-validation, and its choices."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from nightly_cases import nightly_but
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC

from barlow.probes import FeatureSet, measure
from barlow.probes.average_precision import (
    UNJUDGED,
    eleven_point_average_precision,
    envelope_average_precision,
    macro_average_precision,
)
from barlow.protocols import svm
from barlow.protocols.svm import COSTS, SVM


def tagged(n: int, seed: int, noise: float = 1.2, classes: int = 4, unjudged: float = 0.0) -> FeatureSet:
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, classes)) < np.linspace(0.1, 0.4, classes)).astype(np.int8)
    directions = np.random.default_rng(77).normal(size=(classes, 16))
    features = labels @ directions + noise * rng.normal(size=(n, 16)) + 1
    labels[rng.random(labels.shape) < unjudged] = UNJUDGED
    return FeatureSet(torch.tensor(features, dtype=torch.float32), labels, np.arange(n))


def by_scikit_learn(train: FeatureSet, test: FeatureSet) -> tuple[np.ndarray, list[float]]:
    """Decision values and costs, from scikit-learn's whole pipeline for one class after the other."""
    x, z = (
        s.features.double().numpy() / (np.linalg.norm(s.features.double().numpy(), axis=1, keepdims=True) + 1e-5)
        for s in (train, test)
    )
    columns, costs = [], []
    for label in train.labels.T:
        rows = label != UNJUDGED
        target = np.where(label[rows] == 1, 1, -1)

        def model(cost: float) -> LinearSVC:
            return LinearSVC(C=cost, class_weight={1: 2, -1: 1}, dual=True, max_iter=2000, tol=1e-4, random_state=0)

        means = [cross_val_score(model(c), x[rows], target, cv=3, scoring="average_precision").mean() for c in COSTS]
        costs.append(COSTS[int(np.argmax(means))])
        columns.append(model(costs[-1]).fit(x[rows], target).decision_function(z))
    return np.stack(columns, axis=1), costs


@pytest.mark.filterwarnings("ignore:Liblinear failed to converge")
@pytest.mark.parametrize("unjudged", nightly_but([0.0, 0.1], bool))
def test_it_is_scikit_learns_cross_validation_class_by_class(unjudged: float) -> None:
    train, test = tagged(150, 0, unjudged=unjudged), tagged(90, 1, unjudged=unjudged)
    predicted = SVM().predict(train, test.features)
    expected, costs = by_scikit_learn(train, test)
    assert predicted.notes["costs"] == costs
    np.testing.assert_allclose(predicted.scores, expected, atol=1e-9)
    found = measure(predicted, test.labels)
    assert list(found) == ["map_envelope", "map_11_point"]
    for name, average in (
        ("map_envelope", envelope_average_precision),
        ("map_11_point", eleven_point_average_precision),
    ):
        by_class = [
            average(s[t >= 0], t[t >= 0] == 1)[0] for s, t in zip(expected.T, test.labels.T, strict=True)
        ]  # fmt: skip
        assert found[name].value == pytest.approx(np.mean(by_class))
        assert found[name].low < found[name].value < found[name].high


def test_images_that_are_difficult_are_left_out_for_their_class() -> None:
    train, test = tagged(150, 0), tagged(90, 1)
    hidden = np.flatnonzero(train.labels[:, 2] == 1)[:10]
    labels = train.labels.copy()
    labels[hidden, 2] = UNJUDGED
    some = SVM(costs=(1.0,)).predict(replace(train, labels=labels), test.features).scores
    kept = np.setdiff1d(np.arange(150), hidden)
    fewer = replace(train, features=train.features[kept], labels=train.labels[kept], ids=kept)
    np.testing.assert_allclose(some[:, 2], SVM(costs=(1.0,)).predict(fewer, test.features).scores[:, 2])
    np.testing.assert_allclose(some[:, 0], SVM(costs=(1.0,)).predict(train, test.features).scores[:, 0])


def test_one_class_an_image_gets_the_class_of_the_highest_decision() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 16))
    train, test = (
        FeatureSet(torch.tensor(centres[labels] + 0.9 * rng.normal(size=(len(labels), 16))), labels, np.arange(n))
        for n in (150, 80)
        for labels in [np.arange(n) % 5]
    )
    one_hot = replace(train, labels=np.eye(5, dtype=np.int8)[train.labels])
    decisions = SVM().predict(one_hot, test.features).scores
    predicted = SVM().predict(train, test.features)
    np.testing.assert_array_equal(predicted.predictions, decisions.argmax(axis=1))
    assert measure(predicted, test.labels)["top1"].value > 0.7


def test_the_low_shot_form_draws_positives_and_negatives_of_each_class() -> None:
    train, test = tagged(300, 0), tagged(120, 1)
    protocol = SVM(positives=8, costs=(0.1, 1.0, 10.0))
    drawn = protocol._drawn(train.labels, 0)
    assert ((drawn == 1).sum(axis=0) == 8).all()
    assert ((drawn == 0).sum(axis=0) == 24).all(), "three other classes: three times as many"
    assert ((drawn == train.labels) | (drawn == UNJUDGED)).all()
    assert not np.array_equal(drawn, protocol._drawn(train.labels, 1))
    predicted = protocol.predict(train, test.features)
    assert predicted.scores.shape == (5, 120, 4)
    values = [macro_average_precision(s, test.labels, None, envelope_average_precision)[0] for s in predicted.scores]
    score = measure(predicted, test.labels)["map_envelope"]
    assert score.value == pytest.approx(np.mean(values))
    whole = SVM(costs=protocol.costs).predict(train, test.features)
    assert score.value < measure(whole, test.labels)["map_envelope"].value
    one = SVM(positives=1).predict(train, test.features)
    assert all(each["costs"] == [1.0] * 4 for each in one.notes["each"]), "one image is nothing to choose by"


def test_the_cost_that_was_chosen_is_noted_with_what_it_was_chosen_by() -> None:
    train, test = tagged(150, 0), tagged(90, 1)
    notes = SVM().predict(train, test.features).notes
    assert 0.3 < notes["held_out_score"] < 1
    assert len(notes["costs"]) == 4
    labels = np.concatenate([train.labels, np.zeros((150, 1), np.int8)], axis=1)
    predicted = SVM().predict(replace(train, labels=labels), test.features)
    assert predicted.notes["costs"][4] is None
    assert (predicted.scores[:, 4] == 0).all(), "a class that no training image has gets one score for all"


def test_what_it_cannot_be_given_is_said() -> None:
    with pytest.raises(ValueError, match="positive images"):
        SVM(positives=-1)
    with pytest.raises(ValueError, match="costs are"):
        SVM(costs=(1.0, 0.1))


def test_classes_that_are_shared_between_processes_get_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = tagged(90, 0, classes=3), tagged(40, 1, classes=3)
    alone = SVM(costs=(0.1, 1.0)).predict(train, test.features)
    monkeypatch.setattr(svm, "LARGE", 0)
    monkeypatch.setattr(svm, "available_cores", lambda: 2)
    shared = SVM(costs=(0.1, 1.0)).predict(train, test.features)
    np.testing.assert_array_equal(shared.scores, alone.scores)
    assert shared.notes == alone.notes


@pytest.mark.parametrize("unjudged", [0.0, 0.1])
def test_more_features_than_images_take_other_axes_and_give_the_same(
    unjudged: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = tagged(60, 0, unjudged=unjudged), tagged(40, 1)
    wider = torch.randn(16, 300, generator=torch.Generator().manual_seed(0))
    train, test = (replace(each, features=(each.features @ wider).relu()) for each in (train, test))
    widths = []
    fitted = SVM._fitted

    def noted(self: SVM, x: np.ndarray, *rest: object) -> object:
        widths.append(x.shape[1])
        return fitted(self, x, *rest)

    monkeypatch.setattr(SVM, "_fitted", noted)
    few = SVM(costs=(0.1, 1.0)).predict(train, test.features)
    assert set(widths) == {60}
    monkeypatch.setattr(svm, "_in_fewer_columns", lambda x, z: (x, z))
    whole = SVM(costs=(0.1, 1.0)).predict(train, test.features)
    assert max(widths) == 300
    assert few.notes["costs"] == whole.notes["costs"]
    np.testing.assert_allclose(few.scores, whole.scores, atol=1e-9)
