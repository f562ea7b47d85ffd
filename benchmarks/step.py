"""A step of `barlow pretrain` against the bare step: the same networks, objective and optimizer on tensors in memory.

    python benchmarks/step.py                 # two cores, about five minutes
    python benchmarks/step.py --only step_small    # the default recipe: reported, without a promise

Each side is a process of its own, and both are there at the same time: one makes a few steps while the other is held
(workers.py). Ours is the command as users give it, on JPEG files in a folder, its log and its live line included. It is
held inside the optimizer's update, by torch's own hook, so a step is everything from one update to the next.

A case for another topology is a function like `siamese`, which says what its bare step consists of, and an entry in
CASES. The bare step calls the networks one by one, and knows of no learner, guard or grouped batch norm. Methods with
banks, clusterings and pretext tasks are in step_methods.py, and their bare steps in bare_steps.py.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import pictures
from clock import Cost
from workers import Questions, Turns, Worker, clocked

LEFT_OUT = 3
"""First steps, in which kernels are chosen and memory is touched for the first time."""
ENDLESS = 1_000_000
"""Steps that the command is asked for; it ends when its row is through."""


@dataclass(frozen=True)
class Built:
    """What a bare step works on, as `barlow pretrain` would have it before its first step."""

    learner: Any
    """Its parts are used, and none of what it does."""
    views: list[Any]
    """Of one batch, channels_last."""
    known: dict[str, Any] = field(default_factory=dict)
    """What is known of each row: its id, its label, what the view ops tell."""
    progress: float = 0.5

    def update(self, groups: list[tuple[Any, ...]]) -> None:
        """The loss of some groups of embeddings (all of them where the objective has state), its gradient, the
        optimizer's update."""
        import torch

        from barlow import objectives

        objective, optimizer = self.learner.objective, self.learner.optimizer
        groups = [tuple(z.float() for z in group) for group in groups]
        there = self.known | {"progress": self.progress}
        asked = {name: there[name] for name in objectives.asks(objective)}
        with_state = isinstance(objective, torch.nn.Module)
        found = [objective(groups, **asked)] if with_state else [objective(*group, **asked) for group in groups]
        (sum(value for terms in found for value in terms.values()) / len(found)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if hasattr(objective, "after_step"):
            objective.after_step()

    def autocast(self) -> Any:
        import torch

        half = self.learner.precision == "bf16"
        return torch.autocast(self.learner.world.device.type, torch.bfloat16, enabled=half)


def siamese(built: Built) -> Callable[[], None]:
    """One network for all views (Barlow Twins, VICReg, W-MSE): forward, backward, update."""
    import torch

    method = built.learner.method

    def step() -> None:
        with built.autocast():
            features = [method.encoder(view) for view in built.views]
            if method.section.batch_norm_sees == "all_views":  # W-MSE's batch norm
                embeddings = method.projector(torch.cat(features)).chunk(len(features))
            else:
                embeddings = tuple(method.projector(each) for each in features)
        built.update([embeddings])

    return step


def multi_crop(built: Built) -> Callable[[], None]:
    """One network for crops of several sizes (SwAV): a pass of the encoder for each size, and one of the projector."""
    import torch

    method, sizes = built.learner.method, dict[Any, list[Any]]()
    for view in built.views:  # the large crops come first
        sizes.setdefault(view.shape[2:], []).append(view)

    def step() -> None:
        with built.autocast():
            features = torch.cat([method.encoder(torch.cat(same)) for same in sizes.values()])
            embeddings = method.projector(features).chunk(len(built.views))
        built.update([embeddings])

    return step


def distillation(built: Built) -> Callable[[], None]:
    """An online network and a target (BYOL, MoCo): forward of both, backward, update, and the target moves."""
    import torch

    method = built.learner.method
    target, predictor = method.target, method.predictor or torch.nn.Identity()
    moved = list(target.parameters())
    followed = [*method.encoder.parameters(), *method.projector.parameters()]
    first, second = built.views
    predicted, aimed_at = ([first, second], [first, second]) if method.symmetric else ([first], [second])

    def step() -> None:
        with built.autocast():
            predictions = [predictor(method.projector(method.encoder(view))) for view in predicted]
            with torch.no_grad():
                targets = [target["projector"](target["encoder"](view)) for view in aimed_at]
        if method.symmetric:
            targets.reverse()
        built.update(list(zip(predictions, targets, strict=True)))
        with torch.no_grad():
            torch._foreach_lerp_(moved, followed, 1 - method.momentum)

    return step


@dataclass(frozen=True)
class Case:
    """A recipe, the images it is run on, and what it is compared with."""

    name: str
    what: str
    recipe: str
    batch: int
    side: tuple[int, int] | None
    """Height and width of the files; None: photographs of about 500 × 375."""
    images: int
    steps: int = 1
    """Of one piece, so many that it takes some tenths of a second."""
    at_least: float | None = 1 / 1.10
    overrides: dict[str, Any] = field(default_factory=dict)
    bare: Callable[[Built], Callable[[], None]] = siamese

    def words(self, folder: Path, out: Path) -> list[str]:
        """The command. Unless a case asks for checkpoints, it writes none: one would fall into one piece of many."""
        words = ["pretrain", str(folder), "-c", self.recipe, "--steps", str(ENDLESS), "--batch-size", str(self.batch)]
        words += ["--out", str(out)]
        changes = {"train.checkpoint_minutes": ENDLESS, **self.overrides}
        return words + [word for key, value in changes.items() for word in (f"--{key}", json.dumps(value))]


SMALL = Case("small", "the default recipe, 32 px, batch 128", "small_w_mse", 128, (32, 32), 4096, 5, None)
CASES = [
    Case("resnet18_32px", "ResNet-18, 32 px, batch 64", "cifar10/barlow_twins", 64, (32, 32), 2048),
    Case(
        "resnet18_96px",
        "ResNet-18, 96 px, batch 128",
        "small_barlow_twins",
        128,
        (96, 96),
        1024,
        overrides={
            "data.image_size": 96,
            "encoder.name": "resnet18",
            "encoder.stem": "as_is",
            "encoder.options": {},
            "method.projector.widths": [2048, 2048, 2048],
        },
    ),
    Case("resnet50_224px", "ResNet-50, 224 px, batch 16, JPEG files", "imagenet/barlow_twins", 16, None, 200),
    Case("byol_32px", "ResNet-18, 32 px, batch 64", "cifar10/byol", 64, (32, 32), 2048, bare=distillation),
    Case(
        "moco_v2_32px",
        "ResNet-18, 32 px, batch 128, batch norm over 4 groups of 32 rows (bare: over all 128)",
        "cifar10/moco_v2",
        128,
        (32, 32),
        2048,
        overrides={"method.batch_norm_rows": 32},
        bare=distillation,
    ),
    Case(
        "swav_32px",
        "ResNet-18, 2 × 32 + 4 × 16 px, batch 64",
        "small_swav",
        64,
        (32, 32),
        2048,
        overrides={
            "data.image_size": 32,
            "encoder.name": "resnet18",
            "encoder.stem": "small",
            "encoder.options": {},
            "method.projector.widths": [2048, 128],
            "objective.prototypes": 512,
        },
        bare=multi_crop,
    ),
    SMALL,
]


CHECKPOINTS = 50
"""Steps from one checkpoint to the next, where checkpoints are a part of what is measured."""
OF_GUARDS = [
    replace(
        SMALL,
        name=f"guards_{recipe}",
        what=f"{recipe}, 32 px, batch 128",
        recipe=recipe,
        steps=CHECKPOINTS,
        overrides={"train.checkpoint_minutes": None, "train.checkpoint_steps": CHECKPOINTS},
    )
    for recipe in ("small_w_mse", "small_barlow_twins")
]
"""On these costs.py measures what guards cost together."""


class Sides:
    """The command and the bare step of a case: each starts when it is first asked, and makes the steps to leave out."""

    def __init__(self, case: Case, environment: dict[str, str] | None = None, parts: Sequence[str] = ()) -> None:
        self.case, self._parts, self._environment = case, parts, environment
        self._folder: Path | None = None
        self._children: dict[str, Worker] = {}

    def command(self) -> Cost:
        return self.child("--command").cost(steps=self.case.steps)

    def bare(self) -> Cost:
        return self.child("--bare").cost(steps=self.case.steps)

    def child(self, side: str) -> Worker:
        if side not in self._children:
            self._folder = self._folder or images(self.case)
            words = [__file__, side, self.case.name, "--folder", str(self._folder)]
            words += [word for part in self._parts for word in ("--part", part)]
            self._children[side] = Worker(words, environment=self._environment)
            self._children[side].ask(steps=LEFT_OUT)
        return self._children[side]

    def close(self) -> None:
        for child in self._children.values():
            child.close()
        self._children.clear()


def command(case: Case, folder: Path, parts: Sequence[str]) -> int:
    """The child of the command's side: `barlow pretrain`, held at every update."""
    questions, seconds = Questions(), dict[str, float]()
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from barlow.cli import main

    for part in parts:
        clocked(part, seconds)
    turns = Turns(questions, seconds)
    register_optimizer_step_post_hook(lambda optimizer, args, kwargs: turns())
    with tempfile.TemporaryDirectory() as out:
        return main(case.words(folder, Path(out) / "run"))


def bare(case: Case, folder: Path) -> None:
    """The child of the bare side: the case's own step in a plain loop, on one batch that is there already."""
    turns = Turns(Questions())
    from barlow.distributed import World, choose_device

    learner, loader = prepared(case, folder, World(choose_device("auto")))
    looked(learner, loader)
    learner.method.train()
    step = case.bare(built(learner, loader))
    while True:
        step()
        turns()


def look(case: Case, folder: Path) -> None:
    """The child of the monitor's side: a look at the networks of a case, again and again, with no step between two."""
    turns = Turns(Questions())
    from barlow.data.counting import not_shown
    from barlow.distributed import World, choose_device
    from barlow.planning.preparation import prepare
    from barlow.training.assembly import build_learner
    from barlow.training.monitor import monitor_of
    from barlow.training.step_log import StepLog

    world = World(choose_device("auto"))
    found = prepare(chosen(case, folder), world)
    learner = build_learner(found.plan, world, found.loader)
    with tempfile.TemporaryDirectory() as out:
        log = StepLog(Path(out) / "monitor.jsonl", print)
        monitor = monitor_of(found.plan, found, learner, log, None, print, not_shown)
        assert monitor is not None
        while True:
            turns()
            monitor.look(0)


def chosen(case: Case, folder: Path) -> Any:
    """The recipe of a case."""
    from barlow.recipe.request import chosen_recipe

    return chosen_recipe(folder, recipe=case.recipe, batch_size=case.batch, steps=1, overrides=case.overrides)


def prepared(case: Case, folder: Path, world: Any) -> tuple[Any, Any]:
    """The learner of a case, as `barlow pretrain` builds it, and the loader of its images."""
    from barlow.planning.preparation import prepare
    from barlow.training.assembly import build_learner

    found = prepare(chosen(case, folder), world)
    return build_learner(found.plan, world, found.loader), found.loader


def looked(learner: Any, loader: Any) -> None:
    """Lets an objective look at all images, as it does before the first step of a run."""
    with learner.training():
        learner.look(0, 0.0, len(loader.pipeline.views), begins_epoch=True)


def built(learner: Any, loader: Any, progress: float = 0.5) -> Built:
    """What a bare step works on: the first batch, its views channels_last."""
    import torch

    rows = next(iter(loader.stream(0, 1))).rows
    views = [view.contiguous(memory_format=torch.channels_last) for view in rows.views]
    return Built(learner, views, rows.known, progress)


def images(case: Case) -> Path:
    """A folder of the images that a case is run on."""
    if case.side is None:
        return pictures.native_jpegs(pictures.home())[0]
    return pictures.write_folder(pictures.home() / f"step_{case.name}", case.images, *case.side)


def row(case: Case) -> measure.Row:
    """The row of a case; images and processes come when they are first needed."""
    sides = Sides(case)
    return measure.Row(
        name=f"step_{case.name}",
        what=f"{case.what}; {case.recipe}",
        ours=sides.command,
        reference=sides.bare,
        reference_name="bare step",
        at_least=case.at_least,
        warmups=0,
        seconds=60,
        work=(case.batch, "images"),
        close=sides.close,
    )


def rows(smoke: bool) -> Sequence[measure.Row]:
    """Those of this program; step_methods.py has the others."""
    return [row(case) for case in ([replace(SMALL, images=1024)] if smoke else CASES)]


def main() -> int:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--command")
    parser.add_argument("--bare")
    parser.add_argument("--look")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--part", action="append", default=[])
    asked, rest = parser.parse_known_args()
    from step_methods import OF_METHODS  # which imports this module

    cases = {case.name: case for case in [*CASES, *OF_GUARDS, *OF_METHODS]}
    if asked.command:
        return command(cases[asked.command], asked.folder, asked.part)
    if asked.bare:
        bare(cases[asked.bare], asked.folder)
    if asked.look:
        look(cases[asked.look], asked.folder)
    return measure.main(__file__, rows, rest)


if __name__ == "__main__":
    sys.exit(main())
