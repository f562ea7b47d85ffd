"""Can a checkpoint be chosen without labels? Scores of every kind against kNN, by regret, beside taking the last one.

    python experiments/checkpoints.py --data ../shared/data --part explore   # shapes and CIFAR-10
    python experiments/checkpoints.py --data ../shared/data --part judge     # aerial, MRI and Imagenette
    python experiments/checkpoints.py --table                                # from the lines

A run is looked at LOOKS times at even distances by its own monitor: diagnostics of 500 images in fixed views, and kNN
on a held-out part of labelled training images. A way to choose takes one of these moments by the diagnostics alone. Its
regret is the best kNN of the run less the kNN of the moment that was taken, in points. Among the runs are some that are
best in the middle (a rate that is too high, weights that are harmed) and some that collapse. The ways to choose are in
WAYS; `last` and the number of the step are among them. `judge` is to be looked at once, after WAYS is fixed.

A line of results/checkpoints.jsonl is a run with all its moments, so a sitting goes on where the last one ended.
"""

import argparse
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import results_line
import torch
from generated import ROOT, markdown
from own_folder import lines_of, unpacked

import barlow
from barlow.exits import Diverged
from barlow.runs.run import Run
from barlow.training import monitor

PROGRAM, RESULTS = "experiments/checkpoints.py", ROOT / "results" / "checkpoints.jsonl"
STEPS, LOOKS = 600, 12
DRAWS = 10
"""Fixed views of each image. Of few views LiDAR counts noise, too: comparisons take ten (docs/reading-a-run.md)."""
SETS = {"explore": ("shapes", "cifar10"), "judge": ("aerial", "mri", "imagenette")}

COURSES: dict[str, dict[str, Any]] = {
    "barlow_twins": {"recipe": "small_barlow_twins"},
    "vicreg": {"recipe": "small_vicreg"},
    "w_mse": {"recipe": "small_w_mse"},
    "byol": {"recipe": "small_byol"},
    "rate × 30": {"recipe": "small_vicreg", "overrides": {"optim.lr_per_256": 0.18}},
    "variance × 0": {"recipe": "small_vicreg", "overrides": {"objective.variance": 0.0}},
    "weights, harmed": {
        "recipe": "small_barlow_twins",
        "init": "packaged:efficientnet_lite0",
        "overrides": {"optim.lr_per_256": 0.02},
    },
}
"""What each run is: well, best in the middle, or ill."""

Moment = Mapping[str, Any]
"""A line of monitor.jsonl."""


@dataclass(frozen=True)
class Case:
    part: str
    images: str
    course: str

    def __str__(self) -> str:
        return f"{self.part}: {self.course} on {self.images}"


def cases(part: str) -> Iterator[Case]:
    for images in SETS[part]:
        for course in COURSES:
            yield Case(part, images, course)


def ran(case: Case, data: Path, work: Path) -> dict[str, Any]:
    """Makes a run, and returns its line: every moment that its monitor saw."""
    named = case.images == "shapes"
    source = "shapes" if named else str(unpacked(case.images, data, work)["fit"])
    course = COURSES[case.course]
    out = work / "checkpoints"
    shutil.rmtree(out, ignore_errors=True)
    overrides = {
        "encoder.stages": "last",
        "encoder.whiten": None,
        "data.centre_size": None,
        **({} if "init" in course else {"data.image_size": 32}),
        **course.get("overrides", {}),
    }
    more = {"init": course["init"]} if "init" in course else {}
    failed = None
    try:
        barlow.pretrain(
            source,
            out,
            recipe=course["recipe"],
            steps=STEPS // 6 if "init" in course else STEPS,
            seed=0,
            overrides=overrides,
            probe_with=source,
            progress=False,
            **more,
        )
    except Diverged as error:
        failed = str(error).split(". ")[0]
    kept = ("step", "images", "diagnostics", "scores")
    moments = [{key: line[key] for key in kept} for line in Run(out).monitored() if "scores" in line]
    what = {"case": str(case), **case.__dict__, "failed": failed, "moments": moments}
    return results_line.assembled(str(case), PROGRAM, what)


def at_even_steps() -> None:
    """Makes every monitor look LOOKS times at even distances, at DRAWS views of all its images, whatever that costs."""

    def look(self: monitor.Monitor, moment: Any) -> None:
        every = max(1, moment.total // LOOKS)
        if moment.step % every == 0 or moment.step == moment.total:
            moment.settle()
            self.look(moment.step)

    monitor.Monitor.__call__ = look  # type: ignore[method-assign]
    monitor.DRAWS, monitor.READING_SECONDS = DRAWS, math.inf


# --- Ways to choose ---------------------------------------------------------------------------------------------------


def knn(moment: Moment) -> float:
    return float(moment["scores"]["knn.top1"]["value"])


def reading(name: str, of: str = "features", *, sign: int = 1) -> Callable[[Moment], float]:
    """The value of a diagnostic, or with sign -1 its negative, where the lowest is the best; -inf where it is missing
    or no number, so that such a moment is not taken."""

    def value(moment: Moment) -> float:
        found = moment.get("diagnostics", {}).get(of, {}).get(name)
        number = math.nan if found is None or found["value"] is None else sign * float(found["value"])
        return -math.inf if math.isnan(number) else number

    return value


def signal(moment: Moment) -> float:
    """Directions in use, times how much views of an image agree: neither noise nor a collapse has both."""
    rank, agreement = (reading(name)(moment) for name in ("effective_rank", "cosine_between_views"))
    return -math.inf if -math.inf in (rank, agreement) else rank * max(0.0, agreement)


WAYS: dict[str, Callable[[Moment], float]] = {
    "last (the step's number)": lambda moment: moment["step"],
    "RankMe of features": reading("rankme"),
    "RankMe of embeddings": reading("rankme", "embeddings"),
    "LiDAR of features, relative δ": reading("lidar_relative"),
    "LiDAR of embeddings": reading("lidar", "embeddings"),
    "effective rank of features": reading("effective_rank"),
    "participation ratio of features": reading("participation_ratio"),
    "-alignment of features": reading("alignment", sign=-1),
    "-uniformity of features": reading("uniformity", sign=-1),
    "rank × agreement of features": signal,
}
"""Of each, the moment of the highest value is taken."""


def regret(moments: Sequence[Moment], way: Callable[[Moment], float]) -> float:
    """Points of kNN that a choice costs beside the best moment of the run."""
    chosen = max(moments, key=lambda moment: (way(moment), moment["step"]))
    return 100 * (max(map(knn, moments)) - knn(chosen))


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for name, way in WAYS.items():
        cells = []
        for part in SETS:
            found = [
                regret(line["moments"], way) for line in lines if line["part"] == part and len(line["moments"]) > 2
            ]
            cells.append(f"{fmean(found):.1f} ({max(found):.1f}), {len(found)} runs" if found else "–")
        rows.append((name, *cells))
    return markdown(("the highest", *(f"{part}: mean regret (most)" for part in SETS)), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, help="the folder that holds the tars")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "checkpoints", help="images and runs go here")
    parser.add_argument("--part", choices=SETS)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table or arguments.part is None:
        print(table(lines_of(RESULTS)))
        return
    torch.set_num_threads(1)
    at_even_steps()
    known = {line["case"] for line in lines_of(RESULTS)}
    for case in cases(arguments.part):
        if str(case) not in known:
            line = ran(case, arguments.data, arguments.work)
            results_line.append(line, RESULTS)
            print(f"{case}: {[round(100 * knn(moment), 1) for moment in line['moments']]}", flush=True)


if __name__ == "__main__":
    main()
