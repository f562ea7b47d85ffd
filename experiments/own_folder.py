"""What an encoder from one's own folder is worth: recipe × set × seed × minutes on this machine, one line each.

    python experiments/own_folder.py --data ../shared/data --recipes small_barlow_twins small_w_mse --minutes 3
    python experiments/own_folder.py --data ../shared/data --recipes small_w_mse --minutes 3 --steps 1250
    python experiments/own_folder.py --data ../shared/data --recipes small_w_mse --minutes 15 --seeds 0 1 2 --final
    python experiments/own_folder.py --data ../shared/data --recipes lightly/simclr@64 --minutes 15

Choices are made on a part of the training images that is held out: the run is trained on the others, and probes are
fitted on those; their lines go to results/own_folder.jsonl. With `--final` the run has all training images, and the
test images are looked at, once; these lines go to results/results.jsonl, from which README's table is made. What stands
there is not run again, so a table can be filled over several sittings. Baselines are measured with `--final` only: they
are the same for all recipes of a set, and on CIFAR-10 they take longer than the training.

A recipe is barlow's, or one of lightly's examples with the side of its views (lightly_examples.py). Both are measured
by the same probes on the same images. Minutes are those of training; one run at a time has the machine for itself.
Where barlow took longer than its minutes (it fixes its steps beforehand, and the machine may have become slower),
lightly gets as long as barlow took for the same images and seed, so run barlow first.

A set is called as in SETS. Near-duplicates make a random split a test of memory: the slices of one patient in `mri` lie
next to each other, and raw pixels then reach 88 %. There whole clusters of near-duplicates are held out.
"""

import argparse
import hashlib
import json
import os
import shutil
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import lightly_examples
import numpy as np
import results_line
import torch
import yaml
from numpy.typing import NDArray
from torch import nn

import barlow
from barlow import storage
from barlow.data.labelled import read_labelled
from barlow.machine import environment
from barlow.nets.handed_out import HandedOut
from barlow.nets.preprocessing import Preprocessing
from barlow.probes import FeatureSet
from barlow.probes.features import embed
from barlow.probes.report import as_json, evaluate_features
from barlow.recipe.request import DEFAULT, chosen_recipe

ROOT = Path(__file__).resolve().parents[1]
SCREENED = ROOT / "results" / "own_folder.jsonl"
"""Where lines go that choices are made by. Those with `--final` go to results/results.jsonl."""
HELD_OUT = 0.15
"""Share of the training images of each class."""
PROBES = ("knn", "logistic")
THUMBNAIL = 16
ALIKE = 0.95
"""Correlation of two thumbnails from which on they count as near-duplicates."""


@dataclass(frozen=True)
class ImageSet:
    """Images in folders by class, in a tar."""

    tar: str
    train: str
    test: str
    by_clusters: bool = False
    """Whether near-duplicates stay together when a part is held out."""


SETS = {
    "cifar10": ImageSet("cifar10.tar", "cifar10/train", "cifar10/test"),
    "imagenette": ImageSet("imagenette-96.tar", "imagenette-96/train", "imagenette-96/val"),
    "aerial": ImageSet("aerial-96.tar", "aerial-96/train", "aerial-96/test"),
    "mri": ImageSet("mri-128.tar", "mri-128/train", "mri-128/test", by_clusters=True),
}


# --- Sets -------------------------------------------------------------------------------------------------------------


def unpacked(name: str, data: Path, work: Path) -> dict[str, Path]:
    """The folders of a set: all of `train`, what of it is `fit` and what is `held`, and `test`."""
    chosen, place = SETS[name], work / "images" / name
    if not place.is_dir():
        making = place.with_name(f"{name}.making")
        shutil.rmtree(making, ignore_errors=True)
        with tarfile.open(data / chosen.tar) as tar:
            tar.extractall(making / "all", filter="data")
        train = making / "all" / chosen.train
        files = sorted(path for path in train.rglob("*") if path.is_file())
        clusters = near_duplicates(files) if chosen.by_clusters else np.arange(len(files))
        held = held_out(np.array([path.parent.name for path in files]), clusters)
        for path, out in zip(files, held, strict=True):
            link = making / ("held" if out else "fit") / path.relative_to(train)
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)
        making.rename(place)
    folders = {"train": place / "all" / chosen.train, "test": place / "all" / chosen.test}
    return folders | {part: place / part for part in ("fit", "held")}


def near_duplicates(files: Sequence[Path]) -> NDArray[np.int64]:
    """The number of each image's cluster: images are in one cluster if a chain of near-duplicates leads from one to the
    other."""
    from PIL import Image
    from scipy.sparse.csgraph import connected_components

    small = np.stack([np.asarray(Image.open(f).convert("L").resize((THUMBNAIL, THUMBNAIL)), float) for f in files])
    rows = small.reshape(len(files), -1)
    rows -= rows.mean(1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9
    _, clusters = connected_components(rows @ rows.T > ALIKE, directed=False)
    return clusters.astype(np.int64)


def held_out(labels: NDArray[np.str_], clusters: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which images are held out: whole clusters, drawn until HELD_OUT of each class is reached, largest left in.

    A cluster larger than the share of its class stays in the training part.
    """
    held = np.zeros(len(labels), bool)
    order = np.random.default_rng(0).permutation(int(clusters.max()) + 1)
    for label in np.unique(labels):
        of_class = labels == label
        wanted = int(HELD_OUT * of_class.sum())
        taken = 0
        for cluster in order:
            members = (clusters == cluster) & of_class
            if 0 < members.sum() <= wanted - taken:
                held |= members
                taken += int(members.sum())
    crossing = np.intersect1d(clusters[held], clusters[~held])  # clusters with images of two classes
    return held & ~np.isin(clusters, crossing)


# --- Runs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One run: what is asked for on the command line, and so what tells its line from others."""

    images: str
    recipe: str
    minutes: float
    seed: int
    final: bool
    changes: tuple[tuple[str, str], ...] = ()

    @property
    def asked(self) -> dict[str, Any]:
        """What is asked of `barlow.pretrain`."""
        changes = {key: yaml.safe_load(value) for key, value in self.changes}
        return {"recipe": self.recipe, "minutes": self.minutes, "seed": self.seed, "overrides": changes}

    @property
    def recipe_sha256(self) -> str | None:
        """The hash of the recipe as it is now; None of what is not barlow's."""
        if self.recipe.startswith("lightly/"):
            return None
        return results_line.recipe_hash(chosen_recipe(**self.asked).as_dict())

    @property
    def key(self) -> str:
        """A short name of the case, for its folder and its line: that of a recipe that has changed is another."""
        what = [self.images, self.recipe, self.minutes, self.seed, self.final, self.changes, self.recipe_sha256]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        changed = "".join(f" {key}={value}" for key, value in self.changes)
        part = "test" if self.final else "held out"
        return f"{self.images} {self.recipe}{changed}, {self.minutes:g} min, seed {self.seed}, {part}"


def lines_of(results: Path) -> list[dict[str, Any]]:
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    return [json.loads(line) for line in lines]


def known(results: Path) -> set[str]:
    """The keys of the cases whose lines are there."""
    return {key for line in lines_of(results) if (key := line.get("key"))}


def measured(case: Case, data: Path, work: Path, seconds: float) -> dict[str, Any]:
    """Trains and evaluates a case, and returns its line.

    Args:
        seconds: how long a run that is not barlow's takes.
    """
    folders = unpacked(case.images, data, work)
    train, test = (folders[part] for part in (("train", "test") if case.final else ("fit", "held")))
    of_ours = not case.recipe.startswith("lightly/")
    out = work / "runs" / case.key
    found, then = with_barlow(case, train, test, out) if of_ours else with_lightly(case, train, test, seconds)
    content = {
        "key": case.key,
        "images": case.images,
        "recipe": case.recipe,
        "overrides": dict(case.changes),
        "minutes": case.minutes,
        "seed": case.seed,
        "part": "test" if case.final else "held out",
        "recipe_sha256": case.recipe_sha256,
        **found,
    }
    return results_line.assembled(str(case), "experiments/own_folder.py", content, then)


Found = tuple[dict[str, Any], dict[str, Any]]
"""What a line says of a run, and its environment."""


def with_barlow(case: Case, train: Path, test: Path, out: Path) -> Found:
    """A run of barlow; one that is finished already is only evaluated."""
    if not (out / "encoder" / "config.json").exists():
        barlow.pretrain(str(train), out, overwrite=out.exists(), progress=False, **case.asked)
    barlow.evaluate(out, train=str(train), test=str(test), probes=PROBES, baselines=case.final)
    found = results_line.finished(out)
    resolved = yaml.safe_load((out / "recipe.yaml").read_text(encoding="utf-8"))
    return {
        "steps": resolved["train"]["steps"],
        "image_size": resolved["data"]["image_size"],
        "scores": {
            features: {name: score["value"] for name, score in scores.items()}
            for features, scores in found["scores"].items()
        },
        "gain": storage.read_json(out / "evaluation" / "results.json")["gain"],
        "seconds": round(found["seconds"], 1),
        "images_evaluated": found["images_evaluated"],
        **({"learned": learned(out, test)} if (out / "start").is_dir() else {}),
    }, found["environment"]


def learned(run: Path, images: Path) -> dict[str, Any]:
    """Whether a run from given weights learned anything: how far its weights moved, and how alike it sees two views.

    The agreement is the mean cosine of the last stage's features of two random crops of an image, after the mean over
    the images is taken off.
    """
    start, encoder = (_plain(barlow.load_encoder(folder)) for folder in (run / "start", run))
    before, after = ({n: w.detach() for n, w in network.named_parameters()} for network in (start, encoder))
    change = sum(float((after[name] - before[name]).square().sum()) for name in after)
    whole = sum(float(weight.square().sum()) for weight in before.values())
    labelled = read_labelled(str(images), "test", barlow.load_encoder(run).preprocessing, 0.0)
    views = [list(labelled.augmented_views(256, 0, epoch, torch.device("cpu"))) for epoch in (0, 1)]

    @torch.no_grad()
    def agreement(network: nn.Module) -> float:
        first, second = (torch.cat([network(view) for view in batches]) for batches in views)
        mean = (first + second).mean(0) / 2
        return float(nn.functional.cosine_similarity(first - mean, second - mean).mean())

    return {
        "weights_moved": (change / whole) ** 0.5,
        "agreement": {"start": agreement(start), "encoder": agreement(encoder)},
    }


def _plain(encoder: nn.Module) -> nn.Module:
    """The network alone, without the stages and the whitening that it is handed out with."""
    return encoder.network if isinstance(encoder, HandedOut) else encoder


def with_lightly(case: Case, train: Path, test: Path, seconds: float) -> Found:
    """One of lightly's examples, measured by the same probes after so many seconds of training."""
    kind, _, size = case.recipe.removeprefix("lightly/").partition("@")
    begin = time.perf_counter()
    made = lightly_examples.trained(kind, train, size=int(size), minutes=seconds / 60, seed=case.seed)
    took = time.perf_counter() - begin
    seen = Preprocessing(int(size), 1.0, "bicubic", made.mean, made.std, 3)
    learn = read_labelled(str(train), "train", seen, 0.0)
    measured = read_labelled(str(test), "test", seen, 0.0).numbered_like(learn)
    pair = [FeatureSet(embed(made.encoder, part.views(256)), part.labels, part.ids) for part in (learn, measured)]
    report = as_json(evaluate_features({"encoder": (pair[0], pair[1])}, PROBES))
    scores = {
        f"{probe}.{metric}": score["value"]
        for probe, outcome in report["sets"]["encoder"].items()
        for metric, score in outcome["metrics"].items()
    }
    return {
        "steps": made.steps,
        "image_size": int(size),
        "scores": {"encoder": scores},
        "seconds": round(took, 1),
        "images_evaluated": {"train": len(learn), "test": len(measured)},
    }, environment("cpu")


def equal_seconds(case: Case, results: Path) -> float:
    """How long lightly may take: its minutes, or as long as the default recipe took for the same images and seed."""
    alike = [
        line["seconds"]
        for line in lines_of(results)
        if line.get("recipe") == DEFAULT
        and not line["overrides"]
        and all(line[key] == getattr(case, key) for key in ("images", "minutes", "seed"))
    ]
    return float(max([60 * case.minutes, *alike[-1:]]))


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    changes = tuple((key, value) for key, value in arguments.override)
    if arguments.steps is not None:
        changes = (*zip(results_line.BUDGET, ("null", str(arguments.steps)), strict=True), *changes)
    for seed, images, recipe in product(arguments.seeds, arguments.sets, arguments.recipes):
        yield Case(images, recipe, arguments.minutes, seed, arguments.final, changes)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the tars")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--recipes", nargs="+", default=[DEFAULT])
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--steps", type=int, help="as many, and not what --minutes gives on a machine that may be busy")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--final", action="store_true", help="all training images, measured on the test images")
    parser.add_argument("--override", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="as in YAML")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "own_folder", help="images and runs go here")
    parser.add_argument("--results", type=Path, help="file the lines are appended to")
    arguments = parser.parse_args()

    results = arguments.results or (results_line.RESULTS if arguments.final else SCREENED)
    for case in cases(arguments):
        if case.key in known(results):
            print(f"{case}: measured already", flush=True)
            continue
        line = measured(case, arguments.data, arguments.work, equal_seconds(case, results))
        results_line.append(line, results)
        print(case, flush=True)
        for features, scores in line["scores"].items():
            shown = ", ".join(f"{name} {100 * value:.1f}" for name, value in scores.items() if name.endswith("top1"))
            print(f"  {features}: {shown}", flush=True)


if __name__ == "__main__":
    main()
