"""Writes README's results table from results/results.jsonl (`--check` only compares).

python experiments/table.py
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results: written by experiments/table.py -->", "<!-- end of results -->"
COLUMNS = {"knn.top1": "kNN", "knn5_euclidean.top1": "5-NN", "logistic.top1": "linear"}


def table() -> str:
    """The table as Markdown: each run's means over the seeds, beside its best baseline."""
    lines = [json.loads(line) for line in (ROOT / "results" / "results.jsonl").read_text().splitlines() if line]
    rows = [
        "| images | recipe | budget | "
        + " | ".join(COLUMNS.values())
        + " | raw pixels (kNN, linear) | untrained (kNN, linear) |",
        "|---|---|---|" + "---|" * (len(COLUMNS) + 2),
    ]
    for line in lines:
        if "scores" in line:
            rows.append(_row(line))
    return "\n".join(rows)


def _row(line: dict[str, Any]) -> str:
    scores = line["scores"]
    minutes = sum(line["training_seconds"]) / len(line["training_seconds"]) / 60
    changed = "".join(f", `{key} {value}`" for key, value in line.get("overrides", {}).items())
    cells = [line["images"], f"`{line['recipe']}`{changed}", f"{line['steps']} steps, {minutes:.0f} min"]
    cells += [_mean(scores["encoder"][metric], len(line["seeds"])) for metric in COLUMNS]
    pixels = scores["pixels"]
    cells.append(f"{_percent(pixels['knn.top1']['mean'])}, {_percent(pixels['logistic.top1']['mean'])}")
    untrained = [scores[name] for name in ("untrained", "untrained_recalibrated") if name in scores]
    best = [max(s[metric]["mean"] for s in untrained) for metric in ("knn.top1", "logistic.top1")]
    cells.append(", ".join(_percent(value) for value in best))
    return "| " + " | ".join(cells) + " |"


def _mean(score: dict[str, Any], seeds: int) -> str:
    spread = f" ± {100 * score['spread']:.1f}" if score["spread"] is not None else ""
    return f"**{_percent(score['mean'])}**{spread} (n = {seeds})"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def readme_with(text: str, content: str) -> str:
    """README's text with the table put between the markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="exit with 1 if README is not up to date")
    arguments = parser.parse_args()
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    wanted = readme_with(text, table())
    if arguments.check:
        return int(wanted != text)
    path.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
