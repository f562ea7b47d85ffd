"""Four losses between images and captions, on frozen features of a small encoder: results/captions.jsonl.

    python experiments/captions.py --data ../shared/data                    # an encoder of 15 minutes, then four losses
    python experiments/captions.py --data ../shared/data --steps 400        # an encoder of 400 steps, four minutes
    python experiments/captions.py --data ../shared/data --encoder runs/x   # the same with another run's encoder
    python experiments/captions.py --data ../shared/data --table            # what is there, as a table

The encoder is trained on the images of imagenette-96 without labels, by `small_barlow_twins`. It is then frozen, and
each small recipe of captions trains a text network and two heads on the first 800 images of flickr8k-1000, with five
captions each; the last 200 are searched. Nothing is chosen by these. A line has the recalls with their intervals, those
of untrained heads, chance, and the processor seconds of all that comes after the encoder: features, training, search.
Runs that are finished are not run again.
"""

import argparse
import csv
import json
import tarfile
import time
from pathlib import Path
from typing import Any

import results_line
from generated import ROOT, markdown

import barlow
from barlow.caption_retrieval import Row, retrieve
from barlow.runs.run import Run, load_recipe_text

PROGRAM = "experiments/captions.py"
RESULTS = ROOT / "results" / "captions.jsonl"
ENCODER_RECIPE, MINUTES = "small_barlow_twins", 15.0
RECIPES = ("small_vicreg_captions", "small_barlow_twins_captions", "small_simclr_captions", "small_vse")
TRAINED = 800
"""Images of flickr8k-1000, in the order of their names; the others are searched."""
EPOCHS, SIDE, BATCH = 20, 112, 128
"""Of the runs on captions. An epoch has one caption of each image."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="has both archives")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "captions")
    parser.add_argument("--encoder", type=Path, help="a run on other images, in place of one that is trained here")
    parser.add_argument("--steps", type=int, help=f"of the encoder that is trained here, in place of {MINUTES:g} min")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--table", action="store_true", help="show what was measured, and measure nothing")
    given = parser.parse_args()
    if not given.table:
        given.out.mkdir(parents=True, exist_ok=True)
        encoder = given.encoder or trained_encoder(given.data, given.out, given.steps)
        lists = split(given.data, given.out)
        for seed in given.seeds:
            for recipe in RECIPES:
                line = measured(recipe, seed, encoder, lists, given.out)
                results_line.append(line, RESULTS)
                print(json.dumps(line["recalls"]), flush=True)
    print(table([json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines() if line]))


def unpacked(name: str, data: Path, out: Path) -> Path:
    """The folder of a set, taken out of its archive once."""
    if not (out / "images" / name).is_dir():
        with tarfile.open(data / f"{name}.tar") as archive:
            archive.extractall(out / "images", filter="data")
    return out / "images" / name


def trained_encoder(data: Path, out: Path, steps: int | None) -> Path:
    """A run on imagenette-96, which has no labels for it."""
    budget = {"minutes": MINUTES} if steps is None else {"steps": steps}
    run = out / f"encoder-{'-'.join(f'{value:g}-{unit}' for unit, value in budget.items())}"
    if not (run / "encoder" / "config.json").exists():
        images = unpacked("imagenette-96", data, out) / "train"
        barlow.pretrain(images, run, recipe=ENCODER_RECIPE, resume=run.exists(), tell=print, progress=False, **budget)
    return run


def split(data: Path, out: Path) -> dict[str, Path]:
    """Two lists of captions, whose images lie beside them."""
    home = unpacked("flickr8k-1000", data, out)
    lists = {part: home / f"{part}.csv" for part in ("train", "test")}
    with open(home / "captions.txt", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    first = set(sorted({row[0] for row in rows})[:TRAINED])
    for part, path in lists.items():
        if not path.exists():
            with open(path, "w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(header)
                writer.writerows(row for row in rows if (row[0] in first) == (part == "train"))
    return lists


def measured(recipe: str, seed: int, encoder: Path, lists: dict[str, Path], out: Path) -> dict[str, Any]:
    """The line of a loss: trained on the frozen encoder, and searched."""
    run, began = out / f"{encoder.name}-{recipe}-seed{seed}", time.process_time()
    overrides = {
        "encoder.init": str(encoder),
        "encoder.name": "auto",
        "encoder.options": {},
        "method.frozen": True,
        "data.image_size": SIDE,
        "train.batch_size": BATCH,
        "train.monitor_images": 0,
    }
    if not (run / "text_encoder" / "config.json").exists():
        about: dict[str, Any] = {"recipe": recipe, "epochs": EPOCHS, "seed": seed, "overrides": overrides}
        barlow.pretrain(lists["train"], run, overwrite=run.exists(), progress=False, tell=print, **about)
    found = retrieve([run], lists["test"], tell=print)
    print(found.table(), flush=True)
    seconds = round(time.process_time() - began, 1)
    last, history = Run.open(run).metrics()[-1], Run.open(encoder).metrics()[-1]
    details = {
        "recipe": recipe,
        "objective": recipe_of(run)["objective"],
        "seed": seed,
        "encoder": {"recipe": ENCODER_RECIPE, "steps": history["step"], "seconds": round(history["seconds"], 1)},
        "images": {"trained": TRAINED, "searched": found.images, "captions_searched": found.captions},
        "epochs": EPOCHS,
        "side": SIDE,
        "processor_seconds": seconds,
        "loss": round(last["loss"], 4),
        **recalls_of(found.rows[0]),
        "chance": {name: round(value, 4) for name, value in found.chance.items()},
    }
    return results_line.assembled(f"captions: {recipe}", PROGRAM, details)


def recipe_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = load_recipe_text(run / "recipe.yaml")
    return content


def recalls_of(row: Row) -> dict[str, Any]:
    """Values and intervals of a run, and values of untrained heads."""
    assert row.untrained is not None
    return {
        "recalls": {name: round(score.value, 4) for name, score in row.recalls.items()},
        "intervals": {name: [round(score.low, 4), round(score.high, 4)] for name, score in row.recalls.items()},
        "untrained": {name: round(score.value, 4) for name, score in row.untrained.items()},
    }


def table(lines: list[dict[str, Any]]) -> str:
    """The newest line of each loss, seed and encoder, in percent."""
    newest = {(line["encoder"]["steps"], line["recipe"], line["seed"]): line for line in lines}
    names = [f"{direction}_recall@{k}" for direction in ("i2t", "t2i") for k in (1, 5, 10)]
    header = [
        "loss",
        "encoder's steps",
        *(name.replace("_recall", " R") for name in names),
        "CPU s",
    ]

    def row(first: list[str], values: dict[str, float], seconds: str) -> list[str]:
        return [*first, *(f"{100 * values[name]:.1f}" for name in names), seconds]

    rows = []
    for steps in dict.fromkeys(steps for steps, _, _ in newest):
        of_encoder = [line for key, line in newest.items() if key[0] == steps]
        for line in of_encoder:
            rows.append(row([f"`{line['recipe']}`", str(steps)], line["recalls"], f"{line['processor_seconds']:.0f}"))
        rows.append(row(["untrained heads", str(steps)], of_encoder[0]["untrained"], "–"))
    if newest:
        rows.append(row(["chance", "–"], next(iter(newest.values()))["chance"], "–"))
    return markdown(header, rows)


if __name__ == "__main__":
    main()
