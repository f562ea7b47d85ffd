"""The choice of a checkpoint without labels: what is taken, and what that costs."""

import math
from types import ModuleType
from typing import Any

import pytest
from programs import program

from barlow.training import monitor


@pytest.fixture
def checkpoints() -> ModuleType:
    return program("experiments/checkpoints.py")


NAMES = (
    *("rankme", "lidar", "lidar_relative", "effective_rank", "participation_ratio", "alignment", "uniformity"),
    "cosine_between_views",
)


def moment(step: int, knn: float, without: tuple[str, ...] = (), **values: float) -> dict[str, Any]:
    """A line of monitor.jsonl, whose diagnostics are 0.5 where nothing else is said."""
    numbers = dict.fromkeys(NAMES, 0.5) | values
    found = {name: {"value": value} for name, value in numbers.items() if name not in without}
    diagnostics = {"features": found, "embeddings": found}
    return {"step": step, "diagnostics": diagnostics, "scores": {"knn.top1": {"value": knn}}}


def test_regret_is_the_points_that_lie_between_the_best_moment_and_the_chosen_one(checkpoints: ModuleType) -> None:
    run = [moment(0, 0.2, rankme=3), moment(50, 0.7, rankme=9), moment(100, 0.6, rankme=8)]
    ways = checkpoints.WAYS
    assert checkpoints.regret(run, ways["last (the step's number)"]) == pytest.approx(10)
    assert checkpoints.regret(run, ways["RankMe of features"]) == 0
    assert checkpoints.regret(run, lambda each: -each["step"]) == pytest.approx(50)


def test_of_equal_moments_the_last_is_taken(checkpoints: ModuleType) -> None:
    run = [moment(0, 0.2), moment(50, 0.7), moment(100, 0.6)]
    for way in checkpoints.WAYS.values():
        assert checkpoints.regret(run, way) == pytest.approx(10)


def test_a_moment_without_a_reading_is_never_taken(checkpoints: ModuleType) -> None:
    ways = {name: way for name, way in checkpoints.WAYS.items() if not name.startswith("last")}
    for without in (NAMES, ("effective_rank",), ("cosine_between_views",), ("alignment",), ("uniformity",)):
        run = [moment(0, 0.9), moment(100, 0.1, without)]
        for name, way in ways.items():
            assert not math.isnan(way(run[1])), name
            if without == NAMES:
                assert checkpoints.regret(run, way) == 0, name
    backward = moment(0, 0.5, ("effective_rank",), cosine_between_views=-0.5)
    assert checkpoints.signal(backward) == -math.inf, "and not -inf × 0"
    assert ways["RankMe of features"](moment(0, 0.5, rankme=math.nan)) == -math.inf
    assert ways["RankMe of features"]({"step": 0}) == -math.inf


def test_alignment_and_uniformity_are_best_where_they_are_lowest(checkpoints: ModuleType) -> None:
    run = [moment(0, 0.9, alignment=0.1, uniformity=-3.0), moment(100, 0.4, alignment=0.6, uniformity=-1.0)]
    assert checkpoints.regret(run, checkpoints.WAYS["-alignment of features"]) == 0
    assert checkpoints.regret(run, checkpoints.WAYS["-uniformity of features"]) == 0


def test_lidar_is_compared_by_ten_views_of_all_images(checkpoints: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DRAWS", "READING_SECONDS"):
        monkeypatch.setattr(monitor, name, getattr(monitor, name))
    monkeypatch.setattr(monitor.Monitor, "__call__", monitor.Monitor.__call__)
    checkpoints.at_even_steps()
    assert (10, math.inf) == (monitor.DRAWS, monitor.READING_SECONDS)


def test_the_table_has_mean_and_most_of_each_part(checkpoints: ModuleType) -> None:
    run = [moment(0, 0.2), moment(50, 0.7), moment(100, 0.6)]
    worse = [moment(0, 0.2), moment(50, 0.9), moment(100, 0.6)]
    lines = [{"part": "judge", "moments": moments} for moments in (run, worse, run[:2])]
    row = next(row for row in checkpoints.table(lines).splitlines() if "last" in row)
    assert "20.0 (30.0), 2 runs" in row, "of two moments nothing can be chosen"
