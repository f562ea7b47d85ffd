"""Runs a recipe with several seeds, evaluates each encoder once, and appends one line to results/results.jsonl.

    python experiments/record.py --name cifar10-small_barlow_twins --images CIFAR-10 --recipe small_barlow_twins \
        --train cifar10/train --test cifar10/test --steps 6000 --seeds 0 1 2 --out runs/cifar10

A line holds mean and spread over the seeds beside the baselines, and what the number depends on: recipe and its hash,
steps, commit, hardware, time. Runs that are finished already are not run again, so seeds can be run side by side first
(`--seeds 0` and `--seeds 1` with OMP_NUM_THREADS=1), and a last call with all seeds writes the line.
"""

import argparse
import hashlib
import json
import statistics
import time
from pathlib import Path
from typing import Any

import yaml

import barlow
from barlow import storage
from barlow.run import Run, environment
from barlow.train import chosen_recipe

RESULTS = Path(__file__).resolve().parents[1] / "results" / "results.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--name", required=True)
    parser.add_argument("--images", required=True, help="how the table calls the images")
    parser.add_argument("--recipe", default="small_barlow_twins")
    parser.add_argument("--train", required=True, help="images to train on, and the probes' training images")
    parser.add_argument("--test", help="images the probes are measured on, once; a set known by name has its own")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--override", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="as in YAML")
    parser.add_argument("--no-record", action="store_true", help="run and evaluate, but write no line")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    rows = []
    for seed in arguments.seeds:
        out = arguments.out / f"{arguments.name}-seed{seed}"
        rows.append(one(arguments, seed, out))
        print(seed, json.dumps(rows[-1]["scores"]), flush=True)
    if arguments.no_record:
        return
    line = summary(arguments, rows)
    storage.append_line(RESULTS, line)
    print(json.dumps(line, indent=1))


def one(arguments: argparse.Namespace, seed: int, out: Path) -> dict[str, Any]:
    """One seed: trained if it is not there yet, evaluated if it is not yet."""
    changes = {key: yaml.safe_load(value) for key, value in arguments.override}
    asked = {"recipe": arguments.recipe, "steps": arguments.steps, "batch_size": arguments.batch_size, "seed": seed}
    chosen = chosen_recipe(arguments.train, overrides=changes, **asked)
    started = time.monotonic()
    if not (out / "encoder" / "config.json").exists():
        barlow.pretrain(arguments.train, out, overrides=changes, overwrite=out.exists(), tell=print, **asked)
    seconds = time.monotonic() - started
    if not (out / "evaluation" / "results.json").exists():
        train = arguments.train if arguments.test else None
        barlow.evaluate(out, train=train, test=arguments.test, tell=print)
    results = storage.read_json(out / "evaluation" / "results.json")
    metrics = Run.open(out).metrics()
    return {
        "run": out,
        "seed": seed,
        "recipe": chosen.as_dict(),
        "seconds": metrics[-1]["seconds"] if metrics else seconds,
        "images_per_second": statistics.median(m["images_per_second"] for m in metrics),
        "scores": {
            features: {f"{p}.{m}": score for p, outcome in probes.items() for m, score in outcome["metrics"].items()}
            for features, probes in results["sets"].items()
        },
        "environment": storage.read_json(out / "environment.json"),
    }


def summary(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread over the seeds of every score of every set of features."""
    scores: dict[str, dict[str, Any]] = {}
    for features, metrics in rows[0]["scores"].items():
        for metric in metrics:
            values = [row["scores"][features][metric]["value"] for row in rows]
            scores.setdefault(features, {})[metric] = {
                "mean": round(statistics.fmean(values), 4),
                "spread": round(statistics.stdev(values), 4) if len(values) > 1 else None,
                "values": [round(v, 4) for v in values],
            }
    recipe = dict(rows[0]["recipe"])
    recipe.pop("seed")
    recipe["data"] = {**recipe["data"], "sources": []}
    here = environment("cpu")
    return {
        "name": arguments.name,
        "images": arguments.images,
        "program": "experiments/record.py",
        "recipe": arguments.recipe,
        "overrides": dict(arguments.override),
        "recipe_sha256": hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16],
        "steps": arguments.steps,
        "seeds": [row["seed"] for row in rows],
        "scores": scores,
        "training_seconds": [round(row["seconds"], 1) for row in rows],
        "images_per_second": [round(row["images_per_second"], 1) for row in rows],
        "commit": rows[0]["environment"]["commit"],
        "hardware": rows[0]["environment"]["hardware"],
        "versions": here["versions"],
        "date": time.strftime("%Y-%m-%d"),
    }


if __name__ == "__main__":
    main()
