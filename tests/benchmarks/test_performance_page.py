"""The tables of docs/performance.md: what they show of lines with a verdict, and of lines of medians alone."""

import functools
import importlib
import re
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from programs import program

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import compare
import costs
import step
import step_methods
import workers

from barlow import watchdog
from barlow.distributed import World

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def page() -> ModuleType:
    return program("experiments/performance.py")


def line(**content: Any) -> dict[str, Any]:
    """A line of a pair of sides, as measure.py writes it."""
    times = {"median": 2.0, "least": 1.0, "most": 3.0, "processor": 2.5, "images_per_second": 5.0}
    return {
        "name": "row",
        "what": "some work",
        "rounds": 8,
        "ours": times,
        "reference": {"what": "theirs", **times},
        "ratio": 1.9,
        "interval": [1.85, 1.95],
        "processor_ratio": 2.1,
        "processor_interval": [2.0, 2.2],
        "promised": {"ratio": 2.0},
        "margin": 1.1,
        "verdict": "better",
        **content,
    }


def cells(page: ModuleType, of: dict[str, Any]) -> dict[str, str]:
    row = page.table([of]).splitlines()[2]
    return dict(zip(page.HEADER, row.strip("| ").split(" | "), strict=True))


def test_a_line_with_a_verdict_shows_both_clocks_and_where_it_is_short_of_its_promise(page: ModuleType) -> None:
    shown = cells(page, line())
    assert shown["ratio"] == "**1.9** (1.85 to 1.95)"
    assert shown["by processor seconds"] == "**2.1** (2 to 2.2)"
    assert shown["promised"] == "ratio ≥ 2"
    assert shown["verdict"] == "better; short of the promise"
    assert shown["ours"] == "2.00 s (1.00 s to 3.00 s); 5 images/s"
    assert cells(page, line(ratio=2.5))["verdict"] == "better"
    assert cells(page, line(verdict="cannot tell", ratio=2.5))["verdict"] == "cannot tell"


def test_a_line_of_medians_alone_is_still_readable(page: ModuleType) -> None:
    def of(ratio: float) -> dict[str, str]:
        old = line(ratio=ratio, ratios=[1.0, 3.0])
        for key in ("interval", "processor_ratio", "processor_interval", "verdict", "margin"):
            del old[key]
        return cells(page, old)

    assert of(1.9)["ratio"] == "**1.9** (1 to 3)"
    assert of(1.9)["by processor seconds"] == "–"
    words = [of(ratio)["verdict"] for ratio in (2.0, 1.9, 1.5)]
    assert words == ["medians kept it", "medians short, by less than a tenth", "medians **missed** it"]


def test_the_cost_of_a_part_is_shown_in_percent_and_memory_without_times(page: ModuleType) -> None:
    part = line(share=0.0072, interval=[0.007, 0.008], promised={"share": 0.03})
    del part["ratio"]
    shown = cells(page, part)
    assert (shown["ratio"], shown["promised"]) == ("–", "≤ 3 %")
    assert shown["by processor seconds"] == "**0.72** (0.7 to 0.8) % of the reference"
    memory = {"name": "m", "what": "w", "rounds": 2, "memory_gb": 0.17, "promised": {"memory_gb": 0.4}, "margin": 1.1}
    assert cells(page, memory | {"verdict": "better"})["ours"] == "0.17 GB"


def test_make_bench_has_every_program_with_rows_and_those_with_a_side_of_ours_are_compared() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    listed, of_methods = (
        re.search(rf"^{name} = (.*)$", makefile, re.M) for name in ("BENCHMARKS", "BENCHMARKS_OF_METHODS")
    )
    assert listed is not None
    assert of_methods is not None
    with_rows = {
        path.stem for path in (ROOT / "benchmarks").glob("*.py") if "measure.main(__file__" in path.read_text("utf-8")
    }
    assert {*listed[1].split(), *of_methods[1].split()} == with_rows - {"gpu", "measure"}
    assert not {*listed[1].split()} & {*of_methods[1].split()}
    of_no_tree = {"products"}  # two libraries, and nothing of ours
    assert {*compare.PROGRAMS, "costs", "damage", "few_labels"} | of_no_tree == set(listed[1].split())


def test_the_cost_of_the_watchdog_is_that_of_what_it_does_in_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds: dict[str, float] = {}
    for place in costs.PER_STEP:
        module, _, path = place.partition(":")
        *outer, name = path.split(".")
        home = functools.reduce(getattr, outer, importlib.import_module(module))
        monkeypatch.setattr(home, name, getattr(home, name))  # put back afterwards
        workers.clocked(place, seconds)
    watch = watchdog.Watch(World(torch.device("cpu")), tmp_path, lambda line: None, 10.0)
    for _ in watch.steps(iter(range(3_000)), 0, 0.0, lambda batch: False):
        assert watch.verdict(time.monotonic()) is None
    for place in ("barlow.watchdog:Doing", "barlow.watchdog:Watch.verdict"):
        assert 0 < seconds[place] < 1


def test_rows_of_steps_and_costs_have_names_of_their_own_and_start_nothing_yet() -> None:
    names = [row.name for row in [*step.rows(False), *step_methods.rows(False), *costs.rows(False)]]
    assert len(set(names)) == len(names)
    assert {"step_resnet18_32px", "step_small", "cost_guard", "cost_log", "cost_monitor_and_doctor"} <= set(names)
    assert all(one.at_most > 0 and one.steps > 0 for one in costs.COSTS)
