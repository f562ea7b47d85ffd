"""Probes are built by kind, with the settings of their papers."""

import pytest
import torch

from barlow.probes import DEFAULT_PROBES, PROBES, build_probes
from barlow.probes.linear import LinearAdam, LinearSGD


def test_probes_come_in_the_order_asked_for_with_their_default_settings() -> None:
    assert list(build_probes(["logistic", "knn"]).items()) == [
        ("logistic", PROBES["logistic"]()),
        ("knn", PROBES["knn"]()),
    ]
    assert tuple(build_probes()) == DEFAULT_PROBES


def test_probes_that_train_do_so_on_the_gpu_and_others_stay_as_they_are() -> None:
    on_gpu = build_probes(list(PROBES), torch.device("cuda"))
    assert on_gpu["linear_sgd"] == LinearSGD(device="cuda")
    assert on_gpu["linear_adam"] == LinearAdam(device="cuda")
    assert {kind: probe for kind, probe in on_gpu.items() if not kind.startswith("linear_")} == build_probes(
        ["knn", "knn5_euclidean", "logistic"]
    )
    assert build_probes(list(PROBES), torch.device("mps")) == build_probes(list(PROBES))


def test_an_unknown_kind_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="unknown probe 'svm'; use one or more of knn, "):
        build_probes(["knn", "svm"])
