"""What is seen of a run from outside, and that looking changes nothing of it."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from nightly_cases import nightly_but

from barlow import exits, storage
from barlow.cli import main
from barlow.data.fixed_views import FEWEST, FixedViews
from barlow.data.sources import open_source
from barlow.diagnostics.doctor import examine
from barlow.diagnostics.finding import About
from barlow.diagnostics.health import COLLAPSED, HEALTHY, STARTING, WATCH, Health
from barlow.exits import NoInput
from barlow.pretraining import pretrain
from barlow.runs.run import Run
from barlow.training import monitor
from barlow.training.monitor import Budget, cross_correlation, spectrum
from barlow.training.step_log import StepLog
from barlow.training.watchers import LASTING
from barlow.views.ops import HorizontalFlip, RandomResizedCrop
from barlow.views.pipeline import ViewPipeline
from barlow.wording import percent

KINDS = ("barlow_twins", "vicreg", "w_mse", "byol", "moco_v2", "swav", "rotation", "supervised", "counting")


@pytest.fixture(autouse=True)
def all_images_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is meanwhile."""
    monkeypatch.setattr(monitor, "READING_SECONDS", math.inf)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("photos"), 64)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("classes"), 64, classes=4)


def monitored(data: Path, out: Path, recipe: str = "small_barlow_twins", *, images: int = 40, **flags: Any) -> Run:
    overrides = tiny.of_recipe(recipe) | {"train.monitor_images": images} | flags.pop("overrides", {})
    pretrain(data, out, recipe=recipe, overrides=overrides, progress=False, **flags)
    return Run(out)


# --- A run -----------------------------------------------------------------------------------------------------------


def test_before_the_first_step_and_after_the_last_there_is_a_line(photos: Path, tmp_path: Path) -> None:
    lines = monitored(photos, tmp_path / "run").monitored()
    assert [line["step"] for line in lines][:: len(lines) - 1] == [0, 12]
    for line in lines:
        assert line["images"] == {"count": 40, "views": 2, "held_out": False}
        assert set(line["diagnostics"]) == set(line["spectrum"]) == {"features", "embeddings"}
        for name, width in (("features", 32), ("embeddings", 4)):
            found, spread = line["diagnostics"][name], line["spectrum"][name]
            assert {"rankme", "lidar", "alignment", "uniformity"} <= found.keys()
            assert 1 <= found["effective_rank"]["value"] <= found["effective_rank"]["ceiling"] == width
            assert spread == sorted(spread, reverse=True)
            assert len(spread) == width
        assert line["cross_correlation"]["d"] == 4
        assert len(line["cross_correlation"]["values"]) == 16
        assert "scores" not in line
    assert lines[0]["diagnostics"] != lines[-1]["diagnostics"]


@pytest.mark.parametrize("executor", nightly_but(["in_memory", "streaming"], "in_memory".__eq__))
def test_looking_changes_nothing_of_the_run(
    executor: str, photos: Path, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "SHARE", 1e9)  # it looks after every step
    monkeypatch.setattr(monitor, "SHARE_OF_SCORES", 1e9)
    how = {"data.executor": executor, "data.workers": 1}
    without = monitored(photos, tmp_path / "without", images=0, overrides=how)
    looked = monitored(photos, tmp_path / "with", overrides=how, probe_with=classes)
    assert len(looked.monitored()) == 13
    assert not (without.path / "monitor.jsonl").exists()
    assert tiny.weights(without.path) == tiny.weights(looked.path)
    assert [row["loss"] for row in without.metrics()] == [row["loss"] for row in looked.metrics()]


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_can_be_looked_at(kind: str, photos: Path, classes: Path, tmp_path: Path) -> None:
    data = classes if kind == "supervised" else photos
    last = monitored(data, tmp_path / "run", f"small_{kind}", overrides={"train.steps": 2}).monitored()[-1]
    compared = kind not in ("rotation", "supervised")
    assert ("embeddings" in last["diagnostics"]) == ("cross_correlation" in last) == compared
    assert last["diagnostics"]["features"]["std"]["value"] > 0


def test_scores_come_from_labelled_images_that_were_named_and_the_last_are_told(
    photos: Path, classes: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    lines = monitored(photos, tmp_path / "run", images=0, probe_with=classes, tell=told.append).monitored()
    first, last = (percent(each["scores"]["knn.top1"]["value"]) for each in (lines[0], lines[-1]))
    said = [line for line in told if line.startswith("scores   knn.top1")]
    assert len(said) == 1
    assert said[0].startswith(f"scores   knn.top1 {last} at step 12 (")
    assert said[0].endswith(f"; it was {first} at step 0")
    assert [line["step"] for line in lines][:: len(lines) - 1] == [0, 12]
    score = lines[-1]["scores"]["knn.top1"]
    assert score["n"] == 12
    assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
    assert score["value"] > 0.7, "each class has a colour of its own"
    assert "diagnostics" not in lines[-1]


def test_a_folder_that_is_not_there_is_told_with_its_flag(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(NoInput, match=r"^probe_with: no folder or data set 'nowhere'"):
        monitored(photos, tmp_path / "run", images=0, probe_with="nowhere")
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_labelled_images_without_labels_are_refused_before_anything_is_written(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["pretrain", photos, "--out", out, *tiny.words(), "--probe-with", photos]
    assert main([str(word) for word in words]) == exits.DATA
    assert "--probe-with" in (said := capsys.readouterr().err.splitlines()[-1])
    assert "has no labels" in said
    assert not (out / "recipe.yaml").exists()


def test_a_run_that_is_made_longer_goes_on_with_its_lines(photos: Path, tmp_path: Path) -> None:
    run = monitored(photos, tmp_path / "run")
    again = {"train.steps": 20, "train.monitor_images": 40}
    pretrain(None, run.path, resume=True, overrides=again, progress=False)
    steps = [line["step"] for line in run.monitored()]
    assert steps == sorted(set(steps))
    assert {0, 12, 20} <= set(steps)


def test_the_loss_stands_beside_what_it_is_for_unrelated_views_and_its_floor(photos: Path, tmp_path: Path) -> None:
    rows = monitored(photos, tmp_path / "run", images=0).metrics()
    assert {row["state"] for row in rows} <= {STARTING, HEALTHY, WATCH, COLLAPSED}
    reference = rows[0]["reference"]
    assert reference["unrelated"] == pytest.approx((4 * 16 + 0.0051 * 4 * 3) / 15, rel=0.01)
    assert reference["floor"] == 0
    assert all(row["reference"] == reference for row in rows)


@pytest.mark.nightly
def test_two_processes_make_the_same_run_whether_one_of_them_looks_or_not(photos: Path, tmp_path: Path) -> None:
    """It is the main process that looks. Batch norm that is shared between the two must not wait for the other then."""
    runs = []
    for images in (0, 40):
        out = tmp_path / f"run-{images}"
        words = [*tiny.words(train__monitor_images=images, train__steps=3), "--devices", "2", "--device", "cpu"]
        command = [sys.executable, "-m", "barlow.cli", "pretrain", str(photos), "-c", "small_barlow_twins"]
        subprocess.run([*command, "--out", str(out), *words], check=True, capture_output=True, timeout=120)
        runs.append(Run(out))
    without, looked = runs
    assert [line["step"] for line in looked.monitored()][:: len(looked.monitored()) - 1] == [0, 3]
    assert tiny.weights(without.path) == tiny.weights(looked.path)


# --- Fixed views -----------------------------------------------------------------------------------------------------


def pipeline(views: int = 2) -> ViewPipeline:
    ops = [RandomResizedCrop(8), HorizontalFlip()]
    return ViewPipeline([ops] * views, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def fixed(photos: Path, **options: Any) -> FixedViews:
    source = open_source(str(photos))
    defaults: dict[str, Any] = {"seed": 3, "images": 10, "draws": 2}
    return FixedViews(source, np.arange(len(source)), pipeline(), **(defaults | options))


def all_of(views: FixedViews, draw: int, batch_size: int = 4) -> torch.Tensor:
    return torch.cat(list(views.batches(draw, batch_size=batch_size, device=torch.device("cpu"))))


def test_fixed_views_are_the_same_each_time_and_in_batches_of_any_size(photos: Path) -> None:
    views = fixed(photos)
    first = all_of(views, 0)
    assert first.shape == (10, 3, 8, 8)
    assert torch.equal(first, all_of(views, 0, batch_size=10))
    assert torch.equal(first, all_of(fixed(photos, workers=2), 0))
    assert not torch.equal(first, all_of(views, 1))
    assert not torch.equal(first, all_of(fixed(photos, seed=4), 0))


def test_images_that_cannot_be_read_are_left_out(photos: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(photos, tmp_path / "photos")
    source = open_source(str(folder))
    (folder / "003.png").write_bytes(b"no image")
    views = FixedViews(source, np.arange(len(source)), pipeline(), seed=0, images=64, draws=1)
    assert len(views) == 63
    assert 3 not in views.ids


def test_when_reading_takes_long_some_images_are_enough(photos: Path) -> None:
    assert len(fixed(photos, images=64, seconds=0.0)) == FEWEST
    assert len(fixed(photos, images=20, seconds=0.0)) == 20


# --- What is made of them --------------------------------------------------------------------------------------------


def test_the_cross_correlation_is_whole_where_it_fits_and_shows_the_strongest_where_not() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(300, 12, generator=generator) for _ in range(2))
    found = cross_correlation(a, a + b)
    table = np.corrcoef(a.numpy().T, (a + b).numpy().T)[:12, 12:]
    assert np.array(found["values"]).reshape(12, 12) == pytest.approx(table, abs=0.002)
    wide = torch.randn(300, 150, generator=generator)
    wide[:, 100] = -wide[:, 7]
    made = cross_correlation(wide, wide)
    cells = np.array(made["values"]).reshape(64, 64)
    assert (made["d"], made["side"]) == (150, 64)
    assert np.diag(cells) == pytest.approx(1, abs=0.01)
    edges = np.linspace(0, 150, 65).round().astype(int)
    row, column = (int(np.searchsorted(edges, place, side="right")) - 1 for place in (7, 100))
    assert cells[row, column] == pytest.approx(-1, abs=0.01)


def test_a_long_spectrum_is_stored_in_part_with_both_ends() -> None:
    x = torch.randn(900, 700, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    stored, whole = spectrum(x), torch.linalg.svdvals(x - x.mean(0))
    assert len(stored) <= monitor.SPECTRUM
    assert (stored[0], stored[-1]) == pytest.approx((float(whole[0]), float(whole[-1])), rel=1e-4)
    assert len(spectrum(x[:, :20])) == 20


def test_a_budget_allows_a_share_of_the_time() -> None:
    budget = Budget(0.01, began=100.0)
    assert not budget.allows(100.0 + 199)  # it is taken to take a second, and so is the last one
    assert budget.allows(100.0 + 200)
    budget.took(2.0)
    assert not budget.allows(100.0 + 599)  # the next one would take two seconds more, and the last one, too
    assert budget.allows(100.0 + 600)


# --- The word --------------------------------------------------------------------------------------------------------


def line(step: int, *, spread: float = 0.9, difference: float = 1.0) -> dict[str, Any]:
    return {
        "step": step,
        "loss": 1.0,
        "rate": 0.1,
        "features": {"std": 0.9},
        "embeddings": {"std": spread, "effective_rank": 20.0},
        "views": {"difference": difference, "agreement": 0.5, "chance": 0.0},
        "moved": 0.01,
    }


def words(*spreads: float, total: int = 100, first: int = 20) -> list[str]:
    health, said = Health(About(total)), []
    for number, spread in enumerate(spreads):
        health.read(line(first + number, spread=spread))
        said.append(health.word)
    return said


def test_the_first_tenth_of_a_run_is_its_start_whatever_it_looks_like() -> None:
    assert words(0.01, 0.01, 0.01, total=1000) == [STARTING] * 3


def test_what_no_network_comes_out_of_is_told_at_once() -> None:
    health = Health(About(1000))
    assert [health.read(line(step, difference=0.0)) for step in (2, 4, 6)] == [True, False, False]
    assert str(health).startswith("watch: views identical: ")


def test_one_odd_batch_is_no_alarm_and_two_are() -> None:
    assert words(0.9, 0.01, 0.9, 0.01, 0.01, 0.9) == [HEALTHY] * 4 + [COLLAPSED, HEALTHY]


def test_a_part_without_gradient_is_not_forgotten() -> None:
    health = Health(About(100))
    for step in range(2, 40, 2):
        health.read(line(step) | ({"without_gradient": ["encoder"]} if step == 2 else {}))
    assert health.word == WATCH


def test_a_run_that_is_gone_on_with_is_judged_as_if_it_had_not_stopped() -> None:
    before = [line(step, spread=0.01) for step in (50, 100, 150)]
    health = Health(About(200))
    health.recall(before)
    assert (health.word, health.lines) == (COLLAPSED, 2)
    assert not health.read(line(200, spread=0.01)), "which is nothing new"
    assert health.word == COLLAPSED
    fresh = Health(About(200))
    fresh.recall([])
    assert fresh.word == STARTING


def test_a_long_log_is_recalled_as_it_was_read() -> None:
    lines = [line(step, spread=0.01 if step > 1485 else 0.9) for step in range(5, 1500, 5)]
    lines[1] |= {"without_gradient": ["encoder"]}
    for first in (0, 2):
        read, recalled = Health(About(1500)), Health(About(1500))
        for each in lines[first:]:
            read.read(each)
        recalled.recall(lines[first:])
        assert (recalled.word, recalled.why) == (read.word, read.why)
        assert min(recalled.lines, LASTING) == min(read.lines, LASTING)


def test_a_run_that_is_past_its_first_tenth_does_not_start_again_when_it_is_made_longer() -> None:
    health = Health(About(10_000))
    health.recall([line(step) | {"total": 200} for step in range(10, 210, 10)])
    said = set()
    for step in range(210, 2_000, 10):
        health.read(line(step) | {"total": 10_000})
        said.add(health.word)
    assert said == {HEALTHY}
    ill = [line(step, spread=0.01) | {"total": 200} for step in (100, 150, 200)]
    assert [finding.name for finding in examine(ill, About(10_000))] == ["head-only collapse"], "nor in its report"
    assert examine([each | {"total": 10_000} for each in ill], About(10_000)) == []


# --- The log ---------------------------------------------------------------------------------------------------------


def test_a_log_that_cannot_be_written_is_told_once_and_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    log = StepLog(tmp_path / "missing" / "a.jsonl", said.append)
    for step in range(3):
        log.append({"step": step})
    assert len(said) == 1
    assert "training goes on without these lines" in said[0]
    (tmp_path / "missing").mkdir()
    log.append({"step": 3})
    assert storage.read_lines(log.path) == [{"step": 3}]


def test_a_log_is_rewound_before_its_next_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for step in range(5):
        StepLog(path, print).append({"step": step})
    log = StepLog(path, print, since=2)
    log.append({"step": 9})
    log.append({"step": 10})
    assert [row["step"] for row in storage.read_lines(path)] == [0, 1, 2, 9, 10]
