"""Measures rows: us and a reference in alternation, or us against a limit; prints, records, judges.

A program of this folder lists its rows and ends in `sys.exit(measure.main(__file__, rows))`. Its options are those of
`main`. A row is one promise of docs/performance.md; the exit status is 1 when one is missed by more than a tenth, or,
with --smoke, by more than a factor of three: a shared machine must not fail a change that did nothing.
"""

import argparse
import dataclasses
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barlow import storage
from barlow.machine import environment

RESULTS = Path(__file__).resolve().parent / "results.jsonl"
MARGIN, SMOKE_MARGIN = 1.1, 3.0

Timed = Callable[[], float]
"""Does the work once and returns its seconds; what it prepares for that is not counted."""


@dataclass(frozen=True)
class Row:
    """One measurement and what it promises.

    Args:
        name: short, stable: how the row is called in results.jsonl and asked for with --only.
        what: one line for people: the work, its size, threads.
        ours: does our work once and returns its seconds.
        reference: the same of what people use today, or of the bare work; None if the promise is a limit.
        reference_name: what that is.
        at_least: promised seconds of the reference / ours.
        at_most_seconds: promised seconds of ours.
        at_most_gb: promised memory of ours, read by `memory_gb` after the rounds.
        memory_gb: how much more memory our work took, in GB.
        rounds: alternations; medians are taken over them.
        warmups: alternations before them that are not counted.
        work: how much is done in one go, for a rate: (256, "images").
        notes: anything else that belongs to the numbers.
    """

    name: str
    what: str
    ours: Timed
    reference: Timed | None = None
    reference_name: str = ""
    at_least: float | None = None
    at_most_seconds: float | None = None
    at_most_gb: float | None = None
    memory_gb: Callable[[], float] | None = None
    rounds: int = 5
    warmups: int = 1
    work: tuple[int, str] | None = None
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)


Rows = Callable[[bool], Sequence[Row]]
"""From whether a quick look is enough (--smoke) to the rows; smaller sizes or fewer rounds are the program's choice."""


def once(work: Callable[[], object]) -> Timed:
    """Times a piece of work that needs no preparation."""

    def timed() -> float:
        before = time.perf_counter()
        work()
        return time.perf_counter() - before

    return timed


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
    missed = []
    for row in listed:
        if chosen.only and row.name not in chosen.only:
            continue
        line = measured(row)
        verdict = judged(line, SMOKE_MARGIN if chosen.smoke else MARGIN)
        print(described(row, line, verdict), flush=True)
        if not (chosen.smoke or chosen.no_record):
            record(line, program, device)
        if verdict:
            missed.append(row.name)
    if missed:
        print(f"missed: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


def measured(row: Row) -> dict[str, Any]:
    """The row's numbers: medians, spreads (the smallest and largest time), ratio, promise."""
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(row.warmups + row.rounds):
        gc.collect()
        pair = (row.ours(), row.reference() if row.reference else None)
        if number >= row.warmups:
            ours.append(pair[0])
            if pair[1] is not None:
                theirs.append(pair[1])
    line: dict[str, Any] = {"name": row.name, "what": row.what, "rounds": row.rounds, "ours": _times(ours, row.work)}
    if theirs:
        line["reference"] = {"what": row.reference_name, **_times(theirs, row.work)}
        # Of the pairs, not of the medians: a slow moment of the machine slows both sides of a pair.
        ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
        line["ratio"] = _rounded(statistics.median(ratios))
        line["ratios"] = [_rounded(ratios[0]), _rounded(ratios[-1])]
    if row.memory_gb:
        line["memory_gb"] = _rounded(row.memory_gb())
    promises = {"ratio": row.at_least, "seconds": row.at_most_seconds, "memory_gb": row.at_most_gb}
    line["promised"] = {name: value for name, value in promises.items() if value is not None}
    if row.notes:
        line["notes"] = row.notes
    return line


def judged(line: dict[str, Any], margin: float) -> list[str]:
    """The promises that were missed by more than the margin."""
    promised, missed = line["promised"], []
    if "ratio" in promised and line["ratio"] * margin < promised["ratio"]:
        missed.append(f"ratio {line['ratio']:.2f}, promised {promised['ratio']:g}")
    if "seconds" in promised and line["ours"]["median"] > promised["seconds"] * margin:
        missed.append(f"{line['ours']['median']:.2f} s, promised {promised['seconds']:g}")
    if "memory_gb" in promised and line["memory_gb"] > promised["memory_gb"] * margin:
        missed.append(f"{line['memory_gb']:.2f} GB, promised {promised['memory_gb']:g}")
    return missed


def described(row: Row, line: dict[str, Any], verdict: list[str]) -> str:
    """Two or three lines for people."""
    parts = [f"{row.name}: {row.what}", f"  ours {_people(line['ours'])}"]
    if "reference" in line:
        parts[-1] += f"; {row.reference_name} {_people(line['reference'])}"
        parts.append(f"  ratio {line['ratio']:.2f} ({line['ratios'][0]:.2f} to {line['ratios'][1]:.2f})")
    else:
        parts.append(" ")
    if "memory_gb" in line:
        parts[-1] += f" memory {line['memory_gb']:.2f} GB"
    promised = ", ".join(f"{name} {value:g}" for name, value in line["promised"].items())
    if promised:
        short = "short, within the margin" if judged(line, 1.0) else "kept"
        parts[-1] += f"  {'MISSED: ' + '; '.join(verdict) if verdict else short} (promised {promised})"
    return "\n".join(parts)


def record(line: dict[str, Any], program: str, device: str) -> None:
    """Appends the line, with program, machine and versions, to results.jsonl beside this file."""
    here = environment(device)
    storage.append_line(
        RESULTS,
        {
            "program": f"benchmarks/{Path(program).name}",
            **line,
            **{key: here[key] for key in ("commit", "hardware", "versions")},
            "date": time.strftime("%Y-%m-%d"),
        },
    )


def _times(seconds: Sequence[float], work: tuple[int, str] | None) -> dict[str, Any]:
    times = {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}
    content: dict[str, Any] = {name: _rounded(value) for name, value in times.items()}
    if work:
        content[f"{work[1]}_per_second"] = _rounded(work[0] / times["median"])
    return content


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _people(times: dict[str, Any]) -> str:
    def short(seconds: float) -> str:
        return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"

    rates = [f", {value:g} {name.removesuffix('_per_second')}/s" for name, value in times.items() if "_per_" in name]
    return f"{short(times['median'])} ({short(times['least'])} to {short(times['most'])}{''.join(rates)})"
