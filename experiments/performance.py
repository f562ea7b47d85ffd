"""Writes docs/performance.md's tables from benchmarks/results.jsonl, which `make bench` fills (`--check` compares).

python experiments/performance.py
"""

import re
import sys
from collections.abc import Sequence
from typing import Any

from generated import ROOT, markdown, write_or_check

sys.path.insert(0, str(ROOT / "benchmarks"))

import measure

LOG, PAGE = ROOT / "benchmarks" / "results.jsonl", ROOT / "docs" / "performance.md"

Line = dict[str, Any]

HEADER = ("row", "what", "ours", "reference", "ratio", "promised", "rounds")


def newest(lines: Sequence[Line], *, gpu: bool) -> list[Line]:
    """The last line of each row, in the order in which the rows first came; of those measured on a GPU, or the rest."""
    chosen = [line for line in lines if ("gpu" in line["hardware"]) == gpu]
    return list({line["name"]: line for line in chosen}.values())


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def side(times: Line) -> str:
    """A median and its spread, with the rate where the work has a unit."""
    rates = [f"; {value:g} {name.removesuffix('_per_second')}/s" for name, value in times.items() if "_per_" in name]
    return f"{seconds(times['median'])} ({seconds(times['least'])} to {seconds(times['most'])}){''.join(rates)}"


def promised(line: Line) -> str:
    says = {"ratio": "ratio ≥ {:.3g}", "seconds": "≤ {:g} s", "memory_gb": "≤ {:g} GB"}
    cells = ", ".join(says[name].format(value) for name, value in line["promised"].items()) or "–"
    if measure.judged(line, measure.MARGIN):
        return f"{cells}; **missed**"
    return f"{cells}; short, by less than a tenth" if measure.judged(line, 1.0) else cells


def table(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        reference = line.get("reference")
        ratio = f"**{line['ratio']:.3g}** ({line['ratios'][0]:.3g} to {line['ratios'][1]:.3g})" if reference else "–"
        memory = f"; {line['memory_gb']:.2g} GB" if "memory_gb" in line else ""
        against = f"{reference['what']}: {side(reference)}" if reference else "–"
        rows.append(
            (
                f"`{line['name']}`",
                line["what"],
                side(line["ours"]) + memory,
                against,
                ratio,
                promised(line),
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
    return f"Measured at {', '.join(commits)}; {'; '.join(machines)}. Medians, with the least and the most."


def page_with(text: str, lines: Sequence[Line]) -> str:
    for name, gpu in (("cpu", False), ("gpu", True)):
        chosen = newest(lines, gpu=gpu)
        made = f"<!-- {name} -->\n{where(chosen)}\n\n{table(chosen)}\n<!-- end -->" if chosen else ""
        made = made or f"<!-- {name} -->\n*not measured*\n<!-- end -->"
        text, count = re.subn(rf"<!-- {name} -->.*?<!-- end -->", lambda _, g=made: g, text, flags=re.DOTALL)
        assert count == 1, name
    return text


if __name__ == "__main__":
    assert __doc__
    sys.exit(write_or_check(__doc__, PAGE, LOG, page_with))
