"""Writes into docs/choosing.md what was tried, and what weights are worth, from results/ (`--check` only compares).

python experiments/choosing.py
"""

import sys
from collections.abc import Mapping, Sequence
from statistics import fmean
from textwrap import fill
from typing import Any

from generated import ROOT, markdown, put_between, write_or_check
from own_folder import PROGRAM, SCREENED
from results_line import BUDGET, RESULTS, is_as_shipped, of_barlow, once_a_seed

from barlow.recipe.request import CONTINUED, DEFAULT

PAGE = ROOT / "docs" / "choosing.md"
BEGIN, END = "<!-- tried: written by experiments/choosing.py -->", "<!-- end of what was tried -->"
WEIGHTS_BEGIN, WEIGHTS_END = "<!-- weights: written by experiments/choosing.py -->", "<!-- end of weights -->"
ON, MINUTES = "aerial", 15
"""The set and the length of the runs by which weights are compared with a start from scratch."""
PROBES = {"knn.top1": "kNN", "logistic.top1": "logistic regression"}
Line = Mapping[str, Any]


def page_with(text: str, lines: Sequence[Line]) -> str:
    """The page with what was tried, and what weights are worth, put between the markers."""
    text = put_between(text, WEIGHTS_BEGIN, WEIGHTS_END, of_weights(lines))
    return put_between(text, BEGIN, END, table([line for line in lines if line.get("part") == "held out"]))


def of_weights(lines: Sequence[Line]) -> str:
    """What going on from weights gave over a start from scratch, and over the weights as they are."""
    own = [line for line in lines if line["program"] == PROGRAM and (line["part"], line["images"]) == ("test", ON)]
    tested = [line for line in own if line["minutes"] == MINUTES and is_as_shipped(line)]
    runs = {name: [line for line in once_a_seed(tested) if line["recipe"] == name] for name in (DEFAULT, CONTINUED)}
    if not all(runs.values()):
        return f"On {ON} images, {MINUTES} minutes from weights and from scratch are not measured yet."
    above, beside = [], []
    for probe, name in PROBES.items():
        scratch, continued = (100 * fmean(line["scores"]["encoder"][probe] for line in runs[of]) for of in runs)
        above.append(f"{continued - scratch:+.1f} points of {name} ({continued:.1f} beside {scratch:.1f})")
        beside.append(_over_start(runs[CONTINUED], probe, name))
    seeds = " and ".join(f"{len(of_one)} of `{name}`" for name, of_one in runs.items())
    return fill(
        f"On {ON} images, {MINUTES} minutes of going on from the packaged weights gave {' and '.join(above)} over "
        f"{MINUTES} minutes from scratch. Over the weights as they are it gave {' and '.join(beside)}. "
        f"(Test images; seeds: {seeds}. README has the table.)",
        160,
        break_on_hyphens=False,
    )


def _over_start(lines: Sequence[Line], probe: str, name: str) -> str:
    """The gain over the better of the start's features, with the interval that was measured, if there is one seed."""
    starts = [max(of[probe] for n, of in line["scores"].items() if n.startswith("start")) for line in lines]
    gain = fmean(line["scores"]["encoder"][probe] - start for line, start in zip(lines, starts, strict=True))
    known = lines[0]["gain"].get(probe)  # over the best of all baselines, which the start is
    if len(lines) > 1 or known is None or abs(known["value"] - gain) > 1e-6:
        return f"{100 * gain:+.1f} of {name}"
    return f"{100 * gain:+.1f} of {name} (95 % interval {100 * known['low']:+.2f} to {100 * known['high']:+.2f})"


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
    return write_or_check(__doc__ or "", PAGE, [SCREENED, RESULTS], page_with)


if __name__ == "__main__":
    sys.exit(main())
