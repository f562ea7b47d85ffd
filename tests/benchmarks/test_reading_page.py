"""The healthy and the collapsed run of docs/reading-a-run.md: what the page shows is what the lines say."""

from types import ModuleType
from typing import Any

import pytest
from programs import program


@pytest.fixture
def reading() -> ModuleType:
    return program("experiments/reading.py")


def test_the_page_and_its_figure_are_those_of_the_lines(reading: ModuleType) -> None:
    lines = reading.lines_of(reading.RESULTS)
    assert {line["name"] for line in lines} == set(reading.RUNS)
    text = reading.PAGE.read_text(encoding="utf-8")
    assert reading.page_with(text, lines) == text
    assert (reading.FOLDER / "reading.svg").read_text(encoding="utf-8") == reading.figure(lines)


def test_the_collapsed_run_says_so_and_the_healthy_one_gives_no_alarm(reading: ModuleType) -> None:
    words = {line["name"]: [each["state"] for each in line["log"]] for line in reading.lines_of(reading.RESULTS)}
    assert set(words["healthy"]) == {"starting", "healthy"}
    assert words["collapsed"][-1] == "collapsed"


def line(name: str, spread: float) -> dict[str, Any]:
    log = [
        {"step": step, "loss": step / 2, "features": {"std": spread}, "embeddings": {"std": spread}, "state": state}
        for step, state in ((10, "starting"), (20, name), (30, name))
    ]
    log[-1] |= {"healthy": {"features": {"std": [0.25, 1.0]}}, "reference": {"floor": 2.0, "unrelated": 20.0}}
    readings = {"std": {"value": spread, "floor": 0.0, "ceiling": 1.0}}
    looks = [{"step": step, "diagnostics": {"features": readings, "embeddings": readings}} for step in (0, 30)]
    return {"name": name, "log": log, "monitor": looks}


def test_a_row_has_both_ends_of_both_runs_and_the_newest_line_counts(reading: ModuleType) -> None:
    lines = [line("collapsed", 0.9), line("healthy", 0.9), line("collapsed", 0.01)]
    markers = [f"{begin}\nold\n{end}" for begin, end in reading.MARKERS.values()]
    page = reading.page_with("\n".join(markers), lines)
    assert "| `loss` | 5 → 15 | 5 → 15 | 2 to 20 |" in page
    assert "| `features std` | 0.9 → 0.9 | 0.01 → 0.01 | 0.25 to 1 |" in page
    assert "| `state` | starting → healthy | starting → collapsed |  |" in page
    assert "| `embeddings std` | 0.9 → 0.9 | 0.01 → 0.01 | 0 to 1 |" in page
    assert "moved" not in page, "what neither run has is left out"
    assert "old" not in page
