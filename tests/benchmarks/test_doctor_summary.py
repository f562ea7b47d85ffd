"""What the doctor's experiment makes of its runs: who was named rightly, and what so many runs can tell."""

from types import ModuleType
from typing import Any

import pytest
from programs import program


@pytest.fixture
def doctor() -> ModuleType:
    return program("experiments/doctor.py")


def logged(step: int, *, difference: float = 1.0) -> dict[str, Any]:
    return {
        "step": step,
        "loss": 1.0,
        "rate": 0.1,
        "features": {"std": 0.9, "effective_rank": 20.0},
        "embeddings": {"std": 0.9, "effective_rank": 20.0},
        "views": {"difference": difference, "agreement": 0.5, "chance": 0.0},
        "moved": 0.01,
    }


def run(
    illness: str, *, difference: float = 1.0, failed: str | None = None, part: str = "judge", objective: str = "vicreg"
) -> dict[str, Any]:
    lines = [logged(step, difference=difference) for step in range(10, 110, 10)]
    return {"part": part, "illness": illness, "objective": objective, "failed": failed, "lines": lines}


def test_what_is_said_is_the_first_name_or_that_the_numbers_are_none(doctor: ModuleType) -> None:
    assert doctor.said(run("healthy")) == []
    assert doctor.said(run("views identical", difference=0.0)) == ["views identical"]
    assert doctor.said(run("rate too high", failed="step 7: the loss is nan")) == ["not finite"]
    assert doctor.said(run("x", difference=0.0, failed="step 7: the loss is nan")) == ["views identical"]
    assert doctor.said(run("healthy") | {"lines": []}) == []


def test_healthy_runs_are_right_where_nothing_is_said_and_ill_ones_where_they_are_named(doctor: ModuleType) -> None:
    assert doctor.is_right(run("healthy"))
    assert not doctor.is_right(run("healthy", difference=0.0))
    assert not doctor.is_right(run("healthy", failed="step 7"))
    assert doctor.is_right(run("views identical", difference=0.0))
    assert not doctor.is_right(run("views identical"))
    assert not doctor.is_right(run("collapse", difference=0.0)), "another name is no right one"
    assert doctor.is_right(run("rate too high", failed="step 7"))
    assert not doctor.is_right(run("collapse", failed="step 7"))


def test_the_bound_is_the_share_at_which_so_few_alarms_are_met_once_in_twenty_times(doctor: ModuleType) -> None:
    assert doctor.bound(30) == pytest.approx(1 - 0.05 ** (1 / 30), abs=1e-12)
    assert doctor.bound(30) == pytest.approx(0.0950, abs=1e-4)
    scipy = pytest.importorskip("scipy.stats")
    for runs, alarms in ((30, 1), (100, 3), (7, 6)):
        assert doctor.bound(runs, alarms) == pytest.approx(scipy.beta.ppf(0.95, alarms + 1, runs - alarms), abs=1e-9)
    assert doctor.bound(5, 5) == 1


def test_the_summary_has_the_bound_of_each_part(doctor: ModuleType) -> None:
    lines = [run("healthy")] * 30 + [run("views identical", difference=0.0)] * 3 + [run("collapse")]
    assert list(doctor.summary(lines)) == [
        "judge: 3 of 4 ill runs are named rightly (75.0 %)",
        "judge: 0 of 30 healthy runs have a false alarm; with 95 % confidence, less than 9.5 % of such runs have one",
    ]
    (alarm,) = doctor.summary([run("healthy"), run("healthy", difference=0.0, part="judge")])
    assert alarm.startswith("judge: 1 of 2 healthy runs have a false alarm")
    assert list(doctor.summary([])) == []
