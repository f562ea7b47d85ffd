"""Trains the shipped CIFAR-10 recipes on a GPU, measures the encoders, and appends a line each to the results.

    python benchmarks/gpu_cifar10.py pack cifar10.tar cifar10.tar.xz          # once: 93 MB become 19
    python benchmarks/gpu_cifar10.py run --data cifar10.tar.xz --recipe cifar10/barlow_twins --minutes 9
    python benchmarks/gpu_cifar10.py run --data cifar10.tar.xz --all 2400     # the four in turn, in 40 minutes

It runs from a source tree: `pip install` of barlow is not needed, only its dependencies. The images are a tar of
`{train,test}/CLASS/*.jpg`, compressed or not; they are unpacked to a temporary folder, decoded to uint8 and held on the
GPU, where the views are made as well. Then come the papers' SGD protocol on features embedded once (last epoch), the
logistic probe, weighted kNN and 5-NN, all on the test images.

Before each run a few steps on throwaway weights measure the rate. With `--minutes`, or a total of seconds after
`--all`, as many epochs are run as fit, at most `--epochs`; what does not fit at all is skipped. `--all` skips whatever
cannot be run at full length, unless `--least` allows less. A recipe that fails says so and does not stop the next one.

Trials, which are on a part of the images (`--limit`) or on a CPU, go into a file of their own (`--results`).
"""

import argparse
import gc
import importlib.util
import io
import math
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

# A source tree is enough, and its lines of results have one form.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import results_line

from barlow.machine import source_commit
from barlow.runs.run import Run, load_recipe_text

ROOT = Path(__file__).resolve().parents[1]

NEEDED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "numpy": "numpy",
    "PIL": "pillow",
    "simplejpeg": "simplejpeg",
    "sklearn": "scikit-learn",
    "pydantic": "pydantic",
    "yaml": "pyyaml",
    "safetensors": "safetensors",
    "rich": "rich",
    "jaxtyping": "jaxtyping",
}
"""What barlow imports, and the package that has it. Nothing of it is imported before it is looked for."""

IMAGES = "CIFAR-10"
NOTE = "this copy of CIFAR-10 is JPEG-compressed (quality 75, 4:2:0): not comparable with published numbers"
COUNT = 60_000
"""Images of the whole set."""

PROBES = ("linear_sgd", "logistic", "knn", "knn5_euclidean")
EVALUATION_SECONDS = 60.0
"""What is kept back for the evaluation of the whole set: on random features its probes took 62 s on one core of a
processor, and most of them use all cores, or the GPU."""
MARGIN = 1.03
"""An epoch may take this much longer than the first steps say: the log, a warm GPU."""

WINDOWS = 3
WINDOW = {"cuda": 25, "cpu": 1}
"""Steps between two readings of the rate. The last of three counts: in the first kernels are chosen, and the second
has to wait for the first line of the log."""

Files = dict[tuple[str, str, str], bytes]
"""Files by (split, class, name)."""


class Clock:
    """Says what happens and when, and how much time is left."""

    def __init__(self, seconds: float | None = None) -> None:
        self.started = time.monotonic()
        self.seconds = seconds

    @property
    def passed(self) -> float:
        return time.monotonic() - self.started

    def left(self) -> float:
        """Seconds; infinitely many without a limit."""
        return math.inf if self.seconds is None else self.seconds - self.passed

    def say(self, line: str) -> None:
        print(f"{self.passed:7.1f} s  {line}", flush=True)


def main(words: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 1 where something failed, or 2 where it cannot begin."""
    clock = Clock()
    arguments = _parser().parse_args(words)
    if arguments.command == "pack":
        return pack(arguments.tar, arguments.out, clock)
    if absent := missing():
        clock.say(f"not installed for {sys.executable}: {', '.join(absent)}; pip install {' '.join(absent)}")
        return 2
    try:
        _check(arguments)
        return run(arguments, clock)
    except (ValueError, OSError) as error:
        clock.say(f"error: {error}")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write a small copy of the images' tar")
    packing.add_argument("tar", type=Path)
    packing.add_argument("out", type=Path)
    running = commands.add_parser("run", help="train, evaluate, append a line to the results")
    running.add_argument("--data", type=Path, required=True, help="tar of the images, compressed or not")
    which = running.add_mutually_exclusive_group(required=True)
    which.add_argument("--recipe", help=", ".join(results_line.GPU_RECIPES))
    which.add_argument("--all", type=float, metavar="SECONDS", help="all of them in turn, in so many seconds in total")
    running.add_argument("--epochs", type=int, default=100, help="at most; 100 if not given")
    running.add_argument("--minutes", type=float, help="for each recipe, from its start to its line")
    running.add_argument(
        "--least", type=int, help="fewer epochs are not run: 1 by default, with --all as --epochs says"
    )
    running.add_argument("--seed", type=int, default=0)
    running.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    running.add_argument("--limit", type=int, help="a trial: so many images of each split, evenly over the classes")
    running.add_argument(
        "--override", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="as in YAML"
    )
    running.add_argument("--baselines", action="store_true", help="measure raw pixels and the untrained network too")
    running.add_argument("--commit", help="of this source tree, where git cannot tell")
    running.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu_cifar10", help="the runs' folders go here")
    running.add_argument("--results", type=Path, default=results_line.RESULTS, help="file the lines are appended to")
    return parser


def missing() -> list[str]:
    """Packages that are needed and not there."""
    return [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]


def _check(arguments: argparse.Namespace) -> None:
    """Refuses what could only fail, or be no result, after minutes of work."""
    from barlow.distributed import choose_device
    from barlow.recipe import files

    if arguments.epochs < 1:
        raise ValueError(f"--epochs {arguments.epochs}: at least 1")
    if not arguments.data.is_file():
        raise ValueError(f"--data {arguments.data} is no file; give the tar of the images, or what `pack` made of it")
    if arguments.recipe is not None:
        files.read(arguments.recipe)
    trial = arguments.limit is not None or choose_device(arguments.device).type == "cpu"
    if trial and arguments.results.resolve() == results_line.RESULTS:
        raise ValueError("a trial (--limit, --device cpu) is no result: give it a file of its own, --results FILE")
    if arguments.commit is None and source_commit() is None:
        raise ValueError("git does not know the commit of this source tree: give --commit HASH")


# --------------------------------------------------------------------------------------------------------------- images


def read(tar: Path) -> Files:
    """The files of a tar that lie in {train,test}/CLASS, by name and in order; all others are left out.

    Raises:
        ValueError: it is no tar, or one of the splits is not in it.
    """
    found: Files = {}
    try:
        with tarfile.open(tar) as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts[-3:]
                if member.isfile() and len(parts) == 3 and parts[0] in ("train", "test") and ".." not in parts:
                    content = archive.extractfile(member)
                    assert content is not None
                    found[parts[0], parts[1], parts[2]] = content.read()
    except tarfile.TarError as error:
        raise ValueError(f"{tar} cannot be read as a tar: {error}") from error
    if {split for split, _, _ in found} != {"train", "test"}:
        raise ValueError(f"{tar} has no images in both train/CLASS and test/CLASS")
    return dict(sorted(found.items()))


def pack(tar: Path, out: Path, clock: Clock) -> int:
    """Writes the images as they are, one class after the other, into an xz-compressed tar without dates and owners.

    The JPEGs share their headers, which is what the compression finds: 92.7 MB become 18.6. Decoded, the same images
    compress to 140 MB.
    """
    images = read(tar)
    with tarfile.open(out, "w:xz", format=tarfile.USTAR_FORMAT) as archive:
        for (split, label, name), content in images.items():
            entry = tarfile.TarInfo(f"images/{split}/{label}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    clock.say(f"{len(images)} images, {out.stat().st_size / 1e6:.1f} MB (from {tar.stat().st_size / 1e6:.1f}): {out}")
    return 0


def limited(images: Files, limit: int | None) -> Files:
    """The first images of each class, so many that each split has `limit`, or the next multiple of its classes."""
    if limit is None:
        return images
    classes: dict[tuple[str, str], list[str]] = {}
    for split, label, name in images:
        classes.setdefault((split, label), []).append(name)
    of_split = {split: len({label for s, label in classes if s == split}) for split, _ in classes}
    return {
        (split, label, name): images[split, label, name]
        for (split, label), names in classes.items()
        for name in names[: math.ceil(limit / of_split[split])]
    }


def unpack(images: Files, folder: Path) -> None:
    """Writes the files to FOLDER/{train,test}/CLASS."""
    for (split, label, name), content in images.items():
        home = folder / split / label
        home.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content)


# ----------------------------------------------------------------------------------------------------------------- runs


def run(arguments: argparse.Namespace, clock: Clock) -> int:
    """One recipe, or all in turn; 1 if one of them failed."""
    import torch

    from barlow.stopping import Interrupted

    torch.backends.cudnn.benchmark = True  # every step has the same shapes
    recipes = list(results_line.GPU_RECIPES) if arguments.recipe is None else [arguments.recipe]
    clock.seconds = arguments.all
    status = 0
    with tempfile.TemporaryDirectory() as folder:
        images = limited(read(arguments.data), arguments.limit)
        unpack(images, Path(folder))
        clock.say(f"{len(images)} images of {arguments.data} unpacked")
        for number, recipe in enumerate(recipes):
            seconds = [] if arguments.minutes is None else [60 * arguments.minutes - (0 if number else clock.passed)]
            left = min([clock.left(), *seconds])
            try:
                line = measured(arguments, recipe, Path(folder), len(images), left, clock)
            except Interrupted as error:
                clock.say(f"{recipe}: {error}")
                return 1
            except (ValueError, RuntimeError) as error:
                clock.say(f"{recipe} failed: {error}")
                status = 1
            else:
                if line is not None:
                    results_line.append(line, arguments.results)
                    clock.say(f"{recipe}: {told(line)}; added to {arguments.results}")
            gc.collect()
            torch.cuda.empty_cache()
    return status


def measured(
    arguments: argparse.Namespace, recipe: str, folder: Path, images: int, seconds: float, clock: Clock
) -> dict[str, Any] | None:
    """The line of one recipe, trained for as many epochs as fit; None if too few do.

    Args:
        arguments: as given on the command line.
        recipe: its name.
        folder: where the images are unpacked.
        images: how many there are.
        seconds: for all of it.
        clock: says what is done.
    """
    import torch

    import barlow
    from barlow.recipe.request import chosen_recipe

    within = Clock(seconds)
    evaluation = EVALUATION_SECONDS * images / COUNT
    if within.left() < evaluation:
        clock.say(f"{recipe} skipped: {seconds:.0f} s are left, and its evaluation alone is given {evaluation:.0f} s")
        return None
    on_gpu = arguments.device == "cuda"
    overrides = changes(arguments)
    asked = {"recipe": recipe, "seed": arguments.seed, "device": arguments.device}
    rate, an_epoch, setting_up = first_steps(folder, overrides, asked, WINDOW["cuda" if on_gpu else "cpu"])
    whole = arguments.epochs * an_epoch
    clock.say(
        f"{recipe}: {rate:,.0f} images/s in the first steps, {an_epoch:.2f} s an epoch; {arguments.epochs} epochs "
        f"would take {whole:.0f} s, with setting up and evaluation {whole + setting_up + evaluation:.0f} s"
    )
    epochs = epochs_that_fit(arguments.epochs, an_epoch, within.left() - setting_up - evaluation)
    least = arguments.least or (1 if arguments.all is None else arguments.epochs)
    if epochs < least:
        clock.say(f"{recipe} skipped: {epochs} epochs fit into the time that is left, and at least {least} are asked")
        return None
    clock.say(f"{recipe}: {epochs} epochs" + ("" if epochs == arguments.epochs else ", as many as fit"))

    out = arguments.out / f"{recipe.replace('/', '-')}-{epochs}epochs-seed{arguments.seed}"
    gc.collect()  # the throwaway weights are not part of the peak
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(arguments.device)
    asked |= {"epochs": epochs}
    barlow.pretrain(folder / "train", out, overrides=overrides, overwrite=True, tell=clock.say, **asked)
    peak = torch.cuda.max_memory_allocated(arguments.device) if on_gpu else None
    trained = time.monotonic()
    failed = evaluated(out, folder, arguments, clock)
    row = results_line.finished(out)
    resolved = load_recipe_text(out / "recipe.yaml")["train"]
    content = {
        "images": IMAGES,
        "note": NOTE,
        "recipe": recipe,
        "overrides": overrides,
        "recipe_sha256": results_line.recipe_hash(
            chosen_recipe(folder / "train", overrides=overrides, **asked).as_dict()
        ),
        "epochs": epochs,
        "steps": resolved["steps"],
        "batch_size": resolved["batch_size"],
        "precision": resolved["precision"],
        "seeds": [arguments.seed],
        "limit": arguments.limit,
        "images_evaluated": row["images_evaluated"],
        "scores": results_line.over_seeds([row["scores"]]),
        "probe_notes": row["notes"]["encoder"],
        "failed_probes": failed,
        "warnings": row["warnings"],
        "training_seconds": [round(row["seconds"], 1)],
        "evaluation_seconds": [round(time.monotonic() - trained, 1)],
        "images_per_second": [round(row["images_per_second"], 1)],
        "peak_gpu_bytes": peak,
    }
    name = f"gpu-{recipe.replace('/', '-')}"
    line = results_line.assembled(name, results_line.GPU_PROGRAM, content, row["environment"])
    line["versions"] |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return line | {"commit": arguments.commit or line["commit"]}


def changes(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is changed in the recipe: bfloat16 on a GPU, and what was asked for."""
    import yaml

    asked = {key: yaml.safe_load(value) for key, value in arguments.override}
    return ({"train.precision": "bf16"} if arguments.device == "cuda" else {}) | asked


def first_steps(
    folder: Path, overrides: dict[str, Any], asked: dict[str, Any], window: int
) -> tuple[float, float, float]:
    """A short run on throwaway weights, at a rate that cannot diverge.

    Returns:
        Images per second in its last window, the seconds of an epoch, and the seconds that it took beside its steps.
    """
    import barlow

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        slow = overrides | {"train.log_steps": window, "optim.lr_per_256": 1e-6}
        steps = WINDOWS * window
        barlow.pretrain(folder / "train", out, overrides=slow, steps=steps, progress=False, **asked)
        last = Run.open(out).metrics()[-1]
        batch = load_recipe_text(Path(out) / "recipe.yaml")["train"]["batch_size"]
    images = len(list((folder / "train").glob("*/*"))) // batch * batch
    rate = last["images_per_second"]
    return rate, images / rate, time.monotonic() - started - last["seconds"]


def epochs_that_fit(most: int, seconds_an_epoch: float, seconds: float) -> int:
    """The largest number of epochs, up to `most`, that the seconds are enough for."""
    if math.isinf(seconds):
        return most
    return max(0, min(most, math.floor(seconds / (MARGIN * seconds_an_epoch))))


def evaluated(out: Path, folder: Path, arguments: argparse.Namespace, clock: Clock) -> dict[str, str]:
    """Writes the run's evaluation; returns the probes that failed, and why.

    The SGD protocol has one rate for features of every scale and can diverge: that costs its own number, and not the
    others, for which minutes were spent.
    """
    import barlow

    def of(probes: Sequence[str]) -> None:
        barlow.evaluate(
            out,
            folder / "train",
            folder / "test",
            protocols=probes,
            baselines=arguments.baselines,
            device=arguments.device,
            tell=clock.say,
        )

    try:
        of(PROBES)
    except ValueError as error:
        clock.say(f"linear_sgd is left out: {error}")
        of([probe for probe in PROBES if probe != "linear_sgd"])
        return {"linear_sgd": str(error)}
    return {}


def told(line: dict[str, Any]) -> str:
    """A line in a few words."""
    scores = {name: score["mean"] for name, score in line["scores"]["encoder"].items() if name.endswith(".top1")}
    parts = [f"{name.removesuffix('.top1')} {100 * value:.2f} %" for name, value in scores.items()]
    return f"{', '.join(parts)} of {line['images_evaluated']['test']} test images"


if __name__ == "__main__":
    sys.exit(main())
