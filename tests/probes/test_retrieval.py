"""Search against scikit-learn's average precision, query by query."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from sklearn.metrics.pairwise import cosine_similarity

from barlow.probes import FeatureSet, measure
from barlow.probes.average_precision import by_chance
from barlow.probes.metrics import compare
from barlow.probes.report import evaluate_features, outcome_of, render, unsuited_features
from barlow.protocols import retrieval
from barlow.protocols.retrieval import Retrieval


def rows(n: int, labels: np.ndarray, seed: int, noise: float = 1.5) -> FeatureSet:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(8, 10))
    given = labels if labels.ndim == 2 else np.eye(8)[labels]
    features = np.maximum(given, 0) @ centres[: given.shape[1]] + noise * rng.normal(size=(n, 10))
    return FeatureSet(torch.tensor(features, dtype=torch.float64), labels, np.arange(n))


@pytest.fixture(params=[7, 2**22])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "BLOCK", request.param * 90)


def test_of_one_class_each_it_is_scikit_learns_average_precision(blocks: None) -> None:
    train = rows(90, np.random.default_rng(2).integers(1, 6, 90), 3)
    test = rows(40, np.random.default_rng(4).integers(1, 8, 40), 5)  # 6 and 7 cannot be found
    cosines = cosine_similarity(test.features.numpy(), train.features.numpy())
    right = test.labels[:, None] == train.labels[None]
    precisions = [average_precision_score(r, c) if r.any() else 0.0 for r, c in zip(right, cosines, strict=True)]
    found = measure(Retrieval().predict(train, test.features), test.labels)
    assert found["map"].value == pytest.approx(np.mean(precisions))
    order = np.argsort(-cosines, axis=1)
    for k in (1, 5, 10):
        hits = np.take_along_axis(right, order, axis=1)[:, :k].any(axis=1)
        assert found[f"recall_at_{k}"].value == hits.mean()


def test_of_several_labels_each_label_is_a_search_and_unjudged_images_are_left_out_of_it(blocks: None) -> None:
    draws = np.random.default_rng(6)
    train = rows(90, draws.choice([-1, 0, 1], (90, 4), p=[0.1, 0.6, 0.3]).astype(np.int8), 7)
    test = rows(40, draws.choice([-1, 0, 1], (40, 4), p=[0.1, 0.7, 0.2]).astype(np.int8), 8)
    cosines = cosine_similarity(test.features.numpy(), train.features.numpy())
    values, recalls = [], []
    for query, cosine in zip(test.labels, cosines, strict=True):
        each, hit = [], []
        for label in np.flatnonzero(query == 1):
            judged = train.labels[:, label] >= 0
            each.append(average_precision_score(train.labels[judged, label], cosine[judged]))
            hit.append(train.labels[judged, label][np.argsort(-cosine[judged])[:5]].any())
        if each:
            values.append(np.mean(each))
            recalls.append(np.mean(hit))
    found = measure(Retrieval().predict(train, test.features), test.labels)
    assert found["map"].value == pytest.approx(np.mean(values))
    assert found["map"].n == len(values) < 40, "queries without a label are left out"
    assert found["recall_at_5"].value == pytest.approx(np.mean(recalls))


@pytest.mark.parametrize("several", [False, True])
def test_chance_is_what_features_that_mean_nothing_find(several: bool) -> None:
    """Frequent classes are found often by chance, and asked for often: chance is above the mean share of a class."""
    draws = np.random.default_rng(3)

    def labels(n: int) -> np.ndarray:
        if not several:
            return draws.choice(3, n, p=[0.8, 0.15, 0.05])
        return np.stack([draws.random(n) < 0.9, draws.random(n) < 0.1], axis=1).astype(np.int8)

    sets = [FeatureSet(torch.tensor(draws.normal(size=(n, 16))), labels(n), np.arange(n)) for n in (3000, 500)]
    train, test = sets
    outcome = outcome_of(Retrieval().predict(train, test.features), test.labels)
    assert outcome.chance["map"] == pytest.approx(0.852 if several else 0.665, abs=0.03)
    assert outcome.metrics["map"].value == pytest.approx(outcome.chance["map"], abs=0.01)


@pytest.mark.parametrize("several", [False, True])
def test_chance_among_few_images_is_above_the_share_of_a_class(several: bool) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 10
    given = np.eye(10, dtype=np.int8)[labels] if several else labels
    found = []
    for _ in range(30):
        sets = [FeatureSet(torch.tensor(rng.normal(size=(40, 8))), given, np.arange(40)) for _ in range(2)]
        outcome = outcome_of(Retrieval().predict(sets[0], sets[1].features), given)
        found.append(outcome.metrics["map"].value)
    assert outcome.chance["map"] == pytest.approx(by_chance(4, 40)) == pytest.approx(np.mean(found), abs=0.01)
    assert outcome.chance["map"] > 0.16, "and not the share, 0.1"


def test_features_that_point_nearly_the_same_way_are_told_apart() -> None:
    train, test = (rows(90, np.arange(90) % 5, seed, 0.1) for seed in (1, 2))
    away = [FeatureSet((s.features * 1e-4 + 7).float(), s.labels, s.ids) for s in (train, test)]
    assert Retrieval()(*away)["map"].value > 0.9


def test_gains_are_paired_image_by_image() -> None:
    labels = np.arange(120) % 6
    train, test = rows(120, labels, 1), rows(120, labels, 2)
    blurred = [FeatureSet(s.features + 0.3 * torch.randn(s.features.shape, generator=torch.Generator().manual_seed(3)),
                          s.labels, s.ids) for s in (train, test)]  # fmt: skip
    better, worse = Retrieval().predict(train, test.features), Retrieval().predict(blurred[0], blurred[1].features)
    gains, a, b = compare(better, worse, labels), measure(better, labels), measure(worse, labels)
    assert set(gains) == {"map", "recall_at_1", "recall_at_5", "recall_at_10"}
    for name, gain in gains.items():
        assert gain.value == pytest.approx(a[name].value - b[name].value)
        assert gain.low <= gain.value <= gain.high
    spans = [score.high - score.low for score in (a["map"], b["map"])]
    assert gains["map"].high - gains["map"].low < sum(spans)


def test_features_that_do_not_vary_find_what_chance_finds_whatever_the_order_of_the_images() -> None:
    labels = np.repeat(np.arange(10), 20)  # class by class, as in folders
    train, test = (FeatureSet(torch.full((200, 7), 0.3), labels, np.arange(200)) for _ in range(2))
    outcome = outcome_of(Retrieval().predict(train, test.features), labels)
    assert outcome.metrics["map"].value == pytest.approx(outcome.chance["map"], abs=0.01)
    assert outcome.metrics["recall_at_10"].value == pytest.approx(1 - (180 / 200) ** 10, abs=0.12)
    assert Retrieval()(train, test) == Retrieval()(train, test)
    several = [FeatureSet(s.features, np.eye(10, dtype=np.int8)[labels], s.ids) for s in (train, test)]
    assert Retrieval()(*several)["map"].value == pytest.approx(outcome.metrics["map"].value)


def test_only_images_that_are_equally_similar_are_put_in_a_random_order() -> None:
    train, test = rows(90, np.arange(90) % 5, 1), rows(40, np.arange(40) % 5, 2)
    cosines = cosine_similarity(test.features.numpy(), train.features.numpy())
    ((_, order),) = retrieval.orders(train.features, test.features)
    np.testing.assert_array_equal(order, np.argsort(-cosines, axis=1))


def test_a_table_says_where_the_features_of_all_images_are_the_same() -> None:
    labels = np.arange(40) % 4
    same = FeatureSet(torch.full((40, 3), 2.5), labels, np.arange(40))
    features = same.features.clone()
    features[0] += 1
    nearly = FeatureSet(features, labels, np.arange(40))
    results = evaluate_features({"encoder": (same, same), "untrained": (nearly, same)}, ["knn", "retrieval"])
    words = " ".join(render(results).split())
    assert "encoder: the features of all images are the same" in words
    assert "untrained: the features of 98.8 % of the images are the same" in words
    assert len(list(unsuited_features(results))) == 2, "one line for each set"
    varied = {"encoder": (rows(40, labels, 1), rows(40, labels, 2))}
    assert not list(unsuited_features(evaluate_features(varied, ["knn"])))
