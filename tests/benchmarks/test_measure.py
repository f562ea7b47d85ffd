"""What the benchmarks' programs promise by: ratios of pairs, margins, exit status, lines."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("measure")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results.jsonl")
    yield module
    sys.modules.pop("measure", None)


def row(measure: ModuleType, ours: list[float], theirs: list[float] | None = None, **more: Any) -> Any:
    """A row whose times are given; the first of each is that of the warm-up."""
    mine, others = iter(ours), iter(theirs or [])
    reference = (lambda: next(others)) if theirs else None
    values = {"rounds": len(ours) - 1, "reference_name": "theirs"} | more
    return measure.Row("row", "some work", lambda: next(mine), reference, **values)


def test_the_ratio_is_the_median_over_pairs_that_were_measured_together(measure: ModuleType) -> None:
    line = measure.measured(row(measure, [9, 1, 2, 4], [9, 3, 6, 40], at_least=3.0))
    assert line["ratio"] == 3.0
    assert line["ratios"] == [3.0, 10.0]
    assert line["ours"] == {"median": 2.0, "least": 1.0, "most": 4.0}
    assert line["reference"]["median"] == 6.0
    assert line["promised"] == {"ratio": 3.0}


@pytest.mark.parametrize(("ratio", "missed"), [(2.0, False), (1.83, False), (1.81, True)])
def test_a_ratio_is_missed_by_more_than_a_tenth(measure: ModuleType, ratio: float, missed: bool) -> None:
    line = measure.measured(row(measure, [1, 1], [1, ratio], at_least=2.0))
    assert bool(measure.judged(line, measure.MARGIN)) == missed


@pytest.mark.parametrize(("seconds", "missed"), [(5.0, False), (5.4, False), (5.6, True)])
def test_a_limit_of_time_is_missed_by_more_than_a_tenth(measure: ModuleType, seconds: float, missed: bool) -> None:
    line = measure.measured(row(measure, [1, seconds], at_most_seconds=5.0))
    assert bool(measure.judged(line, measure.MARGIN)) == missed


def test_a_limit_of_memory_is_read_after_the_rounds(measure: ModuleType) -> None:
    line = measure.measured(row(measure, [1, 1], at_most_gb=1.5, memory_gb=lambda: 2.0))
    assert line["memory_gb"] == 2.0
    assert measure.judged(line, measure.MARGIN) == ["2.00 GB, promised 1.5"]


def test_a_miss_ends_in_status_1_and_is_recorded_all_the_same(
    measure: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure.main("some.py", lambda smoke: [row(measure, [1, 1], [1, 1], at_least=2.0)], []) == 1
    printed = capsys.readouterr()
    assert "ratio 1.00 (1.00 to 1.00)  MISSED: ratio 1.00, promised 2" in printed.out
    assert printed.err == "missed: row\n"
    (line,) = [json.loads(text) for text in measure.RESULTS.read_text().splitlines()]
    assert line["program"] == "benchmarks/some.py"
    assert line["ratio"] == 1.0
    assert {"commit", "hardware", "versions", "date", "rounds"} <= set(line)


@pytest.mark.parametrize(("ratio", "said"), [(2.0, "kept"), (1.9, "short, within the margin"), (1.0, "MISSED")])
def test_what_is_short_of_a_promise_is_not_called_kept(
    measure: ModuleType, ratio: float, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    measure.main("some.py", lambda smoke: [row(measure, [1, 1], [1, ratio], at_least=2.0)], ["--no-record"])
    assert f"  {said}" in capsys.readouterr().out


def test_a_quick_look_records_nothing_and_fails_only_where_it_is_several_times_off(measure: ModuleType) -> None:
    seen = []

    def rows(smoke: bool) -> list[Any]:
        seen.append(smoke)
        return [row(measure, [1, 1], [1, ratio], at_least=3.0)]

    ratio = 1.1
    assert measure.main("some.py", rows, ["--smoke"]) == 0
    ratio = 0.9
    assert measure.main("some.py", rows, ["--smoke"]) == 1
    assert seen == [True, True]
    assert not measure.RESULTS.exists()


def test_rows_are_chosen_by_name(measure: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        measure.main("some.py", lambda smoke: [row(measure, [1, 1])], ["--only", "others"])
    assert "no row 'others'; rows: row" in capsys.readouterr().err
    assert measure.main("some.py", lambda smoke: [row(measure, [1, 1])], ["--only", "row", "--no-record"]) == 0
    assert not measure.RESULTS.exists()
