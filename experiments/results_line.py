"""What every line of results/results.jsonl has, for all programs that write one.

A line says which program measured what, and what the numbers depend on: commit, hardware, versions, date. Numbers of
runs also have the recipe's hash, and mean, spread and values over the seeds.
"""

import hashlib
import json
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from barlow import storage
from barlow.machine import environment
from barlow.recipe.request import chosen_recipe
from barlow.runs.run import Run

RESULTS = Path(__file__).resolve().parents[1] / "results" / "results.jsonl"

BUDGET = ("train.minutes", "train.steps")
"""Keys of a recipe that say how long a run is, and not what it is."""

GPU_PROGRAM = "benchmarks/gpu_cifar10.py"
GPU_RECIPES = {
    "cifar10/barlow_twins": "Barlow Twins",
    "cifar10/vicreg": "VICReg",
    "cifar10/w_mse_2": "W-MSE 2",
    "cifar10/w_mse_4": "W-MSE 4",
}
"""The recipes that GPU_PROGRAM trains, in its order, and their names in README's table."""


METHODS_PROGRAM, METHODS_RESULTS = "experiments/methods.py", RESULTS.with_name("methods.jsonl")
"""What compares methods, and where its lines are."""

PROTOCOLS_PROGRAM, PROTOCOLS_RESULTS = "experiments/protocols.py", RESULTS.with_name("protocols.jsonl")
"""What measures encoders by all protocols, and where its lines are."""


def assembled(
    name: str, program: str, measured: Mapping[str, Any], environment_of_runs: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A line: who measured, what was measured, and what it depends on.

    Args:
        name: of the measurement.
        program: its path from the root of the repository.
        measured: all that is this program's own.
        environment_of_runs: as `barlow.machine.environment` wrote it when the numbers were made, if that was not now.
    """
    then = environment_of_runs or environment("cpu")
    return {
        "name": name,
        "program": program,
        **measured,
        **{key: then[key] for key in ("commit", "hardware", "versions")},
        "date": time.strftime("%Y-%m-%d"),
    }


def append(line: Mapping[str, Any], path: Path = RESULTS) -> None:
    """Adds a line to the results."""
    storage.append_line(path, line)


def finished(run: Path) -> dict[str, Any]:
    """What a trained and evaluated run's folder says: time, rate, every score and how its probe came to it,
    environment."""
    metrics = Run.open(run).metrics()
    results = storage.read_json(run / "evaluation" / "results.json")
    return {
        "seconds": seconds_of(metrics),
        "images_per_second": statistics.median(m["images_per_second"] for m in metrics),
        "scores": {
            features: {f"{p}.{m}": score for p, outcome in probes.items() for m, score in outcome["metrics"].items()}
            for features, probes in results["sets"].items()
        },
        "notes": {
            features: {p: outcome["notes"] for p, outcome in probes.items()}
            for features, probes in results["sets"].items()
        },
        "images_evaluated": {name: images["count"] for name, images in results["images"].items()},
        "warnings": results["warnings"],
        "environment": storage.read_sealed(run / "run.json")["starts"][-1],
    }


def seconds_of(metrics: Sequence[Mapping[str, Any]]) -> float:
    """How long a run has trained: in each of its starts the log's clock begins anew."""
    following = [*(row["seconds"] for row in metrics[1:]), -1.0]
    ends = (row["seconds"] for row, after in zip(metrics, following, strict=True) if after < row["seconds"])
    return float(sum(ends))


def over_seeds(scores: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Mean, spread and values over the seeds of every score of every set of features."""
    summary: dict[str, dict[str, Any]] = {}
    for features, metrics in scores[0].items():
        for metric in metrics:
            values = [of_seed[features][metric]["value"] for of_seed in scores]
            summary.setdefault(features, {})[metric] = {**spread(values), "values": [round(v, 4) for v in values]}
    return summary


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation of one score over the seeds; one seed has no spread."""
    deviation = round(statistics.stdev(values), 4) if len(values) > 1 else None
    return {"mean": round(statistics.fmean(values), 4), "spread": deviation}


def of_barlow(line: Mapping[str, Any]) -> bool:
    """Whether a line is of a recipe of barlow's, and not of another library."""
    return not line["recipe"].startswith("lightly/")


def once_a_seed(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Lines of experiments/own_folder.py without those that were measured again since: of each seed the newest."""
    newest = {
        json.dumps(
            [line[key] for key in ("images", "recipe", "minutes", "seed", "part")]
            + sorted((key, value) for key, value in line["overrides"].items() if key not in BUDGET)
        ): line
        for line in lines
    }
    return list(newest.values())


def is_as_shipped(line: Mapping[str, Any]) -> bool:
    """Whether the recipe that a line is of, with the changes that it names, is still the one that is shipped."""
    budget = {key: line[key] for key in ("minutes" if "minutes" in line else "steps",)}
    changes = {key: yaml.safe_load(value) for key, value in line["overrides"].items()}
    try:
        shipped = chosen_recipe(recipe=line["recipe"], overrides=changes, **budget)
    except ValueError:  # there is no such recipe or key any more
        return False
    return bool(line["recipe_sha256"] == recipe_hash(shipped.as_dict()))


LATER: dict[tuple[str, str], tuple[Any, ...]] = {
    ("data", "value_range"): (None, "auto"),
    ("schedule", "steps"): (None,),
    ("optim", "rate_in_momentum"): (False,),
    ("train", "monitor_images"): (500, 0),
    ("train", "monitor_held_out"): (False,),
    ("train", "stop_if_collapsed"): (False, True),
    ("train", "tensorboard"): (False, True),
    ("method", "passes"): ("each_view",),
    ("method", "large"): (None,),
    ("method", "stop_gradient"): (True,),
    ("method", "with_embeddings"): (False,),
}
"""Keys that recipes got after lines had been written, and the values by which they mean what was meant without them."""


LATER_OF_RULES = (("momentum", True),)
"""The same of the rules of `optim.groups`."""


def recipe_hash(recipe: Mapping[str, Any]) -> str:
    """What tells one recipe from another: all but its seed, which the line has, the folder of its images, and the words
    that say where it comes from."""
    content = {key: value for key, value in recipe.items() if key not in ("seed", "source")}
    content["data"] = {**content["data"], "sources": []}
    for (section, key), neutral in LATER.items():
        if content[section].get(key) in neutral:
            content[section] = {name: value for name, value in content[section].items() if name != key}
    if "groups" in content["optim"]:
        rules = [
            {key: value for key, value in rule.items() if (key, value) not in LATER_OF_RULES}
            for rule in content["optim"]["groups"]
        ]
        content["optim"] = {**content["optim"], "groups": rules}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
