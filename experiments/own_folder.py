"""What an encoder from one's own folder is worth: recipe × set × seed × minutes on this machine, one line each.

    python experiments/own_folder.py --data ../shared/data --recipes small_w_mse lightly/simclr@64 --rates
    python experiments/own_folder.py --data ../shared/data --recipes small_w_mse --minutes 3
    python experiments/own_folder.py --data ../shared/data --recipes small_w_mse --minutes 15 --seeds 0 1 2 --final

Minutes are made into steps before anything is compared. `--rates` measures how many steps each recipe makes in a minute
on a quiet machine: short runs in turn, so that all of them meet the same machine. The lines go to results/rates.jsonl,
and a rate that is there is not measured again. From then on `--minutes 15` means the steps of fifteen such minutes. So
a run may take its time beside other work, or on another machine, and is still the run of fifteen minutes on the machine
whose rates these are. `--steps` asks for another number; the line's minutes are then those that these steps take by the
rates.

Choices are made on a part of the training images that is held out: the run is trained on the others, and probes are
fitted on those; their lines go to results/own_folder.jsonl. With `--final` the run has all training images, and the
test images are looked at, once; these lines go to results/results.jsonl, from which README's table is made. What stands
there is not run again, so a table can be filled over several sittings. Baselines are measured with `--final` only, as
they are the same for all recipes of a set, and on CIFAR-10 take longer than the training; or with `--baselines`, by
which a part that is held out can be compared with raw pixels, too.

A recipe is barlow's, or one of lightly's examples with the side of its views (lightly_examples.py). Both are measured
by the same probes on the same images.

A set is called as in SETS. Near-duplicates make a random split a test of memory: the slices of one patient in `mri` lie
next to each other, and raw pixels then reach 88 %. There whole clusters of near-duplicates are held out.
"""

import argparse
import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
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
from barlow.runs.run import Run

ROOT = Path(__file__).resolve().parents[1]
SCREENED = ROOT / "results" / "own_folder.jsonl"
"""Where lines go that choices are made by. Those with `--final` go to results/results.jsonl."""
HELD_OUT = 0.15
"""Share of the training images of each class."""
PROGRAM = "experiments/own_folder.py"
RATES = ROOT / "results" / "rates.jsonl"
ROUNDS = 2
RATED_MINUTES, RATED_STEPS = 0.5, 20
"""Length of the runs that rates are measured by: of barlow's recipes, and of lightly's examples."""
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
    other.

    By plain correlation, where `barlow.data.near_duplicates` weights fine structure and looks for mirrored images too:
    its clusters of `mri` are others, and what is held out, and with it every line of results on that set, depends on
    these.
    """
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
    def of_lightly(self) -> bool:
        return not results_line.of_barlow({"recipe": self.recipe})

    @property
    def asked(self) -> dict[str, Any]:
        """What is asked of `barlow.pretrain`."""
        changes = {key: yaml.safe_load(value) for key, value in self.changes}
        return {"recipe": self.recipe, "minutes": self.minutes, "seed": self.seed, "overrides": changes}

    @property
    def recipe_sha256(self) -> str | None:
        """The hash of the recipe as it is now; None of what is not barlow's."""
        return None if self.of_lightly else results_line.recipe_hash(chosen_recipe(**self.asked).as_dict())

    @property
    def key(self) -> str:
        """A short name of the case, for its folder and its line: that of a recipe that has changed is another."""
        what = [self.images, self.recipe, self.minutes, self.seed, self.final, self.changes, self.recipe_sha256]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]

    def of_steps(self, steps: int) -> "Case":
        """The same with a number of steps in place of its minutes, which say from now on what the steps stand for."""
        budget = zip(results_line.BUDGET, ("null", str(steps)), strict=True)
        return replace(self, changes=(*budget, *self.changes))

    def __str__(self) -> str:
        changed = "".join(f" {key}={value}" for key, value in self.changes)
        part = "test" if self.final else "held out"
        return f"{self.images} {self.recipe}{changed}, {self.minutes:g} min, seed {self.seed}, {part}"


def lines_of(results: Path) -> list[dict[str, Any]]:
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    return [json.loads(line) for line in lines]


def known(results: Path, *, baselines: bool = False) -> set[str]:
    """The keys of the cases whose lines are there; with `baselines` of those alone that have some."""
    lines = (line for line in lines_of(results) if not baselines or line.get("gain"))
    return {key for line in lines if (key := line.get("key"))}


def measured(
    case: Case, data: Path, work: Path, *, program: str = PROGRAM, baselines: bool | None = None
) -> dict[str, Any]:
    """Trains and evaluates a case, and returns its line.

    Args:
        case: the run.
        data: the folder that holds the tars.
        work: images and runs go here.
        program: the one that asks, as the line names it.
        baselines: whether they are measured; None: where the test images are looked at.
    """
    baselines = case.final if baselines is None else baselines
    folders = unpacked(case.images, data, work)
    train, test = (folders[part] for part in (("train", "test") if case.final else ("fit", "held")))
    out = work / "runs" / case.key
    found, then = (
        with_lightly(case, train, test) if case.of_lightly else with_barlow(case, train, test, out, baselines=baselines)
    )
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
    return results_line.assembled(str(case), program, content, then)


Found = tuple[dict[str, Any], dict[str, Any]]
"""What a line says of a run, and its environment."""


def with_barlow(case: Case, train: Path, test: Path, out: Path, *, baselines: bool) -> Found:
    """A run of barlow; one that was interrupted is gone on with, and one that is finished is only evaluated."""
    barlow.pretrain(str(train), out, resume=True, progress=False, **case.asked)
    barlow.evaluate(out, train=str(train), test=str(test), protocols=PROBES, baselines=baselines)
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
    seen: Any = barlow.load_encoder(run).preprocessing
    labelled = read_labelled(str(images), "test", seen, 0.0)
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


def with_lightly(case: Case, train: Path, test: Path) -> Found:
    """One of lightly's examples, measured by the same probes."""
    made = trained_by_lightly(case, train, case.asked["overrides"]["train.steps"])
    seen = Preprocessing(made.size, 1.0, "bicubic", made.mean, made.std, 3)
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
        "image_size": made.size,
        "scores": {"encoder": scores},
        "seconds": round(made.seconds, 1),
        "images_evaluated": {"train": len(learn), "test": len(measured)},
    }, environment("cpu")


def trained_by_lightly(case: Case, train: Path, steps: int) -> lightly_examples.Trained:
    kind, _, size = case.recipe.removeprefix("lightly/").partition("@")
    return lightly_examples.trained(kind, train, size=int(size), steps=steps, seed=case.seed)


# --- Rates ------------------------------------------------------------------------------------------------------------


def rated(case: Case, data: Path, work: Path) -> dict[str, Any]:
    """Runs a case for half a minute, and returns the line that says how many steps a minute makes."""
    train, out = unpacked(case.images, data, work)["train"], work / "rates"
    if case.of_lightly:
        made = trained_by_lightly(case, train, RATED_STEPS)
        steps, seconds = made.steps, made.seconds
    else:
        run = barlow.pretrain(str(train), out, overwrite=out.exists(), progress=False, **case.asked).run_folder
        last = Run.open(run).metrics()[-1]
        steps, seconds = last["step"], last["seconds"]
    return results_line.assembled(
        f"rate of {case.recipe} on {case.images}",
        PROGRAM,
        {**what_is_rated(case), "steps": steps, "seconds": round(seconds, 2), "steps_a_minute": 60 * steps / seconds},
    )


def what_is_rated(case: Case) -> dict[str, Any]:
    """What a rate is of: as the recipe is now, whatever the length and seed of a run."""
    case = replace(case, minutes=RATED_MINUTES, seed=0)
    changes = dict(case.changes)
    return {"images": case.images, "recipe": case.recipe, "overrides": changes, "recipe_sha256": case.recipe_sha256}


def rates_of(case: Case, path: Path = RATES) -> list[float]:
    """Every rate that was measured of a case, steps in a minute."""
    what = what_is_rated(case)
    return [line["steps_a_minute"] for line in lines_of(path) if what.items() <= line.items()]


def with_steps(case: Case, steps: int | None, rates: Path = RATES) -> Case:
    """A case with the steps of its minutes; or with those that were asked for, and the minutes that they take.

    Raises:
        SystemExit: its rate was not measured.
    """
    measured = rates_of(case, rates)
    if not measured:
        asked = f"{case.minutes:g} minutes are in steps" if steps is None else f"{steps} steps are in minutes"
        raise SystemExit(
            f"nothing says what {asked}, of {case.recipe} on {case.images}: measure it with --rates on a quiet machine"
        )
    if steps is None:
        return case.of_steps(max(1, round(case.minutes * median(measured))))
    return replace(case, minutes=round(steps / median(measured), 2)).of_steps(steps)


def measure_rates(arguments: argparse.Namespace) -> None:
    """Every recipe on every set in turn, some rounds; what is there from before counts."""
    for count in range(1, ROUNDS + 1):
        for case in cases(arguments):
            if len(rates_of(case)) < count:
                line = rated(replace(case, minutes=RATED_MINUTES), arguments.data, arguments.work)
                results_line.append(line, RATES)
                print(f"{line['name']}: {line['steps_a_minute']:.1f} steps a minute", flush=True)


# --- Command line -----------------------------------------------------------------------------------------------------


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    changes = tuple((key, value) for key, value in arguments.override)
    for seed, images, recipe in product(arguments.seeds, arguments.sets, arguments.recipes):
        yield Case(images, recipe, arguments.minutes, seed, arguments.final, changes)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the tars")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--recipes", nargs="+", default=[DEFAULT])
    parser.add_argument("--minutes", type=float, default=3.0, help="on a quiet machine, by --rates (default: 3)")
    parser.add_argument("--steps", type=int, help="another number of steps than those of the minutes")
    parser.add_argument("--rates", action="store_true", help="measure how many steps a minute makes, and no more")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--final", action="store_true", help="all training images, measured on the test images")
    parser.add_argument("--baselines", action="store_true", help="of a part that is held out, too")
    parser.add_argument("--override", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="as in YAML")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "own_folder", help="images and runs go here")
    parser.add_argument("--results", type=Path, help="file the lines are appended to")
    arguments = parser.parse_args()
    if arguments.rates:
        return measure_rates(arguments)

    results = arguments.results or (results_line.RESULTS if arguments.final else SCREENED)
    for case in [with_steps(case, arguments.steps) for case in cases(arguments)]:
        if case.key in known(results, baselines=arguments.baselines):
            print(f"{case}: measured already", flush=True)
            continue
        line = measured(case, arguments.data, arguments.work, baselines=arguments.baselines or None)
        results_line.append(line, results)
        print(case, flush=True)
        for features, scores in line["scores"].items():
            shown = ", ".join(f"{name} {100 * value:.1f}" for name, value in scores.items() if name.endswith("top1"))
            print(f"  {features}: {shown}", flush=True)


if __name__ == "__main__":
    main()
