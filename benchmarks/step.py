"""A step of `barlow pretrain` against the bare step: the same networks, objective and optimizer on tensors in memory.

    python benchmarks/step.py                 # two cores, about seven minutes
    python benchmarks/step.py --only small    # the default recipe: reported, without a promise

Each side runs in a process of its own, in turn; the first five steps are left out. Ours is the command as users give
it, on JPEG files in a folder, its log, live line and progress included.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import pictures

LEFT_OUT = 5


@dataclass(frozen=True)
class Case:
    """A recipe, the images it is run on, and for how many steps."""

    name: str
    what: str
    recipe: str
    batch: int
    side: tuple[int, int] | None
    """Height and width of the files; None: photographs of about 500 × 375."""
    images: int
    steps: int
    """Counted ones."""
    at_least: float | None = 1 / 1.10
    rounds: int = 2
    overrides: dict[str, Any] = field(default_factory=dict)

    def arguments(self, folder: Path) -> list[str]:
        words = [str(folder), "-c", self.recipe, "--steps", str(LEFT_OUT + self.steps), "--batch-size", str(self.batch)]
        words += ["--train.log_steps", str(LEFT_OUT)]
        return words + [word for key, value in self.overrides.items() for word in (f"--{key}", json.dumps(value))]


CASES = [
    Case("resnet18_32px", "ResNet-18, 32 px, batch 256", "cifar10/barlow_twins", 256, (32, 32), 2048, 3, rounds=1),
    Case(
        "resnet18_96px",
        "ResNet-18, 96 px, batch 128",
        "small_barlow_twins",
        128,
        (96, 96),
        1024,
        5,
        overrides={
            "data.image_size": 96,
            "encoder.name": "resnet18",
            "encoder.stem": "as_is",
            "encoder.options": {},
            "method.projector.widths": [2048, 2048, 2048],
        },
    ),
    Case("resnet50_224px", "ResNet-50, 224 px, batch 32, JPEG files", "imagenet/barlow_twins", 32, None, 200, 3),
    Case("small", "the default recipe, 32 px, batch 128", "small_barlow_twins", 128, (32, 32), 4096, 100, None, 4),
]
SMOKE = [
    Case("small", "the default recipe, 32 px, batch 128", "small_barlow_twins", 128, (32, 32), 1024, 10),
]


def command_seconds(case: Case, folder: Path) -> float:
    """Seconds a step of the command, as its log has them."""
    barlow = str(Path(sys.executable).with_name("barlow"))
    with tempfile.TemporaryDirectory() as out:
        words = [barlow, "pretrain", *case.arguments(folder), "--out", f"{out}/run"]
        subprocess.run(words, check=True, capture_output=True)
        rows = [json.loads(line) for line in (Path(out) / "run" / "metrics.jsonl").read_text().splitlines()]
    ends = {row["step"]: row["seconds"] for row in rows}
    return (ends[LEFT_OUT + case.steps] - ends[LEFT_OUT]) / case.steps


def bare_seconds(case: Case, folder: Path) -> float:
    """Seconds a bare step, from a process of its own."""
    words = [sys.executable, __file__, "--bare", case.name, "--folder", str(folder)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1])


def bare(case: Case, folder: Path) -> float:
    """Forward, backward, update in a plain loop, on one batch that is there already."""
    import torch

    from barlow import resolve
    from barlow import train as training
    from barlow.distributed import World, choose_device, has_native_bf16

    world = World(choose_device("auto"))
    chosen = training.chosen_recipe(
        folder, recipe=case.recipe, batch_size=case.batch, steps=1, overrides=case.overrides
    )
    prepared = resolve.prepare(chosen, world)
    recipe, views = prepared.recipe, next(iter(prepared.loader.stream(0, 1))).views
    network, optimizer = training.build_for_training(recipe, world, None, lambda line: None)
    objective = recipe.build_objective()
    views = [view.contiguous(memory_format=torch.channels_last) for view in views]
    network.train()
    half = has_native_bf16(world.device)
    for step in range(LEFT_OUT + case.steps):
        if step == LEFT_OUT:
            before = time.perf_counter()
        with torch.autocast(world.device.type, torch.bfloat16, enabled=half):
            embeddings = network(views).embeddings
        sum(objective(*[z.float() for z in embeddings]).values()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return (time.perf_counter() - before) / case.steps


def images(case: Case, folder: Path) -> Path:
    if case.side is None:
        return pictures.native_jpegs(folder)[0]
    return pictures.write_folder(folder / case.name, case.images, *case.side)


def rows(smoke: bool, home: Path) -> Sequence[measure.Row]:
    """The rows; their images are written when they are first needed."""
    made: dict[str, Path] = {}

    def row(case: Case) -> measure.Row:
        def folder() -> Path:
            if case.name not in made:
                made[case.name] = images(case, home)
            return made[case.name]

        return measure.Row(
            name=f"step_{case.name}",
            what=f"{case.what}; {case.recipe}, after {LEFT_OUT} steps",
            ours=lambda: command_seconds(case, folder()),
            reference=lambda: bare_seconds(case, folder()),
            reference_name="bare step",
            at_least=case.at_least,
            rounds=1 if smoke else case.rounds,
            warmups=0,
            work=(case.batch, "images"),
        )

    return [row(case) for case in (SMOKE if smoke else CASES)]


def main() -> int:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--bare")
    parser.add_argument("--folder", type=Path)
    asked, rest = parser.parse_known_args()
    if asked.bare:
        case = next(case for case in (SMOKE if "--smoke" in rest else CASES) if case.name == asked.bare)
        print(bare(case, asked.folder))
        return 0
    with tempfile.TemporaryDirectory() as home:
        return measure.main(__file__, lambda smoke: rows(smoke, Path(home)), rest)


if __name__ == "__main__":
    sys.exit(main())
