"""What is odd about a set of images is told in a line, before training and before numbers are shown."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from PIL import Image

from barlow import cli
from barlow.data.folder import EMPTY, SPLITS, FolderSource
from barlow.data.inventory import kind_of, scan
from barlow.evaluation import evaluate
from barlow.pretraining import pretrain


def told(out: Path, data: Any, **changes: Any) -> list[str]:
    """What a tiny run says."""
    lines: list[str] = []
    overrides = tiny.SMALL | {"train.steps": 1} | changes
    pretrain(data, out, recipe="small_barlow_twins", overrides=overrides, progress=False, tell=lines.append)
    return lines


def of_kind(lines: list[str], kind: str) -> list[str]:
    return [line for line in lines if line.startswith(f"{kind} ")]


# --- Before training ------------------------------------------------------------------------------------------------


def test_copies_are_counted(tmp_path: Path) -> None:
    tiny.images(tmp_path / "photos", 1)
    for number in range(1, 200):
        shutil.copy(tmp_path / "photos" / "000.png", tmp_path / "photos" / f"{number:03}.png")
    (line,) = of_kind(told(tmp_path / "run", tmp_path / "photos"), "copies")
    assert "199 of 200 images" in line


@pytest.mark.parametrize("executor", ["in_memory", "streaming"])
def test_a_set_with_nothing_odd_is_no_matter(executor: str, tmp_path: Path) -> None:
    tiny.images(tmp_path / "photos", 40, classes=2)
    lines = told(tmp_path / "run", tmp_path / "photos", **{"data.executor": executor, "data.workers": 1})
    for kind in ("copies", "splits", "empty"):
        assert of_kind(lines, kind) == []
    assert not any("few to take" in line for line in lines)


def test_splits_that_are_taken_together_are_told(tmp_path: Path) -> None:
    tiny.images(tmp_path / "photos" / "train", 24, classes=2)
    tiny.images(tmp_path / "photos" / "val", 24, classes=2, seed=1)
    (line,) = of_kind(told(tmp_path / "run", tmp_path / "photos"), "splits")
    assert "train, val" in line
    assert of_kind(told(tmp_path / "other", tmp_path / "photos" / "train"), "splits") == []


def test_splits_are_noted_whatever_else_is_beside_them(tmp_path: Path) -> None:
    for name in ("Train", "TEST", "extra"):
        tiny.images(tmp_path / name, 2)
    assert FolderSource([tmp_path]).notes[SPLITS] == ["TEST", "Train"]
    shutil.rmtree(tmp_path / "Train")
    assert SPLITS not in FolderSource([tmp_path]).notes


def test_an_empty_class_folder_is_told(tmp_path: Path) -> None:
    tiny.images(tmp_path / "photos", 24, classes=2)
    (tmp_path / "photos" / "zebra" / "deeper").mkdir(parents=True)
    assert FolderSource([tmp_path / "photos"]).notes[EMPTY] == ["zebra"]
    (line,) = of_kind(told(tmp_path / "run", tmp_path / "photos"), "empty")
    assert "zebra" in line


def test_three_images_and_a_batch_of_two_are_told(tmp_path: Path) -> None:
    tiny.images(tmp_path / "photos", 3)
    lines = told(tmp_path / "run", tmp_path / "photos", **{"train.batch_size": 2})
    assert any("3 images teach a network little" in line for line in lines)
    assert any("2 images are few to take correlations" in line for line in lines)


# --- Before an evaluation -------------------------------------------------------------------------------------------


def warnings(run: Path, train: Path, test: Path) -> list[str]:
    found: list[str] = evaluate(run, train, test, protocols=["knn"], baselines=False, device="cpu").report["warnings"]
    return found


def test_test_images_that_were_pretrained_on_are_counted(tmp_path: Path) -> None:
    train = tiny.images(tmp_path / "train", 24, classes=3)
    test = tiny.images(tmp_path / "test", 12, classes=3, seed=1)
    for number, path in enumerate(sorted(test.glob("*/*.png"))[:5]):
        (train / "extra").mkdir(exist_ok=True)
        shutil.copy(path, train / "extra" / f"copied{number}.png")
    run = tmp_path / "run"
    told(run, train)
    kept = json.loads((run / "images.json").read_text())
    assert kept["images"] == 29
    shutil.rmtree(train / "extra")
    (line,) = [line for line in warnings(run, train, test) if "pretrained" in line]
    assert "5 of 12 test images (41.7%)" in line
    shutil.rmtree(test)
    tiny.images(test, 12, classes=3, seed=2)
    assert not any("pretrained" in line for line in warnings(run, train, test))
    (run / "images.json").write_text("[")
    (line,) = [line for line in warnings(run, train, test) if "pretrained" in line]
    assert line.endswith("whether test images were pretrained on is not known")


def test_fewer_classes_in_test_and_an_empty_class_folder_are_told(tmp_path: Path) -> None:
    train = tiny.images(tmp_path / "train", 24, classes=4)
    test = tiny.images(tmp_path / "test", 12, classes=2, seed=1)
    (test / "class3").mkdir()
    told(tmp_path / "run", train)
    lines = warnings(tmp_path / "run", train, test)
    assert any("of 2 of the 4 classes" in line and "class2, class3" in line for line in lines)
    assert any(line.startswith("--test") and "no images in class3" in line for line in lines)


# --- Images that cannot be read -------------------------------------------------------------------------------------


def broken(folder: Path) -> Path:
    tiny.images(folder, 20)
    for number in range(3):
        (folder / f"empty{number}.png").write_bytes(b"")
    for number in range(2):
        data = (folder / f"00{number}.png").read_bytes()
        (folder / f"cut{number}.png").write_bytes(data[: len(data) // 2])
    (folder / "page.jpg").write_bytes(b"<!DOCTYPE html>")
    return folder


def test_the_list_of_bad_images_is_written_before_a_run_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    broken(tmp_path / "photos")
    command = ["pretrain", "photos", "--out", "run", *tiny.words(train__steps=1)]
    assert cli.main(command) != 0
    said = capsys.readouterr().err.splitlines()[-1]
    assert "6 of 26 images of photos cannot be read" in said
    assert "3 empty file, 2 damaged PNG, 1 not an image but an HTML page" in said
    assert f"All of them are listed in {Path('run/data.json')}" in said
    listed = json.loads((tmp_path / "run" / "data.json").read_text())
    assert sorted(entry["where"] for entry in listed["skipped"]) == [
        "cut0.png", "cut1.png", "empty0.png", "empty1.png", "empty2.png", "page.jpg"
    ]  # fmt: skip
    for entry in listed["skipped"]:
        (tmp_path / "photos" / entry["where"]).unlink()
    assert cli.main(command) == 0, "the same command goes on, once they are removed"
    assert json.loads((tmp_path / "run" / "data.json").read_text())["skipped"] == []


def test_a_list_that_another_made_is_not_taken_for_that_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "data.json").write_text("{}")
    with pytest.raises(ValueError, match="not empty"):
        told(tmp_path / "run", tiny.images(tmp_path / "photos", 20))


def test_the_list_of_bad_labelled_images_is_written_before_an_evaluation_stops(tmp_path: Path) -> None:
    train, run = tiny.images(tmp_path / "train", 24, classes=2), tmp_path / "run"
    told(run, train)
    test = tiny.images(tmp_path / "test", 12, classes=2, seed=1)
    broken(test / "class0")
    with pytest.raises(ValueError, match=r"6 of 32 images of test .*3 empty file.*skipped\.json"):
        evaluate(run, train, test, device="cpu")
    assert len(json.loads((run / "evaluation" / "skipped.json").read_text())["skipped"]) == 6


def test_a_run_that_skips_images_counts_them_by_reason(tmp_path: Path) -> None:
    lines = told(tmp_path / "run", broken(tmp_path / "photos"), **{"data.max_bad": 0.5})
    (line,) = of_kind(lines, "images")
    assert "6 skipped (3 empty file, 2 damaged PNG, 1 not an image but an HTML page" in line
    report = json.loads((tmp_path / "run" / "data.json").read_text())
    assert report["skipped_by_reason"]["empty file"] == 3


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("empty file (0 bytes)", "empty file"),
        ("damaged PNG: the checksum of IDAT at byte 1,234 is wrong", "damaged PNG"),
        ("9000×9000 is 81,000,000 pixels, more than the limit of 64,000,000 (--data.max_pixels)",
         "…×… is … pixels, more than the limit of …"),
        ("Permission denied", "Permission denied"),
    ],
)  # fmt: skip
def test_reasons_of_a_kind_are_counted_together(reason: str, kind: str) -> None:
    assert kind_of(reason) == kind


def test_a_file_that_fails_during_training_is_named_by_its_path(tmp_path: Path) -> None:
    photos = tiny.images(tmp_path / "photos", 40, classes=2)
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if line.startswith("steps") or line.startswith("images"):
            victim = photos / "class0" / "002.png"
            victim.write_bytes(b"")

    changes = {"train.steps": 4, "data.executor": "streaming", "data.workers": 0, "data.max_bad": 0.5}
    overrides = tiny.SMALL | changes
    pretrain(photos, tmp_path / "run", recipe="small_barlow_twins", overrides=overrides, progress=False, tell=say)
    failed = [line for line in lines if "could not be read" in line]
    assert failed
    assert all(line.startswith("class0/002.png could not be read (empty file") for line in failed)
    assert all(line.endswith("took its place") and ".png took" in line for line in failed)


# --- Listing --------------------------------------------------------------------------------------------------------


def pictures(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(folder / name)


def test_hard_links_are_listed_once_by_the_first_name(tmp_path: Path) -> None:
    pictures(tmp_path, "b/1.png", "b/2.png", "c/3.png")
    for link, target in (("a/1.png", "b/1.png"), ("c/1.png", "b/1.png"), ("c/4.png", "c/3.png"), ("z.png", "b/2.png")):
        (tmp_path / link).parent.mkdir(exist_ok=True)
        os.link(tmp_path / target, tmp_path / link)
    source = FolderSource([tmp_path])
    assert [source.locate(k) for k in range(len(source))] == ["a/1.png", "c/3.png", "z.png"]
    assert source.notes["hard links to files already listed"] == 4


@pytest.mark.parametrize(
    "folders",
    [["a", "link"], ["link", "a"], ["a", "a"], ["a/x", "a"], ["a", "a/x"], ["b", "a"], ["a", "b"], ["a/x", "link"]],
)
def test_a_folder_that_is_given_twice_counts_once(folders: list[str], tmp_path: Path) -> None:
    pictures(tmp_path, "a/x/0.png", "a/x/1.png", "a/2.png")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "inner").symlink_to("../a")
    source = FolderSource([tmp_path / folder for folder in folders])
    assert len(source) == 3
    assert scan(source).candidates == 3
