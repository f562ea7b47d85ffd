"""Writes docs/performance.md's tables from benchmarks/results.jsonl, which `make bench` fills (`--check` compares).

python experiments/performance.py
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from generated import ROOT, markdown, put_between, write_or_check

sys.path.insert(0, str(ROOT / "benchmarks"))

import lines as results
import measure

LOG, PAGE = ROOT / "benchmarks" / "results.jsonl", ROOT / "docs" / "performance.md"

Line = Mapping[str, Any]

HEADER = ("row", "what", "ours", "reference", "ratio", "by processor seconds", "promised", "verdict", "rounds")


def newest(lines: Sequence[Line], *, gpu: bool) -> list[Line]:
    """The last line of each row, in the order in which the rows first came; of those measured on a GPU, or the rest."""
    chosen = [line for line in lines if ("gpu" in line["hardware"]) == gpu]
    return list({line["name"]: line for line in chosen}.values())


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def side(times: Line) -> str:
    """A median and its spread by the wall clock, with the rate where the work has a unit."""
    rates = [f"; {value:g} {name.removesuffix('_per_second')}/s" for name, value in times.items() if "_per_" in name]
    return f"{seconds(times['median'])} ({seconds(times['least'])} to {seconds(times['most'])}){''.join(rates)}"


def spread(middle: float, ends: Sequence[float], unit: float = 1.0) -> str:
    low, high = (unit * end for end in ends)
    return f"**{unit * middle:.3g}** ({low:.3g} to {high:.3g})"


def ratio(line: Line) -> str:
    """The reference over ours, or the share of a part in its whole."""
    if "share" in line:
        return "–"
    return spread(line["ratio"], line.get("interval") or line["ratios"]) if "ratio" in line else "–"


def by_processor(line: Line) -> str:
    if "share" in line:
        return f"{spread(line['share'], line['interval'], 100)} % of the reference"
    known = "processor_ratio" in line
    return spread(line["processor_ratio"], line["processor_interval"]) if known else "–"


def verdict(line: Line) -> str:
    """As measured. A line of one clock and of few rounds has none: its medians alone are held against the promise."""
    if not line["promised"]:
        return "–"
    short = results.short_of(line)
    if "verdict" in line:
        return f"{line['verdict']}; short of the promise" if short else str(line["verdict"])
    if results.short_of(line, measure.FULL.margin):
        return "medians **missed** it"
    return "medians short, by less than a tenth" if short else "medians kept it"


def table(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        reference = line.get("reference")
        ours = [side(line["ours"])] if "ours" in line else []
        ours += [f"{line['memory_gb']:.2g} GB"] if "memory_gb" in line else []
        ours += [f"a thread multiplies at {line['core_gflops']:.0f} GFLOPS"] if "core_gflops" in line else []
        promised = [results.promise_text(name, value) for name, value in line["promised"].items()]
        rows.append(
            (
                f"`{line['name']}`",
                line["what"],
                "; ".join(ours),
                f"{reference['what']}: {side(reference)}" if reference else "–",
                ratio(line),
                by_processor(line),
                ", ".join(promised) or "–",
                verdict(line),
                str(line["rounds"]),
            )
        )
    return markdown(HEADER, rows)


def where(lines: Sequence[Line]) -> str:
    """Commits, machines and versions behind a table."""
    if not lines:
        return "*not measured*"
    machines = dict.fromkeys(
        f"{line['hardware']['cores']} cores of {line['hardware']['processor']}"
        + (f" and one {line['hardware']['gpu']}" if "gpu" in line["hardware"] else "")
        + f", torch {line['versions']['torch']}"
        for line in lines
    )
    commits = dict.fromkeys(str(line["commit"])[:12] for line in lines)
    return (
        f"Measured at {', '.join(commits)}; {'; '.join(machines)}. Times: medians, with the least and the most. "
        "Ratios: medians with their 99 % interval; in rows whose verdict is on medians, with the least and the most."
    )


def page_with(text: str, lines: Sequence[Line]) -> str:
    for name, gpu in (("cpu", False), ("gpu", True)):
        chosen = newest(lines, gpu=gpu)
        made = f"{where(chosen)}\n\n{table(chosen)}" if chosen else "*not measured*"
        text = put_between(text, f"<!-- {name} -->", "<!-- end -->", made)
    return text


if __name__ == "__main__":
    assert __doc__
    sys.exit(write_or_check(__doc__, PAGE, [LOG], page_with))
