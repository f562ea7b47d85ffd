"""Two short runs, a healthy one and one that collapses, and every number that docs/reading-a-run.md speaks of.

    python experiments/reading.py --run      # makes both runs: two minutes; lines of results/reading.jsonl
    python experiments/reading.py            # the page's tables and docs/figures/reading.svg, from the lines
    python experiments/reading.py --check    # exits with 1 if the page is not what the lines say

Both are on `shapes` with the same network and the same seed. The healthy one is VICReg. Of the other's loss agreement
is all that is left, which a constant fulfils (`pulled_together`), and it has five times the rate, so that this shows
soon. The numbers are those of one seed: they say what health and a collapse look like, and not how good a recipe is.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import results_line
import torch
from doctor import pulled_together
from figures import FOLDER, curve, panels
from generated import ROOT, markdown, put_between, write_or_check
from own_folder import lines_of

import barlow
from barlow.recipe.request import chosen_recipe
from barlow.record import value_of
from barlow.report.charts import number
from barlow.runs.run import Run
from barlow.training import monitor

PROGRAM, RESULTS = "experiments/reading.py", ROOT / "results" / "reading.jsonl"
PAGE = ROOT / "docs" / "reading-a-run.md"
STEPS, LOG_STEPS = 200, 10
RUNS: dict[str, dict[str, Any]] = {"healthy": {}, "collapsed": {"optim.lr_per_256": 0.02}}
"""What each run changes of `small_vicreg`, beside what makes both small and the second one's objective. (VICReg without
its variance term was tried at this size: embeddings become short, and a quarter of their spread is left.)"""

SMALLER: dict[str, Any] = {
    "encoder.options": {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]},
    "encoder.stages": "last",
    "encoder.whiten": None,
    "data.centre_size": None,
    "method.projector.widths": [256, 256, 256],
    "train.batch_size": 64,
    "train.monitor_images": 200,
    "train.log_steps": LOG_STEPS,
}

MARKERS = {
    "log": ("<!-- log: written by experiments/reading.py -->", "<!-- end of log -->"),
    "monitor": ("<!-- monitor: written by experiments/reading.py -->", "<!-- end of monitor -->"),
}
OUTPUTS = ("features", "embeddings")
STATISTICS = ("std", "dead", "effective_rank", "mean_abs_correlation")
LOGGED: tuple[tuple[str, ...], ...] = (
    ("loss",),
    *((output, name) for output in OUTPUTS for name in STATISTICS),
    *(("views", name) for name in ("difference", "agreement", "chance", "features_agreement", "features_chance")),
    ("moved",),
)
"""The numbers of metrics.jsonl that the page explains."""

KEPT = ("step", "loss", "terms", "reference", "healthy", *OUTPUTS, "views", "moved", "state", "why")
"""What of each logged line is kept."""


def ran(name: str) -> dict[str, Any]:
    """Makes a run, and returns its line."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        changes = SMALLER | RUNS[name]
        asked: dict[str, Any] = {"recipe": "small_vicreg", "steps": STEPS, "seed": 0, "overrides": changes}
        if name == "collapsed":
            asked["objective"] = pulled_together
        barlow.pretrain("shapes", out, progress=False, tell=print, **asked)
        run = Run(out)
        log = [{key: line[key] for key in KEPT if key in line} for line in run.metrics()]
        looks = run.monitored()
        ends = [{key: look[key] for key in ("step", "images", "diagnostics")} for look in (looks[0], looks[-1])]
        sha256 = results_line.recipe_hash(chosen_recipe(**asked).as_dict())
        what = {**asked, "objective": "pulled_together" if name == "collapsed" else "vicreg", "recipe_sha256": sha256}
    return results_line.assembled(name, PROGRAM, {**what, "log": log, "monitor": ends})


def from_to(first: float | None, last: float | None) -> str:
    return f"{number(first)} → {number(last)}"


def logged(lines: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """A row for each number of the log: at its first and at its last line, in both runs, and what is called healthy."""
    for keys in LOGGED:
        ends = [[value_of(line["log"][at], *keys) for at in (0, -1)] for line in lines.values()]
        if all(first is None and last is None for first, last in ends):
            continue
        low, high = (value_of(lines["healthy"]["log"][-1], "healthy", *keys, end) for end in (0, 1))
        if keys == ("loss",):
            low, high = (value_of(lines["healthy"]["log"][-1], "reference", key) for key in ("floor", "unrelated"))
        between = "" if low is None or high is None else f"{number(low)} to {number(high)}"
        yield (f"`{' '.join(keys)}`", *(from_to(*each) for each in ends), between)
    words = [" → ".join(dict.fromkeys(line["state"] for line in run["log"])) for run in lines.values()]
    yield ("`state`", *words, "")


def looked_at(lines: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """A row for each diagnostic of each output, before the first step and after the last, with floor and ceiling."""
    for output in OUTPUTS:
        for name in lines["healthy"]["monitor"][-1]["diagnostics"][output]:
            at = ("diagnostics", output, name)
            ends = [[value_of(look, *at, "value") for look in line["monitor"]] for line in lines.values()]
            bounds = [value_of(lines["healthy"]["monitor"][-1], *at, end) for end in ("floor", "ceiling")]
            yield (f"`{output} {name}`", *(from_to(*each) for each in ends), " to ".join(map(number, bounds)))


def page_with(text: str, lines: Sequence[Mapping[str, Any]]) -> str:
    """The page with the tables of the newest line of each run."""
    newest = {name: line for name in RUNS for line in lines if line["name"] == name}
    log = markdown(("number", "healthy run", "collapsed run", "healthy is"), logged(newest))
    looks = markdown(("diagnostic", "healthy run", "collapsed run", "floor to ceiling"), looked_at(newest))
    text = put_between(text, *MARKERS["log"], log)
    return put_between(text, *MARKERS["monitor"], looks)


def figure(lines: Sequence[Mapping[str, Any]]) -> str:
    """The loss over its first value, the spread and the directions in use of embeddings, in both runs."""
    newest = {name: line["log"] for name in RUNS for line in lines if line["name"] == name}

    def drawn(*keys: str, over_first: bool = False) -> str:
        curves = []
        for log in newest.values():
            values = [value_of(line, *keys) or 0.0 for line in log]
            curves.append([value / (values[0] if over_first else 1.0) for value in values])
        steps = torch.tensor([line["step"] for line in newest["healthy"]])
        most = 1.1 * max(max(values) for values in curves)
        kinds = ("line", "line second")
        return "".join(
            curve(steps[: len(values)], torch.tensor(values), STEPS, most, kind)
            for values, kind in zip(curves, kinds, strict=True)
        )

    titles = ("loss / its first value", "spread of embeddings", "directions in use")
    bodies = [
        drawn("loss", over_first=True),
        drawn("embeddings", "std"),
        drawn("embeddings", "effective_rank"),
    ]
    return panels(titles, bodies, "Loss, spread and directions in use over the steps of a healthy and a collapsed run")


def main() -> int:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--run", nargs="*", choices=RUNS, help="make these runs first, or both")
    asked, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    if asked.run is not None:
        torch.set_num_threads(1)
        monitor.READING_SECONDS = math.inf  # all its images, however slow the machine is
        for name in asked.run or RUNS:
            results_line.append(ran(name), RESULTS)
    failed = write_or_check(__doc__ or "", PAGE, [RESULTS], page_with)
    picture, place = figure(lines_of(RESULTS)), FOLDER / "reading.svg"
    if "--check" in rest:
        return int(failed or place.read_text(encoding="utf-8") != picture)
    place.write_text(picture, encoding="utf-8")
    return failed


if __name__ == "__main__":
    sys.exit(main())
