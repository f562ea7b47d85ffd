"""Runs whose targets are clusters or words: resumed in an epoch and at a clustering they are what they would be."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from barlow import checkpoints, storage
from barlow.pretraining import pretrain
from barlow.stopping import Interrupted
from barlow.training import learner as learners

KEPT = {
    "deepcluster_v2": "labels",
    "deepcluster_v1": "labels",
    "sela": "labels",
    "pcl": "clusterings.1.prototype",
    "obow": "levels.1.words",
}
"""Whose state it is about: clusters, or OBoW's words, which change in every step."""
KINDS = ("deepcluster_v2", *(pytest.param(kind, marks=pytest.mark.nightly) for kind in list(KEPT)[1:]))
STEPS, EPOCH = 6, 2
"""Forty images in batches of sixteen: two steps are an epoch, and eight images of each are left out."""


def overrides(kind: str, **more: Any) -> dict[str, Any]:
    changes = tiny.of_recipe(f"small_{kind}") | {"train.steps": STEPS, "train.checkpoint_steps": STEPS}
    changes |= {"objective.updates": 4} if kind == "sela" else {}  # at steps 0, 0.375, 1.5 and 3.375
    changes |= {"objective.warmup": 0.0} if kind == "pcl" else {}
    return changes | {key.replace("__", "."): value for key, value in more.items()}


@pytest.fixture(scope="module", autouse=True)
def _unsynced() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data") / "photos", 40)


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arranges for this process to get a signal, once, while it computes an update."""
    guard, left = learners.guard, [signal.SIGINT]

    def signalling(now: int, *rest: Any) -> None:
        if now == step - 1 and left:
            os.kill(os.getpid(), left.pop())
        guard(now, *rest)

    monkeypatch.setattr(learners, "guard", signalling)


def state(run: Path) -> dict[str, torch.Tensor]:
    """The newest checkpoint's tensors."""
    folders = checkpoints.folders(run)
    return storage.read_tensors(folders[max(folders)] / "tensors.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_resumed_in_an_epoch_and_at_a_clustering_is_that_of_one_that_was_not(
    kind: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = f"small_{kind}"
    pretrain(data, tmp_path / "straight", recipe=recipe, overrides=overrides(kind), progress=False)
    run = tmp_path / "run"
    stop_after(3, monkeypatch)  # in the middle of the second epoch
    with pytest.raises(Interrupted):
        pretrain(data, run, recipe=recipe, overrides=overrides(kind), progress=False)
    stop_after(4, monkeypatch)  # the next step begins with a clustering
    with pytest.raises(Interrupted):
        pretrain(None, run, resume=True, progress=False)
    pretrain(None, run, resume=True, progress=False)
    assert tiny.weights(run) == tiny.weights(tmp_path / "straight")
    found, expected = state(run), state(tmp_path / "straight")
    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not found[name].equal(value)] == []
    assert f"objective/{KEPT[kind]}" in found


def test_images_that_are_streamed_are_looked_at_too(data: Path, tmp_path: Path) -> None:
    changes = overrides("sela", data__executor="streaming", data__workers=0)
    pretrain(data, tmp_path / "run", recipe="small_sela", overrides=changes, progress=False)
    labels = state(tmp_path / "run")["objective/labels"]
    assert labels.shape == (4, 40)
    assert (labels >= 0).all()
    assert all(labels[head].bincount(minlength=8).max() < 20 for head in range(4))


def test_more_clusters_than_images_are_refused_before_anything_is_trained(data: Path, tmp_path: Path) -> None:
    changes = overrides("deepcluster_v2", objective__clusters=41)
    with pytest.raises(ValueError, match=r"clusters is 41, and there are 40 images: give at most 40"):
        pretrain(data, tmp_path / "run", recipe="small_deepcluster_v2", overrides=changes, progress=False)
    assert not (tmp_path / "run" / "checkpoints").exists()
