"""A run is exported: proved on its own images, with its scores, and nothing of the machine that it comes from."""

import json
import re
from pathlib import Path

import pytest
import tiny
import torch

import barlow
from barlow import cli, storage
from barlow.exports._proof import MOST
from barlow.pretraining import pretrain
from barlow.probes.report import ENCODER


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on somebody's photos, evaluated."""
    home = tmp_path_factory.mktemp("somebody")
    photos = tiny.images(home / "photos", 32)
    run = pretrain(photos, home / "run", overrides=tiny.SMALL | {"train.steps": 2}, progress=False).run_folder
    labelled = [tiny.images(home / "labelled" / name, 40, classes=4, seed=len(name)) for name in ("train", "test")]
    barlow.evaluate(run, *labelled, protocols="knn", baselines=False, device="cpu")
    return run


def test_the_proof_is_on_the_runs_images_and_the_card_has_its_scores_with_intervals(run: Path, tmp_path: Path) -> None:
    done = barlow.export(run, "torch-export", tmp_path / "out")
    record = storage.read_sealed(done.folder / "export.json")
    assert record["proved_on"] == "8 images of photos"
    assert (record["encoder"], record["target"], record["whole"]) == ("run", "torch-export", True)
    (proof,) = record["proofs"]
    assert (proof["images"], proof["relative"] <= MOST) == (8, True)
    card = (done.folder / "README.md").read_text()
    assert "was given 8 images of photos." in card
    assert "On 40 of test; intervals are of 95 %, over test images." in card
    scores = json.loads((run / "evaluation" / "results.json").read_text())["sets"][ENCODER]["knn"]["metrics"]["top1"]
    row = re.search(r"\| knn\.top1 \| (0\.\d{3}) \| (0\.\d{3}) to (0\.\d{3}) \|", card)
    assert row is not None
    assert [float(number) for number in row.groups()] == [round(scores[key], 3) for key in ("value", "low", "high")]
    assert "32 images of photos, 2 steps" in card
    nothing_of_this_machine(done.folder, run.parent, tmp_path)


def test_an_onnx_file_has_no_path_of_this_machine(run: Path, tmp_path: Path) -> None:
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library, reason=f"{library} is not installed (extra `export`)")
    nothing_of_this_machine(barlow.export(run, "onnx", tmp_path / "out").folder, run.parent, tmp_path)


def nothing_of_this_machine(folder: Path, *places: Path) -> None:
    """No file has a path that tells whose machine it was: of images and runs, or of Python."""
    for path in folder.rglob("*"):
        content = path.read_bytes()
        for place in (*places, Path(barlow.__file__).parents[1], Path(torch.__file__).parents[2]):
            assert str(place).encode() not in content, f"{path.name} has the path {place}"


def test_other_images_may_be_named_for_the_proof(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = tiny.images(tmp_path / "others", 5, seed=3)
    words = ["export", run, "--to", "torch-export", "--out", tmp_path / "out", "--images", others]
    assert cli.main([str(word) for word in words]) == 0, capsys.readouterr().err
    record = storage.read_sealed(tmp_path / "out" / "export.json")
    assert record["proved_on"] == "5 images of others"
    assert record["proofs"][0]["images"] == 5
    assert str(tmp_path) not in (tmp_path / "out" / "README.md").read_text()
