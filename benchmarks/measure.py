"""Measures rows: many short pairs of ours and a reference; prints, records, judges.

A program of this folder lists its rows in a function `rows(smoke)` and ends in
`sys.exit(measure.main(__file__, rows))`. Its options are those of `main`. A row is a promise of docs/performance.md, or
a number without one.

Ours and the reference take turns, and take turns in going first. A row stops as soon as its verdict is clear
(verdicts.py says what that means), and goes on while one cannot tell, up to its cap of seconds and rounds. It is looked
at after 8 pairs, 12, 18, 28, 42, 64: seldom, because each look is another chance to be wrong. With 99 % confidence at
each of at most six looks, a row that is just as good as its line is called worse in at most 3 of 100 calls. The exit
status is 1 when a row is worse. That one cannot tell is no failure: a shared machine must not fail a change that did
nothing.
"""

import argparse
import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clock import Cost, Neighbours, Piece, core_gflops, cores
from lines import described, record
from verdicts import (
    BETTER,
    CANNOT_TELL,
    QUIET,
    WORSE,
    Verdict,
    median_interval,
    of_all,
    of_both_clocks,
    rounds_needed,
    verdict,
)

RESULTS = Path(__file__).resolve().parent / "results.jsonl"


@dataclass(frozen=True)
class Rule:
    """How rows are judged."""

    margin: float
    """A promise may be missed by this factor: the line is the promise divided by it."""
    confidence: float = 0.99
    """Of each interval."""
    most_rounds: int | None = None
    """Instead of the rows' own."""


FULL = Rule(1.1)
SMOKE = Rule(10.0, confidence=0.5, most_rounds=2)
"""Two rounds, and both must be off by a factor of ten."""
TREES = Rule(1.05)
"""An old tree against a new one."""

MEMORY_READINGS = 2
"""Memory has no noise to speak of."""

LEAST_ROUNDS = rounds_needed(FULL.confidence)

Pair = tuple[Cost, Cost | None]
"""Of ours, and of the reference where there is one."""
Ratios = tuple[list[float] | None, list[float] | None]
"""A number for each pair by the wall clock and one by processor seconds, which is 1 where a promise is just kept and
larger where it is more than kept. None: this clock has no part in the promise."""


def nothing() -> None:
    """There is nothing to end."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What every kind of row says of itself.

    Args:
        name: short, stable: how the row is called in results.jsonl and asked for with --only.
        what: one line for people: the work, its size, threads.
        warmups: pairs before the counted ones.
        seconds: cap of time; a row that cannot tell yet goes on until then.
        most_rounds: cap of pairs.
        notes: anything else that belongs to the numbers, asked for when they are there.
        close: ends what the pieces have started; they start it anew when they are called again.
        restart: the same before a second look; None: `close`.

    Raises:
        ValueError: so few rounds that nothing could be told.
    """

    name: str
    what: str
    warmups: int = 1
    seconds: float = 30.0
    most_rounds: int = 64
    notes: Callable[[], Mapping[str, Any]] = dict
    close: Callable[[], object] = nothing
    restart: Callable[[], object] | None = None

    def __post_init__(self) -> None:
        if self.most_rounds < LEAST_ROUNDS:
            raise ValueError(
                f"row {self.name!r} would end after {self.most_rounds} rounds, and one round has no spread; allow at "
                f"least {LEAST_ROUNDS}, the fewest that tell anything with {100 * FULL.confidence:g} % confidence"
            )


@dataclass(frozen=True, kw_only=True)
class Row(Measurement):
    """Our work, beside a reference or a limit.

    Args:
        ours: does our work once.
        reference: the same of what people use today, or the bare work; None if the promise is a limit.
        reference_name: what that is.
        at_least: promised: the reference's seconds / ours.
        at_most_seconds: promised seconds of ours, by the wall clock. Processor seconds are held against it as if all
            cores could share them evenly: if even that takes longer, waiting is no excuse.
        at_most_gb: promised memory of ours.
        memory_gb: how much more memory our work took, in GB; it is read twice, and the verdict is clear if both
            readings are on one side of the line.
        work: how much is done in one go, for a rate: (256, "images").
    """

    ours: Piece | None = None
    reference: Piece | None = None
    reference_name: str = ""
    at_least: float | None = None
    at_most_seconds: float | None = None
    at_most_gb: float | None = None
    memory_gb: Callable[[], float] | None = None
    work: tuple[int, str] | None = None

    @property
    def promised(self) -> dict[str, float]:
        found = {"ratio": self.at_least, "seconds": self.at_most_seconds, "memory_gb": self.at_most_gb}
        return {name: value for name, value in found.items() if value is not None}

    def pair(self, number: int) -> Pair:
        assert self.ours is not None
        gc.collect()
        if self.reference is None:
            return self.ours(), None
        if number % 2 == 0:
            ours = self.ours()
            return ours, self.reference()
        theirs = self.reference()
        return self.ours(), theirs

    def ratios(self, pairs: Sequence[Pair]) -> dict[str, Ratios]:
        found: dict[str, Ratios] = {}
        if self.at_least is not None:
            wall, processor = paired_ratios(pairs)
            found["ratio"] = _divided(wall, self.at_least), _divided(processor, self.at_least)
        if self.at_most_seconds is not None:
            allowed = Cost(self.at_most_seconds, self.at_most_seconds * cores())
            found["seconds"] = paired_ratios([(ours, allowed) for ours, _ in pairs])
        return found


@dataclass(frozen=True, kw_only=True)
class Part(Measurement):
    """What a part of a whole costs: a guard or a monitor, of a step. Its own processor seconds over the whole's.

    (The difference between a step with it and one without would be smaller than the noise of either.)

    Args:
        piece: does the whole once; returns the cost of the part within it, and of the whole.
        whole_name: what that is.
        at_most: promised share.
    """

    piece: Callable[[], tuple[Cost, Cost]]
    whole_name: str
    at_most: float

    @property
    def promised(self) -> dict[str, float]:
        return {"share": self.at_most}

    def pair(self, number: int) -> Pair:
        return self.piece()

    def ratios(self, pairs: Sequence[Pair]) -> dict[str, Ratios]:
        _, processor = paired_ratios(pairs)
        return {"share": (None, _divided(processor, 1 / self.at_most))}


AnyRow = Row | Part
Rows = Callable[[bool], Sequence[AnyRow]]
"""From whether a quick look is enough (--smoke) to the rows; smaller sizes are the program's choice."""


def paired_ratios(pairs: Sequence[Pair]) -> Ratios:
    """The reference's seconds / ours, of each pair: a slow moment of the machine slows both sides of a pair."""
    known = [(ours, theirs) for ours, theirs in pairs if theirs is not None]
    wall = [_over(theirs.wall, ours.wall) for ours, theirs in known]
    processor = [
        _over(theirs.processor, ours.processor)
        for ours, theirs in known
        if theirs.processor is not None and ours.processor is not None
    ]
    return wall, processor if len(processor) == len(known) else None


def _divided(values: list[float] | None, by: float) -> list[float] | None:
    return None if values is None else [value / by for value in values]


def _over(a: float, b: float) -> float:
    return a / b if b else math.inf


def main(program: str, rows: Rows, arguments: Sequence[str] | None = None, device: str = "cpu") -> int:
    """Runs the rows and returns the exit status.

    Args:
        program: its file.
        rows: what it measures.
        arguments: words of the command line; those of this process if not given.
        device: on which the work is done, for the line's hardware.
    """
    parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="a quick look with generous margins; nothing is recorded")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="these rows alone")
    parser.add_argument("--no-record", action="store_true", help=f"write no line to {RESULTS.name}")
    chosen = parser.parse_args(arguments)
    listed = list(rows(chosen.smoke))
    if chosen.only and (unknown := set(chosen.only) - {row.name for row in listed}):
        parser.error(f"no row {min(unknown)!r}; rows: {', '.join(row.name for row in listed)}")
    wanted = [row for row in listed if not chosen.only or row.name in chosen.only]
    about = {"program": f"benchmarks/{Path(program).name}"}
    keep = None if chosen.smoke or chosen.no_record else lambda line: record(about | line, RESULTS, device)
    return run(wanted, SMOKE if chosen.smoke else FULL, keep)


def run(rows: Sequence[AnyRow], rule: Rule, keep: Callable[[dict[str, Any]], object] | None) -> int:
    """Measures rows one after the other and prints them; 1 if one of them is worse than its line, else 0.

    Args:
        rows: which.
        rule: how they are judged.
        keep: takes each line to where it is recorded.
    """
    found: dict[str, list[str]] = {}
    for row in rows:
        line = measured(row, rule)
        if keep and "seconds" in line["promised"]:
            line["core_gflops"] = round(core_gflops(), 1)
        print(described(line), flush=True)
        if keep:
            keep(line)
        found.setdefault(line["verdict"], []).append(row.name)
    for word in (CANNOT_TELL, WORSE):
        if word in found:
            print(f"{word}: {', '.join(found[word])}", file=sys.stderr)
    return 1 if WORSE in found else 0


def measured(row: AnyRow, rule: Rule) -> dict[str, Any]:
    """The row's line: numbers, promise, verdict (None without a promise).

    Where a process happens to have its memory can cost a few percent for as long as it lives, which no number of pairs
    shows. So what is found worse is measured once more, by fresh processes where a row has processes of its own, and
    one cannot tell if it is not worse again.
    """
    try:
        line = _measured(row, rule)
        if line["verdict"] == WORSE:
            (row.restart or row.close)()
            line = _measured(row, rule)
            if line["verdict"] != WORSE:
                line |= {"verdict": CANNOT_TELL, "worse_at_first": True}
        return line
    finally:
        row.close()


def _measured(row: AnyRow, rule: Rule) -> dict[str, Any]:
    line: dict[str, Any] = {"name": row.name, "what": row.what}
    verdicts: list[Verdict] = []
    if isinstance(row, Part) or row.ours is not None:
        pairs, others, found = _pairs(row, rule)
        verdicts += found
        line |= {"rounds": len(pairs), **_numbers(row, pairs, rule.confidence)}
        line |= {} if others is None else {"others": _rounded(others)}
    if isinstance(row, Row) and row.memory_gb is not None:
        readings = [row.memory_gb() for _ in range(MEMORY_READINGS)]
        line |= {"memory_gb": _rounded(statistics.median(readings)), "memory": _range(readings)}
        line.setdefault("rounds", len(readings))
        if row.at_most_gb is not None:
            kept = [row.at_most_gb / reading >= 1 / rule.margin for reading in readings]
            verdicts.append(BETTER if all(kept) else CANNOT_TELL if any(kept) else WORSE)
    line |= {"promised": row.promised, "margin": rule.margin, "verdict": of_all(verdicts) if verdicts else None}
    return line | ({"notes": dict(notes)} if (notes := row.notes()) else {})


def _pairs(row: AnyRow, rule: Rule) -> tuple[list[Pair], float | None, list[Verdict]]:
    """Pairs until the verdict is clear or a cap is reached, the share of the machine that others took, the verdicts."""
    for number in range(row.warmups):
        row.pair(number)
    neighbours, began = Neighbours(), time.perf_counter()
    look, most = rounds_needed(rule.confidence), rule.most_rounds or row.most_rounds
    pairs: list[Pair] = []
    while True:
        pairs.append(row.pair(len(pairs)))
        ended = len(pairs) >= most
        if len(pairs) >= rounds_needed(rule.confidence) and len(pairs) % 2 == 0:
            ended = ended or not row.promised or time.perf_counter() - began > row.seconds
        if not ended and len(pairs) < look:
            continue
        others = neighbours.share()
        quiet = others is not None and others < QUIET
        found = [
            _verdict(ratios, 1 / rule.margin, rule.confidence, quiet, limit=name == "seconds")
            for name, ratios in row.ratios(pairs).items()
        ]
        if ended or CANNOT_TELL not in found:
            return pairs, others, found
        look = math.ceil(0.75 * len(pairs)) * 2


def _verdict(ratios: Ratios, line: float, confidence: float, quiet: bool, *, limit: bool) -> Verdict:
    """Of one promise. A limit in seconds is kept by the wall clock alone: processor seconds that all cores could share
    within it show no more than that it is not out of reach."""
    wall, processor = (None if values is None else verdict(values, line, confidence) for values in ratios)
    if limit and processor == BETTER:
        processor = CANNOT_TELL
    if wall is None:
        assert processor is not None
        return processor
    return of_both_clocks(wall, processor, quiet)


def _numbers(row: AnyRow, pairs: Sequence[Pair], confidence: float) -> dict[str, Any]:
    """What is recorded of the pairs: medians, spreads, ratios by both clocks with their intervals."""
    work = row.work if isinstance(row, Row) else None
    content: dict[str, Any] = {"ours": _times([ours for ours, _ in pairs], work)}
    theirs = [reference for _, reference in pairs if reference is not None]
    if not theirs:
        return content
    content["reference"] = {
        "what": row.whole_name if isinstance(row, Part) else row.reference_name,
        **_times(theirs, work),
    }
    wall, processor = paired_ratios(pairs)
    if isinstance(row, Part):
        assert processor is not None
        shares = [_over(1, ratio) for ratio in processor]
        return content | {"share": _rounded(statistics.median(shares)), "interval": _interval(shares, confidence)}
    assert wall is not None
    content |= {"ratio": _rounded(statistics.median(wall)), "interval": _interval(wall, confidence)}
    if processor is not None:
        content["processor_ratio"] = _rounded(statistics.median(processor))
        content["processor_interval"] = _interval(processor, confidence)
    return content


def _times(costs: Sequence[Cost], work: tuple[int, str] | None) -> dict[str, Any]:
    wall = [cost.wall for cost in costs]
    content: dict[str, Any] = {"median": _rounded(statistics.median(wall))}
    content |= dict(zip(("least", "most"), _range(wall), strict=True))
    processor = [cost.processor for cost in costs if cost.processor is not None]
    if len(processor) == len(costs):
        content["processor"] = _rounded(statistics.median(processor))
    if work:
        content[f"{work[1]}_per_second"] = _rounded(work[0] / statistics.median(wall))
    return content


def _interval(values: Sequence[float], confidence: float) -> list[float]:
    return [_rounded(value) for value in median_interval(values, confidence)]


def _range(values: Sequence[float]) -> list[float]:
    return [_rounded(min(values)), _rounded(max(values))]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
