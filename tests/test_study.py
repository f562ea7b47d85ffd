"""`barlow compare` sets runs beside each other: what differs, what they reached, what they cost."""

import copy
import json
import os
import shutil
import statistics
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import yaml

import barlow
from barlow import cli, exits, storage, study
from barlow.runs.run import Run
from barlow.seals import sealed
from barlow.study import Cell, Column, RunsTable


def trained(
    home: Path, name: str, recipe: str = "small_barlow_twins", test: str | None = "test", **changes: Any
) -> Path:
    """A tiny run, evaluated by kNN unless there is no `test`."""
    overrides = tiny.SMALL | {key.replace("__", "."): value for key, value in changes.items()}
    barlow.pretrain(home / "train", home / name, recipe=recipe, overrides=overrides, progress=False)
    if test is not None:
        barlow.evaluate(home / name, train=home / "train", test=home / test, protocols=["knn"])
    return home / name


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("runs")
    tiny.images(home / "train", 64, classes=4)
    tiny.images(home / "test", 40, classes=4, seed=1)
    tiny.images(home / "other", 24, classes=4, seed=2)
    return {
        "a": trained(home, "a"),
        "b": trained(home, "b", seed=1),
        "vicreg": trained(home, "vicreg", "small_vicreg"),
        "longer": trained(home, "longer", train__steps=24),
        "elsewhere": trained(home, "elsewhere", test="other", optim__lr_per_256=0.001),
        "unmeasured": trained(home, "unmeasured", test=None, seed=2),
    }


def score_of(run: Path) -> dict[str, Any]:
    score: dict[str, Any] = storage.read_sealed(run / "evaluation" / "results.json")["sets"]["encoder"]["knn"][
        "metrics"
    ]["top1"]
    return score


def rows(text: str) -> dict[str, list[str]]:
    """Cells by label, of rows whose cells have no spaces between them."""
    return {line[:16].strip(): line[16:].split("  ") for line in text.splitlines()}


def test_a_run_alone_has_its_score_with_interval_and_what_it_cost(runs: dict[str, Path]) -> None:
    found = barlow.compare(runs["a"])
    (column,) = found.columns
    score = score_of(runs["a"])
    assert column.scores["knn.top1"] == Cell(score["value"], score["low"], score["high"], None, 1)
    gain = storage.read_sealed(runs["a"] / "evaluation" / "results.json")["gain"]["knn.top1"]
    assert column.gains["knn.top1"] == Cell(gain["value"], gain["low"], gain["high"], None, 1)
    log = Run.open(runs["a"]).metrics()
    assert column.images_per_second == statistics.median(line["images_per_second"] for line in log)
    assert column.minutes == pytest.approx(log[-1]["seconds"] / 60)
    assert (column.steps, column.epochs, column.images, column.seeds) == (12, 3, 64, [0])
    assert column.parameters == sum(p.numel() for p in barlow.load_encoder(runs["a"]).parameters())
    assert (found.keys, found.notes) == ([], [])


def test_seeds_of_one_recipe_are_one_column_with_their_spread(runs: dict[str, Path]) -> None:
    found = barlow.compare(runs["a"], runs["vicreg"], runs["b"])
    assert [column.runs for column in found.columns] == [[str(runs["a"]), str(runs["b"])], [str(runs["vicreg"])]]
    both, alone = found.columns
    values = [score_of(runs[name])["value"] for name in ("a", "b")]
    assert both.seeds == [0, 1]
    assert both.scores["knn.top1"] == Cell(statistics.fmean(values), None, None, statistics.stdev(values), 2)
    assert alone.scores["knn.top1"].low is not None
    assert "(2 seeds)" in found.text()
    mean = f"{100 * statistics.fmean(values):.1f} ± {100 * statistics.stdev(values):.1f}"
    assert mean in next(line for line in found.text().splitlines() if line.startswith("kNN top-1"))


def test_the_keys_that_differ_are_there_with_the_value_of_each_and_no_others(runs: dict[str, Path]) -> None:
    found = barlow.compare(runs["a"], runs["vicreg"])
    recipes = [column.recipe for column in found.columns]
    assert [recipe["objective.kind"] for recipe in recipes] == ["barlow_twins", "vicreg"]
    assert "objective.redundancy" in recipes[0]
    assert "objective.redundancy" not in recipes[1]
    for key in found.keys:
        assert recipes[0].get(key, None) != recipes[1].get(key, None), key
        assert not key.startswith("source.")
    assert not {"seed", "data.mean", "data.std", "train.steps", "data.sources", "train.device"} & set(found.keys)
    cells = rows(found.text())
    assert [cell.strip() for cell in cells["objective.kind"] if cell] == ["barlow_twins", "vicreg"]


def test_ops_are_called_by_their_kinds_and_views_that_are_alike_are_one(runs: dict[str, Path], tmp_path: Path) -> None:
    def altered(name: str, change: Callable[[list[list[dict[str, Any]]]], None]) -> Path:
        run = shutil.copytree(runs["a"], tmp_path / name)
        (run / "run.json").unlink()  # which says what the recipe was
        recipe = yaml.safe_load((run / "recipe.yaml").read_text())
        as_it_is(recipe["views"])
        change(recipe["views"])
        (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        return run

    def less(views: list[list[dict[str, Any]]]) -> None:
        for view in views:
            next(op for op in view if op["kind"] == "grayscale")["p"] = 0.05

    def other_order(views: list[list[dict[str, Any]]]) -> None:
        less(views)
        for view in views:
            view.reverse()

    def one_view(views: list[list[dict[str, Any]]]) -> None:
        less(views[:1])

    def as_it_is(views: list[list[dict[str, Any]]]) -> None:
        views[1] = copy.deepcopy(views[0])

    before = altered("before", as_it_is)
    assert barlow.compare(before, altered("less", less)).keys == ["views.*.grayscale.p"]
    assert barlow.compare(before, altered("order", other_order)).keys == ["views.*", "views.*.grayscale.p"]
    assert barlow.compare(before, altered("one", one_view)).keys == ["views.0.grayscale.p"]


def test_runs_of_other_lengths_are_other_columns_of_the_same_recipe(runs: dict[str, Path]) -> None:
    found = barlow.compare(runs["a"], runs["longer"])
    assert [column.steps for column in found.columns] == [12, 24]
    assert found.keys == []
    assert "the recipes are the same but for what is below" in found.text()


def test_other_test_images_are_told(runs: dict[str, Path]) -> None:
    found = barlow.compare(runs["a"], runs["elsewhere"])
    assert found.keys == ["optim.lr_per_256"]
    (note,) = found.notes
    assert note.startswith("not the same test images")
    assert "A: 40 of" in note
    assert "B: 24 of" in note
    assert barlow.compare(runs["a"], runs["vicreg"]).notes == []


def test_of_several_evaluations_those_on_common_images_are_shown(runs: dict[str, Path], tmp_path: Path) -> None:
    home = runs["a"].parent
    both = shutil.copytree(runs["a"], tmp_path / "both")
    barlow.evaluate(both, train=home / "train", test=home / "other", protocols=["knn"])
    assert barlow.compare(both).columns[0].test_images == f"24 of {home / 'other'}", "alone it shows the newest"
    found = barlow.compare(both, runs["vicreg"])
    assert [column.test_images for column in found.columns] == [f"40 of {home / 'test'}"] * 2
    assert found.columns[0].scores["knn.top1"].value == score_of(runs["a"])["value"]
    assert found.notes == []
    assert barlow.compare(both, runs["elsewhere"]).columns[0].test_images == f"24 of {home / 'other'}"


def test_test_images_are_the_same_by_whatever_path_they_are_named(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = runs["a"].parent
    again = shutil.copytree(runs["vicreg"], tmp_path / "again")
    shutil.rmtree(again / "evaluation")
    monkeypatch.chdir(home)
    barlow.evaluate(again, train="train", test="test", protocols=["knn"])
    assert barlow.compare(runs["a"], again).notes == []


def test_a_run_that_was_not_evaluated_has_dashes_and_a_note(runs: dict[str, Path]) -> None:
    found = barlow.compare(runs["a"], runs["unmeasured"])
    assert [list(column.scores) for column in found.columns] == [["knn.top1", "knn.top5"], []] or found.columns[
        1
    ].scores == {}
    assert found.notes == [f"{runs['unmeasured']} was not evaluated: barlow evaluate {runs['unmeasured']}"]
    line = next(line for line in found.text().splitlines() if line.startswith("kNN top-1"))
    assert line.endswith("–")


def test_a_damaged_evaluation_is_told_and_the_rest_is_shown(runs: dict[str, Path], tmp_path: Path) -> None:
    other = shutil.copytree(runs["a"], tmp_path / "copy")
    path = other / "evaluation" / "results.json"
    path.write_text(path.read_text().replace('"value"', '"worth"', 1))
    found = barlow.compare(other)
    assert found.columns[0].steps == 12
    assert found.notes[0].startswith(f"{path} was changed after it was written")


def test_the_time_of_a_run_that_was_gone_on_with_is_that_of_all_its_starts(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    other = shutil.copytree(runs["a"], tmp_path / "copy")
    overrides = tiny.SMALL | {"train.steps": 20}
    barlow.pretrain(out=other, resume=True, recipe="small_barlow_twins", overrides=overrides, progress=False)
    log = Run.open(other).metrics()
    seconds = log[11]["seconds"] + log[19]["seconds"]
    assert log[12]["seconds"] < log[11]["seconds"], "the clock began anew"
    (column,) = barlow.compare(other).columns
    assert column.steps == 20
    assert column.minutes == pytest.approx(seconds / 60)
    assert len(barlow.compare(other, runs["a"]).columns) == 2, "it is longer than the other"


# --- As text and as JSON ----------------------------------------------------------------------------------------------


def column(name: str, keys: int = 3) -> Column:
    scores = {f"{probe}.top1": Cell(0.612, 0.58, 0.643, None, 1) for probe in ("knn", "linear_sgd_augmented")}
    recipe = {f"method.projector.widths{k}": [1024, 1024, 128] for k in range(keys)} | {"data.sources": ["x" * 60]}
    return Column([name], [0], recipe, 12_500, 21.3, 15.02, 1987.4, 4_900_000, 50_000, scores, scores, "t", "10 of x")


@pytest.mark.parametrize("count", range(1, 10))
def test_any_number_of_runs_fits_eighty_columns(count: int) -> None:
    columns = [column(f"runs/{'long-name-' * 9}{k}\x1b[31m") for k in range(count)]
    text = RunsTable(columns, list(columns[0].recipe), ["a note " * 30]).text()
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert text.count("kNN top-1") == 2 * -(-count // 4), "scores and gains of each four runs"
    for k in range(count):
        assert f"{'ABCDEFGHI'[k]}  runs/" in text
    assert "61.2 58.0…64.3" in text
    assert "+61.2 58.0…64.3" in text


def test_of_very_many_keys_some_are_shown_and_the_others_counted() -> None:
    columns = [column("a", 60), column("b", 60)]
    text = RunsTable(columns, list(columns[0].recipe), []).text()
    assert "and 21 more keys, most of them of some recipes alone (--json has them)" in text


def test_a_run_that_has_collapsed_is_called_so_with_the_reason(runs: dict[str, Path], tmp_path: Path) -> None:
    ill = shutil.copytree(runs["vicreg"], tmp_path / "ill")
    log = Run.open(ill).metrics()
    why = "head-only collapse: all images have nearly the same embedding (spread 0.078); lower the rate"
    log[-1] |= {"state": "collapsed", "why": why}
    storage.write_lines(ill / "metrics.jsonl", [sealed(line) for line in log])
    found = barlow.compare(runs["a"], ill)
    assert [each["state"] for column in found.as_dict()["columns"] for each in column["states"]] == [
        Run.open(runs["a"]).metrics()[-1]["state"],
        "collapsed",
    ]
    assert found.columns[1].states[0]["why"] == why.partition(";")[0]
    text = " ".join(found.text().split())
    assert "collapsed: head-only collapse" in text
    assert found.text().index("state") < found.text().index("objective.kind")


def test_seeds_of_which_one_has_collapsed_say_how_many() -> None:
    states: list[dict[str, str | None]] = [
        {"state": "healthy", "why": None},
        {"state": "collapsed", "why": "head-only collapse: all alike"},
        {"state": "healthy", "why": None},
        {"state": None, "why": None},
    ]
    text = RunsTable([replace(column("a"), states=states)], [], []).text()
    said = " ".join(line[16:].strip() for line in text.split("\n")[text.split("\n").index("") + 2 :][:4])
    assert said.startswith("healthy (2 of 4); collapsed (1 of 4): head-only collapse: all alike; – (1 of 4)")


def test_what_an_objective_alone_has_and_not_by_default_is_shown(runs: dict[str, Path], tmp_path: Path) -> None:
    def with_variance(value: float) -> str:
        run = shutil.copytree(runs["vicreg"], tmp_path / str(value))
        (run / "run.json").unlink()  # which says what the recipe was
        recipe = yaml.safe_load((run / "recipe.yaml").read_text())
        recipe["objective"]["variance"] = value
        (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        return barlow.compare(runs["a"], run).text()

    assert "objective.variance" in with_variance(0.0)
    assert "objective.variance" not in with_variance(25.0)


def test_of_an_objective_what_its_own_runs_differ_in_comes_first() -> None:
    def facts(kind: str, **settings: float) -> Any:
        recipe = {"train.x": len(settings), "objective.kind": kind}
        return SimpleNamespace(
            recipe=recipe | {f"objective.{key}": value for key, value in settings.items()}, follows=lambda key: False
        )

    keys = study._differing([facts("a", one=1, two=2), facts("b", three=3, four=4), facts("b", three=3, four=5)])
    assert keys == ["objective.kind", "objective.four", "objective.one", "objective.two", "objective.three"]


def test_json_and_text_are_views_of_one_object(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(runs["a"]), str(runs["vicreg"])]
    found = barlow.compare(*words)
    assert cli.main(["compare", *words]) == exits.OK
    assert capsys.readouterr().out == found.text()
    assert cli.main(["compare", *words, "--json"]) == exits.OK
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.as_dict()))


def test_what_is_no_run_ends_with_66(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", str(tmp_path / "nowhere")]) == exits.NO_INPUT
    assert "nowhere does not exist, so it is not a run" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no runs are named"):
        barlow.compare()


def test_a_recipe_that_was_edited_is_refused(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(runs["a"], tmp_path / "copy")
    path = other / "recipe.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 5"))
    assert cli.main(["compare", str(other)]) == exits.DATA
    assert "seed is 5 there" in capsys.readouterr().err


def test_a_strangers_recipe_has_any_values(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(runs["a"], tmp_path / "other")
    (other / "run.json").unlink()
    recipe = yaml.safe_load((other / "recipe.yaml").read_text())
    recipe["optim"] |= {"eps": float("nan"), "weight_decay": date(2026, 1, 1), "\x1b[2Jkey": "\x1b[2J"}
    recipe["views"], recipe["seed"], recipe["train"]["steps"] = "none", [1, {}], True
    (other / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for words in ([], ["--json"]):
        assert cli.main(["compare", str(runs["a"]), str(other), *words]) == exits.OK
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert "2026-01-01" in out
        assert "NaN" not in out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("recipe.yaml", exits.NO_INPUT),
        ("run.json", exits.DATA),
        ("metrics.jsonl", exits.OK),
        ("data.json", exits.OK),
    ],
)
def test_a_pipe_in_place_of_a_file_is_not_waited_for(
    file: str, code: int, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(runs["a"], tmp_path / "other")
    for name in (file, "encoder/model.safetensors", "evaluation/results.json"):
        (other / name).unlink()
        os.mkfifo(other / name)
    assert cli.main(["compare", str(other)]) == code, capsys.readouterr().err
