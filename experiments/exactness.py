"""Writes the tables of docs/exactness.md from results/nightly.jsonl, which `make nightly` fills (`--check` compares).

python experiments/exactness.py
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from generated import ROOT, markdown, put_between, write_or_check

LOG, PAGE = ROOT / "results" / "nightly.jsonl", ROOT / "docs" / "exactness.md"

Line = Mapping[str, Any]


def of(lines: Sequence[Line], kind: str) -> list[Line]:
    """The lines of a kind, in the order in which they were written; of equal measurements the newest."""
    names = ("name", "objective", "state", "precision", "processes", "rows_in_memory", "sizes")
    newest = {tuple(str(line.get(key)) for key in names): line for line in lines if line["kind"] == kind}
    return list(newest.values())


def precision(lines: Sequence[Line]) -> str:
    found: dict[str, list[Line]] = {}
    for line in of(lines, "precision"):
        found.setdefault(line["objective"], []).append(line)
    rows = []
    for objective, measured in found.items():
        cells = [objective]
        for dtype in ("float64", "float32"):
            of_type = [m for m in measured if m["precision"] == dtype]
            worst = max(of_type, key=lambda m: m["worst_relative_error"], default=None)
            cells.append(
                f"{worst['worst_relative_error']:.1e} ({worst['at']}, {worst['state']})" if worst else "not measured"
            )
        cells.append(str(sum(m["limited_by_reference"] for m in measured)))
        rows.append(cells)
    return markdown(["objective", "worst in float64", "worst in float32", "limited by the reference"], rows)


def processes(lines: Sequence[Line]) -> str:
    found: dict[str, dict[int, float]] = {}
    for line in of(lines, "processes"):
        if line["error"] is not None:
            found.setdefault(line["name"], {})[line["processes"]] = line["error"]
    rows = (
        [name, *(f"{errors[n]:.1e}" if n in errors else "not measured" for n in (2, 3))]
        for name, errors in sorted(found.items())
    )
    return markdown(["what", "two processes", "three"], rows)


def chunks(lines: Sequence[Line]) -> str:
    rows = (
        [line["name"], f"{line['rows_in_memory']} of {line['rows']}", f"{line['error']:.1e}"]
        for line in of(lines, "chunks")
    )
    return markdown(["objective", "rows in memory", "difference from the whole batch (float64)"], rows)


def steps(lines: Sequence[Line]) -> str:
    """Every pair of a method and an objective: the worst tensor after six steps, by how the batch was shared."""
    found: dict[str, dict[str, float]] = {}

    def put(name: str, column: str, error: float) -> None:
        cells = found.setdefault(name, {})
        cells[column] = max(error, cells.get(column, 0.0))

    for line in of(lines, "steps in chunks"):
        put(line["name"], "chunks", line["error"])
    for line in of(lines, "steps in processes"):
        name, _, norm = line["name"].partition(", with")
        put(
            name,
            {"out batch norm": "without", " batch norm": "with", " grouped batch norm": "grouped"}[norm],
            line["error"],
        )
    columns = ("chunks", "without", "with", "grouped")
    rows = (
        [name, *(f"{cells[column]:.1e}" if column in cells else "–" for column in columns)]
        for name, cells in sorted(found.items())
    )
    header = [
        "method and objective",
        "chunks of 5 of 12",
        "2 and 3 processes",
        "the same, with batch norm",
        "in groups",
    ]
    return markdown(header, rows)


def cost(lines: Sequence[Line]) -> str:
    rows = [
        [line["name"], f"{line['ratio']} × the ordinary step ({line['spread'][0]} to {line['spread'][1]})"]
        for line in of(lines, "cost of exactness")
    ]
    rows += [
        [f"{line['name']}, ResNet-18 at 96 px, LARS", f"{line['gigabytes']} GB at most, {line['seconds']} s for a step"]
        for line in of(lines, "memory")
    ]
    return markdown(["what", "cost, on two CPU cores"], rows)


def recipes(lines: Sequence[Line]) -> str:
    rows = (
        [
            f"`{line['name']}`",
            ", ".join(f"`{key} {value}`" for key, value in line["changes"].items() if key != "train.log_steps"),
            f"{line['first']:g} → {line['last']:g}",
            f"{line['images_per_second']:.0f}",
        ]
        for line in of(lines, "published recipe")
    )
    return markdown(["recipe", "changed", "mean loss of the first and last 20 steps", "images/s"], rows)


def mutations(lines: Sequence[Line]) -> str:
    rows = (
        [line["name"], f"`{line['by'][0]}`" if line["caught"] else "**not caught**"]
        for line in of(lines, "mutation")
        if line["name"] != "no fault"
    )
    return markdown(["fault", "caught by, among others"], rows)


def environment(lines: Sequence[Line]) -> str:
    found = [line for line in lines if line["kind"] == "environment"]
    commits = dict.fromkeys(str(line["commit"])[:12] for line in found)
    machines = dict.fromkeys(f"{line['cores']} cores of {line['processor']}, torch {line['torch']}" for line in found)
    return f"Measured at {', '.join(commits)}; {'; '.join(machines)}." if found else "*not measured*"


SECTIONS: dict[str, Callable[[Sequence[Line]], str]] = {
    "environment": environment,
    "precision": precision,
    "processes": processes,
    "chunks": chunks,
    "steps": steps,
    "cost": cost,
    "recipes": recipes,
    "mutations": mutations,
}


def page_with(text: str, lines: Sequence[Line]) -> str:
    for name, table in SECTIONS.items():
        text = put_between(text, f"<!-- {name} -->", "<!-- end -->", table(lines))
    return text


def main() -> int:
    return write_or_check(__doc__, PAGE, [LOG], page_with)


if __name__ == "__main__":
    sys.exit(main())
