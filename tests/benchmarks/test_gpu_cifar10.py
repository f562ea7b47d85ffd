"""The GPU program, on a CPU and on generated images: what it packs, how it spends its time, the line it writes."""

import argparse
import importlib.util
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from programs import program

import barlow
from barlow.data.decoding import decode

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
OF_A_CLASS = {"train": 13, "test": 4}

TINY = {
    "encoder.options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
    "data.image_size": 16,
    "method.projector.widths": [16, 4],
    "train.batch_size": 128,
    "train.precision": "float32",
    "schedule.warmup_steps": 1,
}
"""Of every recipe: a network of a few thousand weights, batches that W-MSE's slices of 128 rows fit."""


@pytest.fixture(scope="module", name="program")
def gpu_cifar10() -> ModuleType:
    return program("benchmarks/gpu_cifar10.py")


@pytest.fixture(scope="module")
def tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar like CIFAR-10's: JPEGs of 32 px whose brightness tells the class, and files that are none of them."""
    path = tmp_path_factory.mktemp("images") / "cifar.tar"
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as archive:
        add(archive, "cifar/readme.txt", b"not an image")
        for split in ("test", "train"):
            for k, label in reversed(list(enumerate(CLASSES))):
                for i in range(OF_A_CLASS[split]):
                    pixels = np.clip(20 * k + rng.integers(0, 60, (32, 32, 3)), 0, 255).astype(np.uint8)
                    data = io.BytesIO()
                    Image.fromarray(pixels).save(data, "JPEG", quality=75)
                    add(archive, f"cifar/{split}/{label}/{i:04}.jpg", data.getvalue())
    return path


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = len(content), 1_700_000_000
    archive.addfile(entry, io.BytesIO(content))


@pytest.fixture
def start(program: ModuleType, tar: Path, tmp_path: Path) -> Callable[..., int]:
    """Calls `run` on the CPU with tiny networks; lines go to lines.jsonl."""

    def started(*words: str, **overrides: Any) -> int:
        changed = [w for key, value in (TINY | overrides).items() for w in ("--override", key, json.dumps(value))]
        places = ["--data", str(tar), "--out", str(tmp_path / "runs"), "--results", str(tmp_path / "lines.jsonl")]
        return program.main(["run", *places, "--device", "cpu", "--commit", "abc", *changed, *words])

    return started


def lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / "lines.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_packing_keeps_the_files_of_both_splits_bit_by_bit_and_nothing_else(
    program: ModuleType, tar: Path, tmp_path: Path
) -> None:
    assert program.main(["pack", str(tar), str(tmp_path / "a.tar.xz")]) == 0
    assert program.main(["pack", str(tmp_path / "a.tar.xz"), str(tmp_path / "b.tar.xz")]) == 0
    packed = program.read(tmp_path / "a.tar.xz")
    with tarfile.open(tar) as archive:
        for (split, label, name), content in packed.items():
            member = archive.extractfile(f"cifar/{split}/{label}/{name}")
            assert member is not None
            assert member.read() == content
    assert len(packed) == sum(OF_A_CLASS.values()) * len(CLASSES)
    assert list(packed) == sorted(packed)
    same = [(tmp_path / name).read_bytes() for name in ("a.tar.xz", "b.tar.xz")]
    assert same[0] == same[1], "dates, owners and order of the source leave no trace"
    assert (tmp_path / "a.tar.xz").stat().st_size < 0.5 * tar.stat().st_size


def test_a_tar_without_both_splits_is_refused_with_what_it_should_hold(program: ModuleType, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "half.tar", "w") as archive:
        add(archive, "x/train/cat/1.jpg", b"1")
    with pytest.raises(ValueError, match="no images in both train/CLASS and test/CLASS"):
        program.read(tmp_path / "half.tar")
    (tmp_path / "no.tar").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read as a tar"):
        program.read(tmp_path / "no.tar")


def test_files_that_would_leave_the_folder_are_left_out(program: ModuleType, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        for name in ("train/../1.jpg", "train/cat/1.jpg", "test/cat/1.jpg"):
            add(archive, name, b"1")
    assert set(program.read(tmp_path / "evil.tar")) == {("train", "cat", "1.jpg"), ("test", "cat", "1.jpg")}


def test_a_limit_takes_equally_many_images_of_each_class(program: ModuleType, tar: Path, tmp_path: Path) -> None:
    images = program.limited(program.read(tar), 25)
    counts = {(split, label): 0 for split in OF_A_CLASS for label in CLASSES}
    for split, label, _ in images:
        counts[split, label] += 1
    assert set(counts.values()) == {3}
    program.unpack(images, tmp_path)
    files = sorted(tmp_path.glob("*/*/*.jpg"))
    assert len(files) == 60
    assert decode(files[0].read_bytes(), channels=3).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("most", "an_epoch", "seconds", "fit"),
    [(100, 1.0, float("inf"), 100), (100, 1.0, 1000.0, 100), (100, 2.0, 103.0, 50), (100, 2.0, 2.0, 0), (9, 1, -5, 0)],
)
def test_as_many_epochs_as_fit_are_run(
    program: ModuleType, most: int, an_epoch: float, seconds: float, fit: int
) -> None:
    assert program.MARGIN == 1.03
    assert program.epochs_that_fit(most, an_epoch, seconds) == fit


def test_a_run_writes_one_line_with_scores_and_what_they_depend_on(
    start: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start("--recipe", "cifar10/vicreg", "--epochs", "2", "--limit", "130", "--seed", "3") == 0
    [line] = lines(tmp_path)
    asked = {
        "name": "gpu-cifar10-vicreg",
        "program": "benchmarks/gpu_cifar10.py",
        "images": "CIFAR-10",
        "recipe": "cifar10/vicreg",
        "overrides": TINY,
        "epochs": 2,
        "steps": 2,
        "batch_size": 128,
        "precision": "float32",
        "seeds": [3],
        "limit": 130,
        "images_evaluated": {"train": 130, "test": 40},
        "failed_probes": {},
        "peak_gpu_bytes": None,
        "commit": "abc",
    }
    assert {key: line[key] for key in asked} == asked
    assert "JPEG" in line["note"]
    scores = line["scores"]["encoder"]
    for probe in ("linear_sgd", "logistic", "knn", "knn5_euclidean"):
        score = scores[f"{probe}.top1"]
        assert score["values"] == [score["mean"]]
        assert 0 <= score["mean"] <= 1
        assert 40 * score["mean"] == pytest.approx(round(40 * score["mean"]), abs=0.01), "a share of 40 test images"
    assert line["probe_notes"]["linear_sgd"]["epochs"] == 100
    for key in ("training_seconds", "evaluation_seconds", "images_per_second"):
        assert line[key][0] > 0
    assert {"torch", "cuda", "cudnn", "simplejpeg"} <= line["versions"].keys()
    assert {"processor", "cores"} <= line["hardware"].keys()
    said = capsys.readouterr().out
    assert "images/s in the first steps" in said
    assert "2 epochs would take" in said
    recipe = (tmp_path / "runs" / "cifar10-vicreg-2epochs-seed3" / "recipe.yaml").read_text()
    assert "executor: in_memory" in recipe
    assert "lr_per_256: 0.3" in recipe, "the first steps' rate is not the run's"


@pytest.mark.nightly
def test_all_runs_the_four_recipes_in_the_order_of_the_table(
    start: Callable[..., int], program: ModuleType, tmp_path: Path
) -> None:
    assert start("--all", "10000", "--epochs", "1") == 0
    assert [line["recipe"] for line in lines(tmp_path)] == [
        "cifar10/barlow_twins",
        "cifar10/vicreg",
        "cifar10/w_mse_2",
        "cifar10/w_mse_4",
    ]
    assert len({line["recipe_sha256"] for line in lines(tmp_path)}) == 4


@pytest.mark.nightly
def test_what_does_not_fit_is_shortened_or_skipped_and_said_so(
    start: Callable[..., int], program: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    trained: list[int] = []

    def pretend(*arguments: Any, **asked: Any) -> None:
        trained.append(asked["epochs"])
        raise ValueError("enough seen")

    monkeypatch.setattr(program, "first_steps", lambda *a: (100.0, 100.0, 5.0))
    monkeypatch.setattr(program, "EVALUATION_SECONDS", 60.0 * program.COUNT / 170)
    monkeypatch.setattr(barlow, "pretrain", pretend)
    assert start("--recipe", "cifar10/vicreg", "--minutes", "21.4") == 1
    assert trained == [11], "1284 s less 5 to set up and 60 to evaluate, at 103 s an epoch, with 86 s to spare"
    assert "11 epochs, as many as fit" in capsys.readouterr().out
    assert start("--recipe", "cifar10/vicreg", "--minutes", "21.4", "--least", "12") == 0
    assert "skipped: 11 epochs fit" in capsys.readouterr().out
    assert start("--all", "1284", "--epochs", "10") == 1
    assert trained == [11, 10, 10, 10, 10], "a recipe that fails does not stop the next"
    capsys.readouterr()
    assert start("--all", "1284", "--epochs", "12") == 0
    assert capsys.readouterr().out.count("skipped: 11 epochs fit") == 4
    assert start("--all", "59") == 0
    assert capsys.readouterr().out.count("evaluation alone is given 60 s") == 4
    assert len(trained) == 5
    assert lines(tmp_path) == []


def test_a_linear_probe_that_diverges_costs_its_own_number_only(
    start: Callable[..., int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = barlow.evaluate

    def evaluate(*arguments: Any, protocols: Any, **rest: Any) -> Any:
        if "linear_sgd" in protocols:
            raise ValueError("a linear probe diverged")
        return real(*arguments, protocols=protocols, **rest)

    monkeypatch.setattr(barlow, "evaluate", evaluate)
    assert start("--recipe", "cifar10/barlow_twins", "--epochs", "1") == 0
    [line] = lines(tmp_path)
    assert line["failed_probes"] == {"linear_sgd": "a linear probe diverged"}
    assert {"logistic.top1", "knn.top1", "knn5_euclidean.top1"} <= line["scores"]["encoder"].keys()
    assert "linear_sgd.top1" not in line["scores"]["encoder"]


def test_a_trial_is_kept_out_of_the_results(program: ModuleType, tar: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--data", str(tar), "--recipe", "cifar10/vicreg", "--device", "cpu", "--commit", "abc"]
    assert program.main(words) == 2
    assert "a trial (--limit, --device cpu) is no result" in capsys.readouterr().out


def test_a_commit_is_asked_for_where_git_does_not_know_it(
    start: Callable[..., int], program: ModuleType, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tar: Path, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(program, "source_commit", lambda: None)
    words = ["run", "--data", str(tar), "--recipe", "cifar10/vicreg", "--device", "cpu"]
    assert program.main([*words, "--results", str(tmp_path / "lines.jsonl")]) == 2
    assert "give --commit HASH" in capsys.readouterr().out


def test_a_missing_dependency_is_named_in_one_line_before_anything_is_imported(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tar: Path
) -> None:
    there = importlib.util.find_spec
    gone = ("pydantic", "PIL")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else there(name))
    assert program.main(["run", "--data", str(tar), "--recipe", "cifar10/vicreg"]) == 2
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "pip install pillow pydantic" in said


def test_on_a_gpu_every_recipe_is_a_resnet18_in_bfloat16_and_otherwise_as_shipped(program: ModuleType) -> None:
    from barlow.recipe.request import chosen_recipe

    arguments = argparse.Namespace(device="cuda", override=[["seed", "1"]])
    assert program.changes(arguments) == {"train.precision": "bf16", "seed": 1}
    for recipe in program.results_line.GPU_RECIPES:
        shipped = chosen_recipe("images", recipe=recipe).as_dict()
        ours = chosen_recipe("images", recipe=recipe, overrides={"train.precision": "bf16"}).as_dict()
        assert (ours["encoder"]["name"], ours["encoder"]["stem"]) == ("resnet18", "small")
        assert ours.pop("train") == shipped.pop("train") | {"precision": "bf16"}
        assert ours == shipped


def test_every_dependency_of_the_package_is_looked_for(program: ModuleType) -> None:
    import re
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[\s<>=!~\[;]", requirement)[0] for requirement in project["dependencies"]}
    assert set(program.NEEDED.values()) == names
