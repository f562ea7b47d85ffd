"""Runs that start from given weights: the start is kept, goes on without its source, and is a baseline."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from barlow import evaluate, load_encoder, pretraining, storage
from barlow.nets import origin
from barlow.nets.building import build_encoder
from barlow.nets.preprocessing import Preprocessing
from barlow.nets.weights import packed
from barlow.pretraining import Result, pretrain
from barlow.recipe.messages import RecipeError
from barlow.runs.run import load_recipe_text
from barlow.training.watchers import Checkpointer, Moment

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def weights_folder(folder: Path, *, stem: str = "strided") -> Path:
    """An encoder as another run would have left it: its own network, normalisation and weights."""
    options: dict[str, Any] = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16]}
    encoder = build_encoder("resnet18", image_size=16, stem=stem, zero_init_last=False, seed=11, options=options)
    seen = Preprocessing(16, 1.0, "bicubic", MEAN, STD, 3)
    tensors, config = packed(
        encoder, name="resnet18", stem=stem, zero_init_last=False, options=options, seed=11, preprocessing=seen
    )
    storage.write_tensors(folder / "model.safetensors", tensors)
    storage.write_json(folder / "config.json", config)
    return folder


def started(data: Path, out: Path, init: Path | str, **more: Any) -> Result:
    changes = tiny.SMALL | {"encoder.name": "auto", "encoder.options": {}} | more.pop("overrides", {})
    return pretrain(str(data), out, init=str(init), overrides=changes, progress=False, **more)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weights_folder(tmp_path_factory.mktemp("given"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data"), 48, classes=4)


def test_network_and_normalisation_are_those_of_the_weights(given: Path, data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    result = started(data, tmp_path / "run", given, tell=said.append)
    encoder = load_recipe_text(result.run_folder / "recipe.yaml")["encoder"]
    assert encoder["name"] == "resnet18"
    assert encoder["stem"] == "strided"
    assert encoder["options"]["channels"] == [8, 8, 8, 16]
    loaded = load_encoder(result.run_folder)
    assert loaded.num_features == 16
    assert loaded.preprocessing.mean == pytest.approx(MEAN)
    assert loaded.preprocessing.std == pytest.approx(STD)
    assert any(line.startswith("start ") and str(given) in line for line in said)


def test_the_start_is_kept_beside_the_encoder(given: Path, data: Path, tmp_path: Path) -> None:
    result = started(data, tmp_path / "run", given)
    start, end = load_encoder(result.run_folder / "start"), load_encoder(result.run_folder)
    before = storage.read_tensors(given / "model.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in end.state_dict().items())
    assert start.preprocessing == end.preprocessing


def test_a_run_from_scratch_has_no_start(data: Path, tmp_path: Path) -> None:
    result = pretrain(str(data), tmp_path / "run", overrides=tiny.SMALL, progress=False)
    assert not (result.run_folder / "start").exists()


def test_a_run_goes_on_without_the_weights_that_it_started_from(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = weights_folder(tmp_path / "given")
    whole = started(data, tmp_path / "whole", given)

    class Killed(Checkpointer):
        def __call__(self, moment: Moment) -> None:
            super().__call__(moment)
            if moment.step == 7:
                raise ConnectionError("as if the machine had gone away")

    with monkeypatch.context() as patched:
        patched.setattr(pretraining, "Checkpointer", Killed)
        with pytest.raises(ConnectionError):
            started(data, tmp_path / "run", given, overrides={"train.checkpoint_steps": 3})
    for file in given.iterdir():
        file.unlink()
    gone_on = pretrain(out=tmp_path / "run", resume=True, progress=False)
    assert tiny.weights(gone_on.run_folder) == tiny.weights(whole.run_folder)


def test_the_start_is_a_baseline_of_its_run(given: Path, data: Path, tmp_path: Path) -> None:
    result = started(data, tmp_path / "run", given)
    found = evaluate(result.run_folder, data, data, protocols=["knn"])
    assert "Start" in found.table()
    scores = {name: outcomes["knn"].metrics["top1"].value for name, outcomes in found.results.items()}
    assert scores.keys() >= {"encoder", "start", "pixels_16", "untrained"}
    gain = found.report["gain"]["knn.top1"]
    best = max(value for name, value in scores.items() if name != "encoder")
    assert gain["value"] == pytest.approx(scores["encoder"] - best)
    assert scores[gain["over"]] == best
    # The start's features, and not those of some other network, are what was measured.
    (result.run_folder / "evaluation" / "results.json").unlink()
    same = tmp_path / "same"
    shutil.copytree(result.run_folder, same)
    for name in ("model.safetensors", "config.json"):
        shutil.copy(same / "start" / name, same / "encoder" / name)
    again = evaluate(same, data, data, protocols=["knn"])
    assert again.scores["encoder"]["knn.top1"].value == scores["start"]
    assert again.report["gain"]["knn.top1"]["value"] <= 0


def test_grey_images_are_seen_in_the_channels_of_the_weights(given: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(32):
        (tmp_path / "grey").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(256, size=(24, 24), dtype=np.uint8)).save(tmp_path / "grey" / f"{i}.png")
    result = started(tmp_path / "grey", tmp_path / "run", given)
    assert load_encoder(result.run_folder).preprocessing.channels == 3


def test_the_shapes_of_a_file_show_its_network_but_not_its_stem(given: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes((given / "model.safetensors").read_bytes())
    with pytest.raises(RecipeError, match=r"weights do not show how its first convolution, .*: add encoder\.stem"):
        started(data, tmp_path / "run", file)
    said: list[str] = []
    run = started(data, tmp_path / "run", file, overrides={"encoder.stem": "strided"}, tell=said.append).run_folder
    encoder = load_recipe_text(run / "recipe.yaml")["encoder"]
    assert (encoder["name"], encoder["stem"], encoder["options"]["channels"]) == ("resnet18", "strided", [8, 8, 8, 16])
    assert load_encoder(run).preprocessing.mean == (0.485, 0.456, 0.406)
    assert [line for line in said if "plain names; a ResNet of 1, 1, 1, 1 basic blocks" in line]
    assert [line for line in said if "taken to have been normalised by ImageNet's mean and deviation" in line]


def test_a_run_starts_from_anothers_checkpoint_and_keeps_what_it_started_from(data: Path, tmp_path: Path) -> None:
    donor = build_encoder(
        "resnet18", image_size=32, seed=5, options={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16]}
    )
    state = {f"module.encoder_q.{name}": value for name, value in donor.state_dict().items()}
    state |= {"module.encoder_q.fc.0.weight": torch.ones(3, 16), "module.queue": torch.ones(3, 4)}
    torch.save({"state_dict": state, "epoch": 200}, tmp_path / "moco.pth.tar")
    said: list[str] = []
    run = started(data, tmp_path / "run", tmp_path / "moco.pth.tar", tell=said.append).run_folder
    start = load_encoder(run / "start").state_dict()
    assert all(torch.equal(value, start[name]) for name, value in donor.state_dict().items())
    (line,) = [line for line in said if line.startswith("start ")]
    for part in ("MoCo: names after module.encoder_q., in state_dict", "the projection head (", "the queue ("):
        assert part in line


def test_the_network_of_a_file_that_nothing_shows_is_asked_for(data: Path, tmp_path: Path) -> None:
    storage.write_tensors(tmp_path / "weights.safetensors", {"layer.weight": torch.zeros(2, 2)})
    with pytest.raises(RecipeError, match=r"no ResNet, ViT or ConvNeXt that is known: add encoder NAME"):
        started(data, tmp_path / "run", tmp_path / "weights.safetensors")


def test_the_network_of_given_weights_needs_weights(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"encoder.name is auto.*add init"):
        pretrain(str(data), tmp_path / "run", overrides={"encoder.name": "auto", "train.steps": 1}, progress=False)


@pytest.mark.skipif(not origin.installed("efficientnet_lite0"), reason="the package of weights is not installed")
def test_a_run_starts_from_a_package(data: Path, tmp_path: Path) -> None:
    result = started(
        data, tmp_path / "run", "packaged:efficientnet_lite0", overrides={"train.steps": 1, "data.image_size": 32}
    )
    assert load_encoder(result.run_folder).num_features == 1280
    assert "tf_efficientnet_lite0" in (result.run_folder / "recipe.yaml").read_text()


@pytest.mark.skipif(not origin.installed("efficientnet_lite0"), reason="the package of weights is not installed")
def test_a_run_that_goes_on_moves_its_late_stages_alone_and_keeps_the_statistics(data: Path, tmp_path: Path) -> None:
    changes = {"train.steps": 4, "data.image_size": 32, "train.batch_size": 16, "train.precision": "float32"}
    result = pretrain(str(data), tmp_path / "run", recipe="continue_barlow_twins", overrides=changes, progress=False)
    start, end = (storage.read_tensors(result.run_folder / part / "model.safetensors") for part in ("start", "encoder"))
    moved = {name for name in start if not torch.equal(start[name], end[name])} - {"whiten.weight", "whiten.bias"}
    assert moved
    assert all(name.startswith("network.") for name in moved)
    late = ("network.blocks.3.", "network.blocks.4.", "network.blocks.5.", "network.blocks.6.", "network.conv_head.")
    assert all(name.startswith((*late, "network.bn2.")) for name in moved)
    assert {name.split(".")[2] for name in moved if name.startswith("network.blocks")} == {"3", "4", "5", "6"}
    assert not [name for name in moved if "running" in name or "num_batches" in name]
