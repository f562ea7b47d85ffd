"""Writes what was tried into docs/choosing.md, from results/own_folder.jsonl (`--check` only compares).

python experiments/choosing.py
"""

import sys
from collections.abc import Sequence
from typing import Any

from generated import ROOT, markdown, put_between, write_or_check
from own_folder import SCREENED
from results_line import BUDGET, is_as_shipped, of_barlow

PAGE = ROOT / "docs" / "choosing.md"
BEGIN, END = "<!-- tried: written by experiments/choosing.py -->", "<!-- end of what was tried -->"
Line = dict[str, Any]


def page_with(text: str, lines: Sequence[Line]) -> str:
    """The page with the table put between its markers."""
    return put_between(text, BEGIN, END, table(lines))


def table(lines: Sequence[Line]) -> str:
    """A row for each run, those of one set and one length together."""
    order = {line["images"]: number for number, line in reversed(list(enumerate(lines)))}
    header = ["images", "recipe", "changed", "steps", "views", "kNN", "logistic"]
    ordered = sorted(lines, key=lambda line: (order[line["images"]], line["minutes"], line["recipe"]))
    return markdown(header, map(_row, ordered))


def _row(line: Line) -> list[str]:
    changed = [f"`{key} {value}`" for key, value in line["overrides"].items() if key not in BUDGET]
    if of_barlow(line) and not is_as_shipped(line):
        changed.append(f"as the recipe was at {line['commit'][:7]}")
    scores = line["scores"]["encoder"]
    return [
        line["images"],
        f"`{line['recipe']}`",
        ", ".join(changed) or "–",
        f"{line['steps']:,}",
        f"{line['image_size']} px",
        f"{100 * scores['knn.top1']:.1f}",
        f"{100 * scores['logistic.top1']:.1f}",
    ]


def main() -> int:
    return write_or_check(__doc__ or "", PAGE, [SCREENED], page_with)


if __name__ == "__main__":
    sys.exit(main())
