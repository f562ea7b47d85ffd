"""How rows are measured and judged: pairs in turn, when they end, promises, exit status, lines."""

import itertools
import json
import math
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import clock
import lines
import measure


class Busy:
    """A machine of which others take a share."""

    def __init__(self, share: float) -> None:
        self._share = share

    def share(self) -> float:
        return self._share


@pytest.fixture(autouse=True)
def others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[float], None]:
    """Sets what others take of the machine: a half, unless a test says something else. Lines go to a test's folder."""

    def take(share: float) -> None:
        monkeypatch.setattr(measure, "Neighbours", lambda: Busy(share))

    take(0.5)
    monkeypatch.setattr(measure, "gc", types.SimpleNamespace(collect=lambda: 0))  # there is nothing to time here
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results.jsonl")
    return take


def piece(wall: Iterable[float], processor: Iterable[float] | None = None) -> clock.Piece:
    """Work whose costs are given; both clocks agree unless they are told not to."""
    walls, copy = itertools.tee(iter(wall))
    processors = iter(processor) if processor is not None else copy
    return lambda: clock.Cost(next(walls), next(processors))


def always(seconds: float) -> Iterator[float]:
    return itertools.repeat(seconds)


def noisy(middle: float, spread: float, seed: int) -> Iterator[float]:
    draws = np.random.default_rng(seed)
    while True:
        yield middle * float(np.exp(spread * draws.standard_normal()))


def row(ours: Iterable[float], theirs: Iterable[float] | None = None, **more: Any) -> measure.Row:
    values: dict[str, Any] = {"warmups": 0, "reference_name": "theirs", "seconds": math.inf} | more
    reference = None if theirs is None else piece(theirs)
    return measure.Row(name="row", what="some work", ours=piece(ours), reference=reference, **values)


def verdict(chosen: measure.AnyRow, rule: measure.Rule = measure.FULL) -> str:
    return str(measure.measured(chosen, rule)["verdict"])


def test_what_is_clearly_better_or_worse_is_told_after_eight_pairs() -> None:
    for ratio, word in ((2.0, "better"), (1.0, "worse")):
        line = measure.measured(row(noisy(1, 0.05, 0), noisy(ratio, 0.05, 1), at_least=1.5), measure.FULL)
        assert (line["verdict"], line["rounds"]) == (word, 8)


def test_where_the_spread_is_wider_than_the_margin_one_cannot_tell_and_the_row_goes_on_to_its_cap() -> None:
    line = measure.measured(row(noisy(1, 0.8, 0), noisy(1, 0.8, 1), at_least=1.0), measure.TREES)
    assert (line["verdict"], line["rounds"]) == ("cannot tell", 64)
    low, high = line["interval"]
    assert low < 1 / 1.05 < high
    short = row(noisy(1, 0.8, 0), noisy(1, 0.8, 1), at_least=1.0, most_rounds=20)
    assert measure.measured(short, measure.TREES)["rounds"] == 20


def test_noise_that_pairs_share_does_not_hide_a_difference() -> None:
    moments = list(itertools.islice(noisy(1, 0.8, 0), 64))
    line = measure.measured(row(moments, [1.2 * m for m in moments], at_least=1.0), measure.TREES)
    assert (line["verdict"], line["ratio"], line["rounds"]) == ("better", 1.2, 8)


def test_a_row_that_cannot_tell_ends_after_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count(step=5.0)  # it is read after every second pair, from the eighth on
    monkeypatch.setattr(measure, "time", types.SimpleNamespace(perf_counter=lambda: next(now)))
    line = measure.measured(row(noisy(1, 0.8, 0), noisy(1, 0.8, 1), at_least=1.0, seconds=42), measure.TREES)
    assert (line["verdict"], line["rounds"]) == ("cannot tell", 24)


def test_the_sides_take_turns_in_going_first() -> None:
    order: list[str] = []

    def side(name: str) -> clock.Piece:
        def go() -> clock.Cost:
            order.append(name)
            return clock.Cost(1, 1)

        return go

    chosen = measure.Row(name="row", what="", ours=side("a"), reference=side("b"), at_least=1.0, warmups=0)
    measure.measured(chosen, measure.FULL)
    assert "".join(order) == "abba" * 4


def test_warm_ups_are_not_counted() -> None:
    line = measure.measured(row([100, *[1.0] * 8], [1, *[2.0] * 8], at_least=1.0, warmups=1), measure.FULL)
    assert line["ratio"] == 2.0
    assert line["ours"] == {"median": 1.0, "least": 1.0, "most": 1.0, "processor": 1.0}


@pytest.mark.parametrize("rounds", [1, 7])
def test_a_row_of_one_round_is_refused_and_so_is_one_too_short_to_tell(rounds: int) -> None:
    with pytest.raises(ValueError, match=f"'row' would end after {rounds} rounds, .* at least 8"):
        row([1.0], most_rounds=rounds)


def test_waiting_fails_on_a_quiet_machine_and_a_busy_neighbour_does_not(others: Callable[[float], None]) -> None:
    def waits() -> measure.Row:
        ours = piece(always(2.0), always(1.0))
        return measure.Row(name="row", what="", ours=ours, reference=piece(always(1.0)), at_least=1.0)

    assert verdict(waits()) == "cannot tell"
    others(0.01)
    assert verdict(waits()) == "worse"


def test_what_is_found_worse_is_started_anew_and_must_be_worse_again() -> None:
    started = []
    once = [*[2.0] * 8, *always_for(8, 1.0)]
    line = measure.measured(row(once, always(1.0), at_least=1.0, restart=lambda: started.append(1)), measure.FULL)
    assert (line["verdict"], line["worse_at_first"], started) == ("cannot tell", True, [1])
    assert verdict(row(always(2.0), always(1.0), at_least=1.0)) == "worse"


def always_for(rounds: int, seconds: float) -> list[float]:
    return [seconds] * rounds


def test_pieces_are_closed_also_after_an_error() -> None:
    closed = []
    with pytest.raises(StopIteration):
        measure.measured(row([1.0], close=lambda: closed.append(1)), measure.FULL)
    assert closed == [1]


@pytest.mark.parametrize(("seconds", "word"), [(5.0, "better"), (5.4, "better"), (5.6, "worse")])
def test_a_limit_of_time_is_missed_by_more_than_a_tenth(
    seconds: float, word: str, others: Callable[[float], None]
) -> None:
    others(0.0)
    assert verdict(row(always(seconds), at_most_seconds=5.0)) == word


def test_on_a_busy_machine_a_limit_is_missed_only_if_the_work_alone_takes_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measure, "cores", lambda: 2)

    def limited(processor: float) -> measure.Row:
        return measure.Row(name="row", what="", ours=piece(always(9.0), always(processor)), at_most_seconds=5.0)

    assert verdict(limited(8.0)) == "cannot tell"  # two cores that nobody else wants do that in 4 s
    assert verdict(limited(12.0)) == "worse"


def test_processor_seconds_that_fit_do_not_keep_a_limit_that_the_wall_clock_may_have_missed(
    others: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work of one thread has two cores' seconds there, and needs those of one."""
    monkeypatch.setattr(measure, "cores", lambda: 2)
    others(0.0)
    wall = itertools.cycle([5.1, 6.0])
    chosen = measure.Row(name="row", what="", ours=piece(wall, always(5.5)), at_most_seconds=5.0)
    assert verdict(chosen) == "cannot tell"


def test_a_limit_of_memory_is_read_twice() -> None:
    def of(*readings: float) -> dict[str, Any]:
        left = iter(readings)
        chosen = measure.Row(name="row", what="", at_most_gb=1.5, memory_gb=lambda: next(left), most_rounds=8)
        return measure._measured(chosen, measure.FULL)

    assert of(1.0, 1.6)["verdict"] == "better"  # within the margin
    line = of(1.0, 1.8)
    assert (line["verdict"], line["memory_gb"], line["memory"], line["rounds"]) == ("cannot tell", 1.4, [1.0, 1.8], 2)
    assert of(2.0, 2.1)["verdict"] == "worse"


def test_the_cost_of_a_part_is_its_own_processor_seconds_over_those_of_the_whole() -> None:
    def part(own: float) -> measure.Part:
        return measure.Part(
            name="cost",
            what="a guard",
            piece=lambda: (clock.Cost(own, own), clock.Cost(9.0, 2.0)),
            whole_name="the step",
            at_most=0.02,
        )

    line = measure.measured(part(0.01), measure.FULL)
    assert (line["share"], line["interval"], line["verdict"]) == (0.005, [0.005, 0.005], "better")
    assert line["promised"] == {"share": 0.02}
    assert "0.5 % (0.5 to 0.5) of the processor seconds" in lines.described(line)
    assert verdict(part(0.1)) == "worse"
    assert verdict(part(0.0)) == "better"


def test_a_row_without_a_promise_has_no_verdict_and_ends_when_it_has_an_interval() -> None:
    line = measure.measured(row(noisy(1, 0.8, 0), noisy(1, 0.8, 1)), measure.FULL)
    assert (line["verdict"], line["rounds"]) == (None, 8)
    assert "promised" not in lines.described(line)


def test_only_worse_ends_in_status_1_and_everything_is_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    def rows(ratio: float, spread: float) -> measure.Rows:
        return lambda smoke: [row(noisy(1, spread, 0), noisy(ratio, spread, 1), at_least=2.0)]

    assert measure.main("some.py", rows(1.0, 0.01), []) == 1
    printed = capsys.readouterr()
    assert "  worse: promised ratio ≥ 2, with a margin of 10 %; short of it: ratio 1" in printed.out
    assert printed.err == "worse: row\n"
    assert measure.main("some.py", rows(1.8, 2.0), []) == 0
    assert capsys.readouterr().err == "cannot tell: row\n"
    assert measure.main("some.py", rows(3.0, 0.01), []) == 0
    assert "  better: promised ratio ≥ 2, with a margin of 10 %\n" in capsys.readouterr().out
    recorded = [json.loads(text) for text in measure.RESULTS.read_text().splitlines()]
    assert [line["verdict"] for line in recorded] == ["worse", "cannot tell", "better"]
    needed = {"commit", "hardware", "versions", "date", "rounds", "others", "interval", "processor_ratio", "margin"}
    assert all(needed <= set(line) and line["program"] == "benchmarks/some.py" for line in recorded)


def test_a_promise_in_seconds_says_how_fast_the_machine_was(capsys: pytest.CaptureFixture[str]) -> None:
    def rows(smoke: bool) -> list[measure.Row]:
        return [row(always(1.0), None, at_most_seconds=2.0), row(always(1.0), always(1.0), at_least=1.0)]

    assert measure.main("some.py", rows, []) == 0
    of_seconds, of_ratios = map(json.loads, measure.RESULTS.read_text().splitlines())
    assert of_seconds["core_gflops"] > 0.1
    assert "core_gflops" not in of_ratios
    printed = capsys.readouterr().out
    assert f", a thread multiplies at {of_seconds['core_gflops']:.0f} GFLOPS" in printed
    assert printed.count("GFLOPS") == 1


def test_what_is_short_of_a_promise_within_the_margin_is_told() -> None:
    line = measure.measured(row(always(1.0), always(1.9), at_least=2.0), measure.FULL)
    assert line["verdict"] == "better"
    assert lines.described(line).endswith("with a margin of 10 %; short of it: ratio 1.9 of 2")


def test_a_quick_look_has_two_rounds_records_nothing_and_fails_only_where_both_are_several_times_off() -> None:
    def status(*ratios: float) -> int:
        return measure.main("some.py", lambda smoke: [row(always(1.0), [*ratios, *ratios], at_least=3.0)], ["--smoke"])

    assert status(0.4, 0.4) == 0
    assert status(0.2, 0.4) == 0
    assert status(0.2, 0.2) == 1
    assert not measure.RESULTS.exists()


def test_rows_are_chosen_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        measure.main("some.py", lambda smoke: [row(always(1))], ["--only", "others"])
    assert "no row 'others'; rows: row" in capsys.readouterr().err
    assert measure.main("some.py", lambda smoke: [row(always(1))], ["--only", "row", "--no-record"]) == 0
    assert not measure.RESULTS.exists()
