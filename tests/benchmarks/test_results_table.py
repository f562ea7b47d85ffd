"""README's results: what the tables show of the lines, and that README is up to date."""

import json
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from programs import program

from barlow.recipe import files
from barlow.recipe.request import CONTINUED, DEFAULT, chosen_recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def table() -> ModuleType:
    return program("experiments/table.py")


def line(recipe: str = "cifar10/vicreg", *, seed: int = 0, top1: float = 0.8, **changed: Any) -> dict[str, Any]:
    """A line as the GPU program writes it."""
    probes = ("linear_sgd", "logistic", "knn", "knn5_euclidean")
    score = {"mean": top1, "spread": None, "values": [top1]}
    return {
        "program": "benchmarks/gpu_cifar10.py",
        "images": "CIFAR-10",
        "recipe": recipe,
        "overrides": {"train.precision": "bf16"},
        "recipe_sha256": "a",
        "epochs": 100,
        "steps": 19500,
        "seeds": [seed],
        "limit": None,
        "scores": {"encoder": {f"{probe}.top1": score for probe in probes}},
        "probe_notes": {probe: {} for probe in probes},
        "failed_probes": {},
        "training_seconds": [420.0],
        "images_per_second": [12_345.6],
        "peak_gpu_bytes": 3 * 2**30,
        "hardware": {"processor": "P", "gpu": "Some GPU"},
        **changed,
    }


def gpu_rows(table: ModuleType, *lines: dict[str, Any]) -> list[str]:
    return table.gpu_table(lines).splitlines()[2:]


def test_without_lines_all_four_recipes_are_not_measured_and_nothing_is_invented(table: ModuleType) -> None:
    rows = gpu_rows(table)
    names = ["Barlow Twins", "VICReg", "W-MSE 2", "W-MSE 4"]
    recipes = ["barlow_twins", "vicreg", "w_mse_2", "w_mse_4"]
    assert rows == [
        f"| {name} | `cifar10/{recipe}` | not measured | – | – | – | – | – | – | – |"
        for name, recipe in zip(names, recipes, strict=True)
    ]


def test_a_line_fills_its_row_and_leaves_the_others(table: ModuleType) -> None:
    rows = gpu_rows(table, line())
    assert rows[1] == (
        "| VICReg | `cifar10/vicreg`, `train.precision bf16` | 100 epochs, 7 min | **80.0** (n = 1) | **80.0** (n = 1) "
        "| **80.0** (n = 1) | **80.0** (n = 1) | 12,346 | 3.0 GiB | Some GPU |"
    )
    assert ["not measured" in row for row in rows] == [True, False, True, True]


def test_seeds_of_one_recipe_are_averaged_and_an_earlier_form_of_it_is_left_out(table: ModuleType) -> None:
    old, first, second = line(top1=0.1, recipe_sha256="old"), line(top1=0.8), line(seed=1, top1=0.9)
    assert "**85.0** ± 7.1 (n = 2)" in gpu_rows(table, old, first, second)[1]
    again = line(seed=1, top1=0.8)
    assert "**80.0** ± 0.0 (n = 2)" in gpu_rows(table, first, second, again)[1], "a seed counts once, the newest"


def test_runs_of_other_lengths_have_rows_of_their_own(table: ModuleType) -> None:
    rows = gpu_rows(table, line(epochs=200, training_seconds=[840.0]), line())
    assert ["100 epochs, 7 min" in rows[1], "200 epochs, 14 min" in rows[2], len(rows)] == [True, True, 5]


def test_trials_are_in_no_table(table: ModuleType) -> None:
    trials = [line(limit=300), line(hardware={"processor": "P"})]
    assert gpu_rows(table, *trials) == gpu_rows(table)
    assert table.table([*trials, line()]) == table.table([])


def test_a_linear_probe_that_failed_or_whose_rate_does_not_suit_is_marked(table: ModuleType) -> None:
    diverged = line(failed_probes={"linear_sgd": "diverged"})
    del diverged["scores"]["encoder"]["linear_sgd.top1"]
    assert "min | diverged | **80.0**" in gpu_rows(table, diverged)[1]
    unsuited = line()
    unsuited["probe_notes"]["linear_sgd"]["worse_than_class_frequencies"] = True
    assert "**80.0** (n = 1), its rate unsuited | **80.0** (n = 1) |" in gpu_rows(table, unsuited)[1]


def test_readme_has_the_tables_of_the_results_and_says_that_the_images_are_compressed(
    table: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["table.py", "--check"])
    assert table.main() == 0, "run `python experiments/table.py`"
    results = (ROOT / "results" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [json.loads(text) for text in results if text]
    assert "ResNet-18, GPU, 100 epochs" in table.content([*lines, line()])
    assert "JPEG-compressed" in table.content([*lines, line()])
    parts = [
        (table.OWN_BEGIN, table.own_table([]), table.OWN_END),
        (table.FEATURES_BEGIN, table.features_table(), table.FEATURES_END),
        (table.METHODS_BEGIN, table.methods_part([]), table.METHODS_END),
        (table.PROTOCOLS_BEGIN, table.protocols_part([]), table.PROTOCOLS_END),
        (table.BEGIN, table.content([]), table.END),
    ]
    written = table.readme_with(" b ".join(f"{begin}\nold\n{end}" for begin, _, end in parts), [])
    assert written == " b ".join(f"{begin}\n{made}\n{end}" for begin, made, end in parts)
    assert table.readme_with(written, []) == written


def test_what_nobody_has_measured_has_a_sentence_and_no_table_of_dashes(table: ModuleType) -> None:
    hash_of = program("experiments/results_line.py").recipe_hash
    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    protocol = {"program": "experiments/protocols.py", "encoder": "small_byol", "scores": {"knn.top1": score}}
    for part, measured in (
        (table.content, line()),
        (table.methods_part, method("small_byol", 0, hash_of=hash_of)),
        (table.protocols_part, protocol),
    ):
        assert "Not measured yet" in part([])
        assert "–" not in part([])
        assert "JPEG-compressed" in part([measured])
        assert "Not measured yet" not in part([measured])


def test_runs_of_recipes_that_have_changed_since_stand_on_the_page_of_experiments(table: ModuleType) -> None:
    page, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/experiments.md", "README.md"))
    assert "as it was at d005f11" in page
    assert "as it was at" not in readme
    written = table.experiments_with(f"a {table.EARLIER_BEGIN}\nold\n{table.EARLIER_END} b", [])
    assert "old" not in written


def own(images: str, recipe: str, seed: int, *, hash_of: Any, **more: Any) -> dict[str, Any]:
    """A line as the experiment on one's own folder writes it: its minutes have become steps."""
    steps: dict[str, Any] = {"train.minutes": None, "train.steps": 4812}
    scores = {"encoder": (0.7 + 0.02 * seed, 0.8), "pixels_16": (0.3, 0.2), "pixels_32": (0.2, 0.25)}
    scores |= {"untrained": (0.1, 0.4), "start": (0.75, 0.85)}
    return {
        "program": "experiments/own_folder.py",
        "images": images,
        "recipe": recipe,
        "overrides": {"train.minutes": "null", "train.steps": "4812"},
        "minutes": 15.0,
        "seed": seed,
        "part": "test",
        "recipe_sha256": hash_of(chosen_recipe(recipe=recipe, minutes=15.0, overrides=steps).as_dict()),
        "scores": {name: {"knn.top1": knn, "logistic.top1": linear} for name, (knn, linear) in scores.items()},
        **more,
    }


def test_ones_own_folder_has_a_row_for_each_set_and_means_of_the_recipes_as_they_are_shipped(
    table: ModuleType,
) -> None:
    hash_of = program("experiments/results_line.py").recipe_hash
    lines = [own("aerial", DEFAULT, seed, hash_of=hash_of) for seed in (0, 1, 2)]
    lines += [own("aerial", CONTINUED, 0, hash_of=hash_of), own("imagenette", CONTINUED, 0, hash_of=hash_of)]
    earlier = own("aerial", DEFAULT, 3, hash_of=hash_of, recipe_sha256="earlier")
    shorter = own("aerial", DEFAULT, 3, hash_of=hash_of, minutes=3.0)
    changed = own("aerial", DEFAULT, 3, hash_of=hash_of, overrides={"data.image_size": "64"})
    held = own("aerial", DEFAULT, 3, hash_of=hash_of, part="held out")
    longer = own("aerial", DEFAULT, 3, hash_of=hash_of, minutes=60.0)
    again = own("aerial", DEFAULT, 1, hash_of=hash_of)  # a seed counts once
    theirs = {**earlier, "recipe": "lightly/simclr@64", "scores": {"encoder": lines[1]["scores"]["encoder"]}}
    worse = {**theirs, "recipe": "lightly/barlow_twins@64", "scores": {"encoder": lines[0]["scores"]["untrained"]}}
    others = [earlier, shorter, changed, held, longer, theirs, worse]
    rows = [row.split(" | ") for row in table.own_table([again, *lines, *others]).splitlines()]
    assert len(rows) == 2 + 4
    assert rows[4][1:] == [
        "30.0 / 25.0", "10.0 / 40.0", "**72.0** ± 2.0 / **80.0** ± 0.0 (n = 3)", "**72.0** / **80.0** (n = 1)",
        "75.0 / 85.0", "**70.0** / **80.0** (n = 1) |",
    ]  # fmt: skip
    assert rows[3][1:] == ["–", "–", "–", "–", "seen", "seen |"], "of photos that the weights have seen, no number"
    assert rows[2][1:] == ["–"] * 5 + ["– |"]


def test_what_weights_are_worth_is_said_over_a_start_from_scratch_and_over_the_weights_as_they_are() -> None:
    choosing = program("experiments/choosing.py")
    hash_of = program("experiments/results_line.py").recipe_hash
    lower = {"value": -0.05, "low": -0.08, "high": 0.0003}
    continued = own("aerial", CONTINUED, 0, hash_of=hash_of, gain={"knn.top1": {"value": 0.4}, "logistic.top1": lower})
    scratch = [own("aerial", DEFAULT, seed, hash_of=hash_of) for seed in (1, 2)]
    for line in scratch:
        line["scores"]["encoder"]["logistic.top1"] = 0.75
    said = " ".join(choosing.of_weights([continued, *scratch, {"program": "another"}]).split())
    assert (
        "gave -3.0 points of kNN (70.0 beside 73.0) and +5.0 points of logistic regression (80.0 beside 75.0)" in said
    )
    assert "-5.0 of kNN and -5.0 of logistic regression (95 % interval -8.00 to +0.03)" in said
    assert "seeds: 2 of `small_w_mse` and 1 of `continue_barlow_twins`" in said
    assert "not measured yet" in choosing.of_weights(scratch)


def test_the_seconds_of_a_run_are_those_of_all_its_starts() -> None:
    seconds_of = program("experiments/results_line.py").seconds_of
    assert seconds_of([{"seconds": s} for s in (1.0, 5.0, 9.0)]) == 9.0
    assert seconds_of([{"seconds": s} for s in (1.0, 5.0, 0.5, 4.0, 4.0, 7.0)]) == 5.0 + 7.0
    assert seconds_of([{"seconds": 2.0}]) == 2.0


def method(recipe: str, seed: int, *, hash_of: Any, rate: str = "0.01", **more: Any) -> dict[str, Any]:
    """A line as the comparison of methods writes it."""
    changes = {"train.minutes": None, "train.steps": 2500, "optim.lr_per_256": float(rate)}
    scores = {"encoder": {"knn.top1": 0.5 + 0.1 * seed, "logistic.top1": 0.6}}
    return {
        "program": "experiments/methods.py",
        "images": "cifar10",
        "recipe": recipe,
        "overrides": {"train.minutes": "null", "train.steps": "2500", "optim.lr_per_256": rate},
        "minutes": 0.0,
        "seed": seed,
        "part": "test",
        "recipe_sha256": hash_of(chosen_recipe(recipe=recipe, minutes=0.0, overrides=changes).as_dict()),
        "scores": scores,
        **more,
    }


def test_methods_stand_beside_each_other_with_their_rate_and_their_speed(table: ModuleType) -> None:
    hash_of = program("experiments/results_line.py").recipe_hash
    lines = [method("small_byol", seed, hash_of=hash_of) for seed in (0, 1)]
    untrained = {"untrained": (0.2, 0.4), "untrained_recalibrated": (0.3, 0.3), "pixels_16": (0.9, 0.9)}
    baselines = {name: {"knn.top1": knn, "logistic.top1": linear} for name, (knn, linear) in untrained.items()}
    first = method("small_barlow_twins", 0, hash_of=hash_of, rate="0.03")
    first["scores"] |= baselines
    tried = method("small_byol", 2, hash_of=hash_of, part="held out")
    of_old = method("small_byol", 2, hash_of=hash_of, recipe_sha256="earlier")
    speed = [
        {"program": line["program"], "timed": "small_byol", "seconds_a_step": s} for line in lines for s in (0.1, 0.3)
    ]
    written = table.methods_table([*lines, first, tried, of_old, *speed])
    rows = [row.strip("| ").split(" | ") for row in written.splitlines()]
    assert len(rows) == 2 + len(table.METHODS_NAMES) + 1
    assert rows[2] == ["Barlow Twins", "`small_barlow_twins`", "0.03", "**50.0**", "**60.0**", "–", "1"]
    assert rows[3] == ["VICReg", "`small_vicreg`", "–", "–", "–", "–", "0"]
    assert rows[6] == ["BYOL", "`small_byol`", "0.01", "**55.0** ± 7.1", "**60.0** ± 0.0", "200", "2"]
    assert rows[8] == ["untrained, the better of two", "–", "–", "**30.0**", "**40.0**", "–", "1"]
    assert set(table.METHODS_NAMES) == set(program("experiments/methods.py").METHODS)


def test_all_methods_stand_beside_the_papers_numbers_with_the_rank_correlation() -> None:
    compared = program("experiments/compared.py")
    hash_of = program("experiments/results_line.py").recipe_hash
    recipes = ["small_supervised", "small_byol", "small_vicreg", "small_simclr", "small_moco_v1"]
    lines = [
        method(recipe, 0, hash_of=hash_of, scores={"encoder": {"knn.top1": 0.5, "logistic.top1": 0.9 - 0.1 * place}})
        for place, recipe in enumerate(recipes)
    ]
    lines[0]["scores"]["untrained"] = {"knn.top1": 0.2, "logistic.top1": 0.3}
    lines.append(method("small_byol", 1, hash_of=hash_of, part="held out"))
    lines.append(method("small_rotation", 0, hash_of=hash_of, recipe_sha256="earlier"))
    rows = [row.strip("| ").split(" | ") for row in compared.table(lines, "cifar10").splitlines()]
    by_name = {row[0]: row for row in rows}
    assert by_name["BYOL"][2:7] == ["0.01", "50.0", "80.0", "1", "74.3"]
    assert by_name["rotation"][2:7] == ["–", "–", "–", "0", "48.9"]
    assert by_name["W-MSE"][6] == "–"
    assert "+1.00, over 5 methods" in compared.correlation_line(lines, "cifar10")
    assert "1 methods are too few" in compared.correlation_line(lines[:1], "cifar10")
    assert compared.rank_correlation([1, 2, 3], [3, 2, 1]) == -1
    assert "small_barlow_twins" in compared.methods_on("imagenette")
    assert set(compared.COMPARED) <= set(files.names())


@pytest.mark.parametrize(
    "page",
    [
        "exactness",
        "performance",
        "measured",
        "choosing",
        "reliability",
        "kinds_pages",
        "near_duplicates",
        "duplicates",
        "compared",
        "captions_page",
    ],
)
def test_the_pages_that_programs_write_are_up_to_date(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ROOT / "experiments" / f"{page}.py"
    monkeypatch.setattr(sys, "argv", [str(file), "--check"])
    monkeypatch.syspath_prepend(file.parent)
    wrong: object = None
    try:
        runpy.run_path(str(file), run_name="__main__")
    except SystemExit as end:
        wrong = end.code
    assert not wrong, f"{wrong}: run `python experiments/{page}.py`"
