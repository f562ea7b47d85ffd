"""Compares methods on CIFAR-10 with one small network, the same images seen, and a rate that was chosen for each.

    python experiments/methods.py --data ../shared/data --tries     # three rates of each method, on held-out images
    python experiments/methods.py --data ../shared/data             # three seeds with the best rate, on the test images
    python experiments/methods.py --data ../shared/data --speed     # seconds a step, on a quiet machine
    python experiments/methods.py --data ../shared/data --all --tries   # the same of all methods of the tables,
    python experiments/methods.py --data ../shared/data --all           # with two tries, and one seed but for the best

Every method is its small recipe with the default recipe's network and the features of its last stage: whitening and
earlier stages would hide what the objective has done. 2,500 steps of 128 images each; a rate is the recipe's, a third
of it, or three times it, and the better mean of kNN and logistic regression on images held out from training decides.
What a method asks of its network stays: CMC's has two halves, each half as wide, and CPC's no batch norm.
The untrained network is a baseline of the first method's runs. Speed is measured apart, by short runs of all methods in
turn, so that all of them meet the same machine. Lines go to results/methods.jsonl as they come, so a sitting goes on
where the last one ended; experiments/table.py makes README's table of them.

A run that cannot be made, or whose numbers stop being finite, gets a line that says why, under `failed`, and the next
one begins. Among the tries of a rate it counts as the worst. It is tried again once its line is deleted, or once its
recipe has changed.
"""

import argparse
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import results_line
from compared_methods import BESIDE, COMPARED, FIRST, SMALL
from own_folder import Case, known, lines_of, measured, unpacked

import barlow
from barlow.exits import DIVERGED, USAGE, Collapsed, Diverged, code_of
from barlow.nets.stems import LAB
from barlow.printable import one_line
from barlow.recipe import files
from barlow.recipe.request import DEFAULT
from barlow.runs.run import Run

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


@functools.cache
def content_of(recipe: str) -> dict[str, Any]:
    """What a recipe's file says, read once: there are hundreds of cases of a few recipes."""
    return files.read(recipe)


def network_of(recipe: str) -> tuple[str, dict[str, Any]]:
    """The default recipe's network with what a recipe asks of its own: its name, and its options.

    Norms of another kind stay. A network of two halves stays one, and each half is half as wide as the shared network,
    so that both have as many features.
    """
    own, shared = content_of(recipe)["encoder"], content_of(DEFAULT)["encoder"]
    options = {**own["options"], **shared["options"]}
    if not own["name"].startswith(LAB):
        return shared["name"], options
    return LAB + shared["name"], options | {"channels": [width // 2 for width in options["channels"]]}


def case_of(recipe: str, factor: float, seed: int, *, final: bool, images: str = IMAGES) -> Case:
    """A run of a method at some multiple of its rate."""
    own, (name, options) = content_of(recipe), network_of(recipe)
    changes = {
        "encoder.name": name,
        "encoder.options": str(options).replace("'", ""),
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


def best_factor(recipe: str, lines: list[dict[str, Any]], images: str = IMAGES) -> float | None:
    """The multiple of the recipe's rate that held-out images decided for; None: the runs of all of them failed.

    Raises:
        SystemExit: not all of them have been tried.
    """
    of_key = {line["key"]: line for line in lines if "key" in line}
    tried = factors(recipe, images)
    keys = {factor: case_of(recipe, factor, 0, final=False, images=images).key for factor in tried}
    if missing := [factor for factor, key in keys.items() if key not in of_key]:
        raise SystemExit(f"{recipe} was not tried at {missing[0]:.3g} times its rate: run with --tries first")
    scores = {factor: mean_of(of_key[key]) for factor, key in keys.items() if "scores" in of_key[key]}
    return max(scores, key=scores.__getitem__, default=None)


def finals(*, everything: bool, asked: Sequence[str] = tuple(COMPARED)) -> Iterator[Case]:
    """Of the recipes that are asked for. With the seeds of the best last, which are known once all have been run."""
    lines = lines_of(RESULTS)

    def cases(recipe: str, images: str, seed: int) -> list[Case]:
        factor = best_factor(recipe, lines, images)
        return [] if factor is None else [case_of(recipe, factor, seed, final=True, images=images)]

    first = pairs(everything=False)
    for seed in SEEDS:
        for recipe, images in first:
            if recipe in asked:
                yield from cases(recipe, images, seed)
    if not everything:
        return
    for recipe, images in pairs(everything=True):
        if recipe in asked and (recipe, images) not in first:
            yield from cases(recipe, images, SEEDS[0])
    on_small = [recipe for recipe, images in pairs(everything=True) if images == IMAGES]
    for recipe in best_of(on_small, lines_of(RESULTS)):
        if recipe in asked:
            for seed in SEEDS[1:]:
                yield from cases(recipe, IMAGES, seed)


def best_of(recipes: Sequence[str], lines: list[dict[str, Any]]) -> list[str]:
    """The best by their first seed; none as long as some were not run, as these may be better."""
    of_key, means = {line["key"]: line for line in lines if "key" in line}, dict[str, float]()
    for recipe in recipes:
        try:
            factor = best_factor(recipe, lines)
        except SystemExit:
            return []
        line = {} if factor is None else of_key.get(case_of(recipe, factor, SEEDS[0], final=True).key)
        if line is None:
            return []
        if "scores" in line:
            means[recipe] = mean_of(line)
    return sorted(means, key=means.__getitem__, reverse=True)[:BEST]


def tried_or_failed(case: Case, data: Path, work: Path, *, baselines: bool) -> dict[str, Any]:
    """The line of a run, or the line that says why there is none. What is wrong with the machine is still raised."""
    try:
        return measured(case, data, work, program=PROGRAM, baselines=baselines)
    except (Diverged, Collapsed, ValueError) as error:
        if code_of(error) not in (USAGE, DIVERGED):
            raise
        what = {
            "key": case.key,
            "images": case.images,
            "recipe": case.recipe,
            "overrides": dict(case.changes),
            "seed": case.seed,
            "part": "test" if case.final else "held out",
            "recipe_sha256": case.recipe_sha256,
            "minutes": case.minutes,
            "failed": f"{type(error).__name__}: {one_line(error)}",
        }
        return results_line.assembled(str(case), PROGRAM, what)


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
    asked = arguments.recipes
    chosen = tries(everything=arguments.all) if arguments.tries else finals(everything=arguments.all, asked=asked)
    for case in chosen:
        if case.recipe not in asked or case.key in known(RESULTS):
            continue
        baselines = case.final and (case.recipe, case.images) in ((METHODS[0], IMAGES), BESIDE)
        line = tried_or_failed(case, arguments.data, arguments.work, baselines=baselines)
        results_line.append(line, RESULTS)
        if "failed" in line:
            print(f"{case}: failed, {line['failed']}", flush=True)
            continue
        scores = line["scores"]["encoder"]
        print(f"{case}: {', '.join(f'{100 * scores[probe]:.1f}' for probe in PROBES)}", flush=True)


if __name__ == "__main__":
    main()
