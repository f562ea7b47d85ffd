"""Protocols are found by name, with the settings of their papers; a number after a colon sets one of them."""

import numpy as np
import pytest
import torch

from barlow import protocols
from barlow.probes import FeatureSet
from barlow.protocols.knn import WeightedKNN
from barlow.protocols.linear_adam import LinearAdam
from barlow.protocols.linear_sgd import LinearSGD
from barlow.protocols.logistic import Logistic


def test_protocols_come_in_the_order_asked_for_with_their_default_settings() -> None:
    assert list(protocols.build(["logistic", "knn"]).items()) == [("logistic", Logistic()), ("knn", WeightedKNN())]
    assert list(protocols.build("logistic,knn")) == ["logistic", "knn"]
    assert tuple(protocols.build()) == protocols.DEFAULT


def test_a_number_after_the_colon_sets_what_the_class_says() -> None:
    assert protocols.build("knn:200,linear_sgd:0.02") == {
        "knn:200": WeightedKNN(k=200),
        "linear_sgd:0.02": LinearSGD(lr=0.02),
    }
    assert list(protocols.build("knn:5,20,200")) == ["knn:5", "knn", "knn:200"], "20 is what the name alone means"


def test_two_numbers_have_two_names_and_ordinary_ones_keep_theirs() -> None:
    far = protocols.build("knn:1234567,1234568,1000000")
    assert {name: each.k for name, each in far.items()} == {  # type: ignore[union-attr]
        "knn:1234567": 1234567,
        "knn:1234568": 1234568,
        "knn:1e+06": 1000000,
    }
    assert list(protocols.build("linear_sgd:0.30000001,0.02,1e-5")) == [
        "linear_sgd:0.30000001",
        "linear_sgd:0.02",
        "linear_sgd:1e-05",
    ]
    assert list(protocols.build("linear_sgd:0.3")) == ["linear_sgd"]
    assert list(protocols.build("semi:1.0,12.5")) == ["semi:1", "semi:12.5"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("knn,svn", r"no protocol 'svn'.* There are .*knn"),
        ("knn:many", r"protocol 'knn:many': knn takes a whole number after the colon \(k\), as in knn:5"),
        ("knn:0", "--protocol knn:0: .*k of at least 1"),
        ("svm:-1", "--protocol svm:-1: -1 positive images .* or no number for all images"),
        ("fewshot:1_0", r"protocol 'fewshot:1_0': fewshot takes a whole number"),
        ("logistic:3", r"protocol 'logistic:3': logistic takes no number"),
        ("knn,,logistic", "with commas between them"),
        ("", "with commas between them"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        protocols.build(text)


def test_protocols_that_train_do_so_on_the_gpu_and_others_stay_as_they_are() -> None:
    on_gpu = protocols.build(["linear_sgd", "linear_adam", "knn", "logistic"], torch.device("cuda"))
    assert on_gpu["linear_sgd"] == LinearSGD(device="cuda")
    assert on_gpu["linear_adam"] == LinearAdam(device="cuda")
    assert on_gpu["knn"] == WeightedKNN()
    assert protocols.build(protocols.kinds(), torch.device("mps")) == protocols.build(protocols.kinds())


def test_tables_have_a_short_name_for_each() -> None:
    assert protocols.label_of("knn") == "kNN"
    assert protocols.label_of("knn:200") == "kNN 200"
    assert protocols.label_of("of_a_later_version:3") == "of_a_later_version:3"
    for name in protocols.build(protocols.kinds()):
        assert 2 <= len(protocols.label_of(name)) <= 12


@pytest.mark.parametrize("protocol", ["knn5_euclidean", "logistic"])
@pytest.mark.parametrize("exponent", [-100, -70, -20, 20, 62, 100])
def test_the_scale_of_features_does_not_decide(protocol: str, exponent: int) -> None:
    """Squares of features of 2 to the power of 64 are no numbers of float32."""
    rng = np.random.default_rng(0)
    sets = []
    for n in (120, 80):
        labels = np.arange(n) % 4
        sets.append(
            FeatureSet(torch.tensor(rng.normal(size=(n, 8)) + np.eye(4, 8)[labels]).float(), labels, np.arange(n))
        )
    probe = protocols.load(protocol)()
    scaled = [FeatureSet(each.features * 2.0**exponent, each.labels, each.ids) for each in sets]
    expected, found = (probe.predict(train, test.features) for train, test in (sets, scaled))
    np.testing.assert_array_equal(found.scores, expected.scores)
