"""Runs a recipe with several seeds, evaluates each encoder once, and appends one line to results/results.jsonl.

    python experiments/record.py --name cifar10-small_barlow_twins --images CIFAR-10 --recipe small_barlow_twins \
        --train cifar10/train --test cifar10/test --steps 6000 --seeds 0 1 2 --out runs/cifar10

A line holds mean and spread over the seeds beside the baselines, and what the number depends on: recipe and its hash,
steps, commit, hardware, time. Runs that are finished already are not run again, so seeds can be run side by side first
(`--seeds 0` and `--seeds 1` with OMP_NUM_THREADS=1), and a last call with all seeds writes the line.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import results_line
import yaml

import barlow
from barlow.recipe.request import chosen_recipe


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
    results_line.append(line)
    print(json.dumps(line, indent=1))


def one(arguments: argparse.Namespace, seed: int, out: Path) -> dict[str, Any]:
    """One seed: trained if it is not there yet, evaluated if it is not yet."""
    changes = {key: yaml.safe_load(value) for key, value in arguments.override}
    asked = {"recipe": arguments.recipe, "steps": arguments.steps, "batch_size": arguments.batch_size, "seed": seed}
    chosen = chosen_recipe(arguments.train, overrides=changes, **asked)
    if not (out / "encoder" / "config.json").exists():
        barlow.pretrain(arguments.train, out, overrides=changes, overwrite=out.exists(), tell=print, **asked)
    if not (out / "evaluation" / "results.json").exists():
        train = arguments.train if arguments.test else None
        barlow.evaluate(out, train=train, test=arguments.test, tell=print)
    return {"seed": seed, "recipe": chosen.as_dict(), **results_line.finished(out)}


def summary(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The line: mean and spread over the seeds of every score of every set of features."""
    measured = {
        "images": arguments.images,
        "recipe": arguments.recipe,
        "overrides": dict(arguments.override),
        "recipe_sha256": results_line.recipe_hash(rows[0]["recipe"]),
        "steps": arguments.steps,
        "seeds": [row["seed"] for row in rows],
        "scores": results_line.over_seeds([row["scores"] for row in rows]),
        "training_seconds": [round(row["seconds"], 1) for row in rows],
        "images_per_second": [round(row["images_per_second"], 1) for row in rows],
    }
    return results_line.assembled(arguments.name, "experiments/record.py", measured, rows[0]["environment"])


if __name__ == "__main__":
    main()
