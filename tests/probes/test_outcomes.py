"""What a protocol has found is found again as it was, and for the same question only."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from barlow import storage
from barlow.probes import FeatureSet, Score, outcomes
from barlow.probes.drawn import Drawn
from barlow.probes.metrics import Predicted, Prediction, compare, compare_means
from barlow.probes.outcomes import Outcomes, outcome_key
from barlow.probes.report import outcome_of
from barlow.probes.results import Outcome
from barlow.protocols.fewshot import FewShot
from barlow.protocols.knn import WeightedKNN
from barlow.protocols.linear_sgd import LinearSGD
from barlow.protocols.logistic import Logistic
from barlow.protocols.retrieval import Retrieval
from barlow.protocols.svm import SVM

SOURCES = {"features": "a", "train_labels": "b", "test_labels": "c"}
CLASSES = 12


def features(n: int, seed: int, apart: float, several: bool) -> FeatureSet:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    rows = apart * np.eye(CLASSES, 16)[labels] + rng.normal(size=(n, 16))
    marks = (np.eye(CLASSES, dtype=np.int64)[labels] | (rng.random((n, CLASSES)) < 0.1)).astype(np.int64)
    return FeatureSet(torch.tensor(rows, dtype=torch.float32), marks if several else labels, np.arange(n))


def pair(apart: float, several: bool) -> tuple[FeatureSet, FeatureSet]:
    return features(120, 0, apart, several), features(60, 1, apart, several)


@pytest.mark.parametrize(
    ("probe", "several"),
    [
        (WeightedKNN(), False),
        (WeightedKNN(), True),
        (LinearSGD(epochs=2), False),
        (Logistic(), False),
        (FewShot(draws=3), False),
        (Retrieval(), False),
        (Retrieval(), True),
        (SVM(), True),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, bool) else "several" if value else "one",
)
def test_every_kind_of_answer_is_found_as_it_was(probe: Any, several: bool, tmp_path: Path) -> None:
    kept, answers, originals = Outcomes(tmp_path, pytest.fail), [], []
    for number, apart in enumerate((2.0, 0.5)):
        train, test = pair(apart, several)
        if isinstance(probe, SVM):  # which fits 34 times for each class
            train, test = (replace(part, labels=part.labels[:, :2]) for part in (train, test))
        original = outcome_of(probe.predict(train, test.features), test.labels)
        given = kept.keep(f"{number:064x}", original)
        found = kept.found(f"{number:064x}", test.labels)
        assert found == given
        assert found is not None
        assert (found.metrics, found.chosen_on_test, found.chance) == (
            original.metrics,
            original.chosen_on_test,
            original.chance,
        )
        assert found.answers is not None
        assert original.answers is not None
        answers.append(found.answers[0])
        originals.append(original.answers[0])
    labels = test.labels
    assert compare(answers[0], answers[1], labels) == compare(originals[0], originals[1], labels)


def test_a_key_is_of_the_protocol_its_settings_and_its_sources_and_not_of_where_it_computes() -> None:
    key = outcome_key("knn", WeightedKNN(), SOURCES)
    assert key == outcome_key("knn", WeightedKNN(k=20), dict(reversed(SOURCES.items())))
    others = [
        outcome_key("knn", WeightedKNN(k=5), SOURCES),
        outcome_key("knn:20", WeightedKNN(), SOURCES),
        *(outcome_key("knn", WeightedKNN(), SOURCES | {name: "other"}) for name in SOURCES),
    ]
    assert len({key, *others}) == 6
    assert outcome_key("s", LinearSGD(), SOURCES) == outcome_key("s", LinearSGD(device="cuda"), SOURCES)


def outcome(**changes: Any) -> Outcome:
    predicted = Predicted(np.eye(3)[[0, 1, 2, 0]], np.arange(3))
    made = Outcome({"top1": Score(0.1, 0.0, 0.5, 4)}, {"k": (1, 2)}, {}, None, (predicted, np.array([0, 1, 2, 1])))
    return replace(made, **changes)


def test_of_a_thousand_classes_the_five_best_are_kept(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random((50, 1000))
    predicted = Predicted(scores, np.arange(1000))
    Outcomes(tmp_path, pytest.fail).keep("a" * 64, outcome(answers=(predicted, np.zeros(50, np.int64))))
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size < 50 * 5 * 2 + 2000
    found = Outcomes(tmp_path, pytest.fail).found("a" * 64, np.zeros(50, np.int64))
    assert found is not None
    assert found.answers is not None
    assert isinstance(found.answers[0], Drawn)
    assert np.array_equal(found.answers[0].answers[0], predicted.answers)  # type: ignore[index]


def test_what_is_too_large_is_said_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "MOST_NUMBERS", 10)
    said: list[str] = []
    labels = np.ones((4, 3), np.int64)
    Outcomes(tmp_path, said.append).keep("a" * 64, outcome(answers=(Predicted(np.ones((4, 3)), None), labels)))
    assert said == ["an answer of 12 numbers is not kept: asked again, it is computed again"]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_loses_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> None:
        raise storage.StorageError("cannot write: the disk is full")

    monkeypatch.setattr(storage, "write_tensors", full)
    said: list[str] = []
    assert Outcomes(tmp_path, said.append).keep("a" * 64, outcome()).metrics == outcome().metrics
    assert said == ["cannot write: the disk is full; the numbers are not lost, and would be computed again"]


def test_several_predictions_are_compared_by_their_means() -> None:
    rng, labels = np.random.default_rng(0), np.arange(40) % 3
    made: list[Prediction] = [Predicted(rng.random((40, 3)), np.arange(3)) for _ in range(5)]
    found = compare_means(made[:2], made[2:], labels)["top1"]
    values = [compare(a, b, labels)["top1"] for a in made[:2] for b in made[2:]]
    assert found.value == pytest.approx(np.mean([each.value for each in values]))
    right = [float((each.predictions == labels).mean()) for each in made]  # type: ignore[attr-defined]
    assert found.value == pytest.approx(np.mean(right[:2]) - np.mean(right[2:]))
    assert found.low == pytest.approx(np.mean([each.low for each in values]))
    assert found.low < found.value < found.high
    assert compare_means(made[:1], made[1:2], labels) == compare(made[0], made[1], labels)


def test_a_strangers_gigabytes_are_not_read(tmp_path: Path) -> None:
    header = json.dumps({"table": {"dtype": "U8", "shape": [2**31], "data_offsets": [0, 2**31]}}).encode()
    path = tmp_path / f"{'a' * 32}.safetensors"
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2**31)  # a hole, which takes no space
    said: list[str] = []
    tracemalloc.start()
    assert Outcomes(tmp_path, said.append).found("a" * 64, np.zeros(4, np.int64)) is None
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    assert said == [f"{path} is far larger than what is kept: it is computed again"]
