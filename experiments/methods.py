"""Compares methods on CIFAR-10 with one small network, the same images seen, and a rate that was chosen for each.

    python experiments/methods.py --data ../shared/data --tries     # three rates of each method, on held-out images
    python experiments/methods.py --data ../shared/data             # three seeds with the best rate, on the test images
    python experiments/methods.py --data ../shared/data --speed     # seconds a step, on a quiet machine
    python experiments/methods.py --data ../shared/data --all --tries   # the same of all methods of the tables,
    python experiments/methods.py --data ../shared/data --all           # with two tries, and one seed but for the best

Every method is its small recipe with the default recipe's network and the features of its last stage: whitening and
earlier stages would hide what the objective has done. 2,500 steps of 128 images each; a rate is the recipe's, a third
of it, or three times it, and the better mean of kNN and logistic regression on images held out from training decides.
The untrained network is a baseline of the first method's runs. Speed is measured apart, by short runs of all methods in
turn, so that all of them meet the same machine. Lines go to results/methods.jsonl as they come, so a sitting goes on
where the last one ended; experiments/table.py makes README's table of them.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import results_line
from compared_methods import BESIDE, COMPARED, FIRST, SMALL
from own_folder import Case, known, lines_of, measured, unpacked

import barlow
from barlow.recipe import files
from barlow.recipe.request import DEFAULT
from barlow.run import Run

PROGRAM, RESULTS = results_line.METHODS_PROGRAM, results_line.METHODS_RESULTS
ROOT = RESULTS.parents[1]
METHODS = tuple(FIRST)
IMAGES, STEPS, BATCH, SEEDS, BEST = SMALL, 2500, 128, (0, 1, 2), 5
FACTORS = (1.0, 1 / 3, 3.0)
"""Of the recipe's rate. Of the methods that only `--all` runs, the first two."""
RATE = "optim.lr_per_256"
PROBES = ("knn.top1", "logistic.top1")
ROUNDS, TIMED_STEPS, LOGGED = 3, 60, 10
"""Of the runs that speed is measured by: how often, and how long. What is before the first logged line is left out."""


def case_of(recipe: str, factor: float, seed: int, *, final: bool, images: str = IMAGES) -> Case:
    """A run of a method at some multiple of its rate."""
    own, shared = files.read(recipe), files.read(DEFAULT)["encoder"]
    changes = {
        "encoder.name": shared["name"],
        "encoder.options": str(shared["options"]).replace("'", ""),
        "encoder.stages": "last",
        "encoder.whiten": "null",
        "data.centre_size": "null",
        "train.batch_size": str(BATCH),
        RATE: f"{float(own['optim']['lr_per_256']) * factor:.6g}",
    }
    return Case(images, recipe, 0.0, seed, final, tuple(changes.items())).of_steps(STEPS)


def pairs(*, everything: bool) -> list[tuple[str, str]]:
    """Recipes, each with the images that it is run on."""
    if not everything:
        return [(recipe, IMAGES) for recipe in METHODS]
    return [*((recipe, compared.images) for recipe, compared in COMPARED.items()), BESIDE]


def factors(recipe: str, images: str) -> tuple[float, ...]:
    """The multiples of a recipe's rate that are tried."""
    return FACTORS if (recipe, images) in pairs(everything=False) else FACTORS[:2]


def tries(*, everything: bool) -> Iterator[Case]:
    for number in range(len(FACTORS)):
        for recipe, images in pairs(everything=everything):
            if number < len(factors(recipe, images)):
                yield case_of(recipe, factors(recipe, images)[number], 0, final=False, images=images)


def mean_of(line: dict[str, Any]) -> float:
    """What methods and rates are compared by."""
    return fmean(line["scores"]["encoder"][probe] for probe in PROBES)


def best_factor(recipe: str, lines: list[dict[str, Any]], images: str = IMAGES) -> float:
    """The multiple of the recipe's rate that held-out images decided for.

    Raises:
        SystemExit: not all of them have been tried.
    """
    scores = {line["key"]: mean_of(line) for line in lines if "scores" in line}
    tried = factors(recipe, images)
    keys = {factor: case_of(recipe, factor, 0, final=False, images=images).key for factor in tried}
    if missing := [factor for factor, key in keys.items() if key not in scores]:
        raise SystemExit(f"{recipe} was not tried at {missing[0]:.3g} times its rate: run with --tries first")
    return max(tried, key=lambda factor: scores[keys[factor]])


def finals(*, everything: bool) -> Iterator[Case]:
    """With the seeds of the best last, which only then are known."""
    lines = lines_of(RESULTS)

    def case(recipe: str, images: str, seed: int) -> Case:
        return case_of(recipe, best_factor(recipe, lines, images), seed, final=True, images=images)

    for seed in SEEDS:
        for recipe, images in pairs(everything=False):
            yield case(recipe, images, seed)
    if not everything:
        return
    others = [pair for pair in pairs(everything=True) if pair not in pairs(everything=False)]
    for recipe, images in others:
        yield case(recipe, images, SEEDS[0])
    scores = {line["key"]: mean_of(line) for line in lines_of(RESULTS) if "scores" in line}
    on_small = [recipe for recipe, images in pairs(everything=True) if images == IMAGES]
    ordered = sorted(on_small, key=lambda recipe: scores[case(recipe, IMAGES, SEEDS[0]).key], reverse=True)
    for recipe in ordered[:BEST]:
        for seed in SEEDS[1:]:
            yield case(recipe, IMAGES, seed)


def seconds_a_step(recipe: str, data: Path, work: Path) -> float:
    """Of a short run, between its first and its last logged line."""
    case = case_of(recipe, 1.0, 0, final=True).of_steps(TIMED_STEPS)
    asked = {**case.asked, "overrides": {**case.asked["overrides"], "train.log_steps": LOGGED}}
    train, out = unpacked(IMAGES, data, work)["train"], work / "speed"
    first, *_, last = Run.open(
        barlow.pretrain(str(train), out, overwrite=out.exists(), progress=False, **asked).run_folder
    ).metrics()
    return (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])


def measure_speed(data: Path, work: Path) -> None:
    """All methods in turn, some rounds; what is there from before counts."""
    for count in range(1, ROUNDS + 1):
        for recipe in METHODS:
            if sum(line.get("timed") == recipe for line in lines_of(RESULTS)) < count:
                seconds = round(seconds_a_step(recipe, data, work), 5)
                what = {"timed": recipe, "batch": BATCH, "seconds_a_step": seconds}
                results_line.append(results_line.assembled(f"speed of {recipe}", PROGRAM, what), RESULTS)
                print(f"{recipe}: {1000 * seconds:.0f} ms a step", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the tars")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "methods", help="images and runs go here")
    parser.add_argument("--tries", action="store_true", help="choose the rates, on held-out images")
    parser.add_argument("--speed", action="store_true", help="measure seconds a step, and no more")
    parser.add_argument("--all", action="store_true", help="every method of the papers' tables")
    parser.add_argument("--recipes", nargs="+", choices=list(COMPARED), default=list(COMPARED))
    arguments = parser.parse_args()
    if arguments.speed:
        return measure_speed(arguments.data, arguments.work)
    for case in (tries if arguments.tries else finals)(everything=arguments.all):
        if case.recipe not in arguments.recipes or case.key in known(RESULTS):
            continue
        baselines = case.final and (case.recipe, case.images) in ((METHODS[0], IMAGES), BESIDE)
        line = measured(case, arguments.data, arguments.work, program=PROGRAM, baselines=baselines)
        results_line.append(line, RESULTS)
        scores = line["scores"]["encoder"]
        print(f"{case}: {', '.join(f'{100 * scores[probe]:.1f}' for probe in PROBES)}", flush=True)


if __name__ == "__main__":
    main()
