"""`barlow pretrain`: what is set up around the loop, and what a run leaves behind."""

import contextlib
import copy
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from barlow import plan as plans
from barlow import storage
from barlow.data.folder import printable
from barlow.data.loader import MemoryLoader, StreamingLoader
from barlow.data.sources import FoldersOrName
from barlow.distributed import World, joined, synchronize
from barlow.learner import Learner, named_parameters
from barlow.machine import environment
from barlow.nets import building, weights
from barlow.optim.optimizers import build_optimizer, has_fused_kernels
from barlow.plan import Plan
from barlow.recipe import files, schema
from barlow.recipe.changes import override
from barlow.recipe.messages import RecipeError
from barlow.recipe.request import DEFAULT, new_recipe, requested, resumed_recipe
from barlow.recipe.schema import CUSTOM, Recipe
from barlow.run import Run, load_recipe_text
from barlow.stopping import memory_explained, stoppable
from barlow.train import train
from barlow.watchers import Checkpointer, LiveLine, MetricsLog, Moment, ReplacedImages, Watcher

Loader = MemoryLoader | StreamingLoader
Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """What a run leaves behind."""

    encoder: nn.Module
    """In eval mode, with `.preprocessing`."""
    run_folder: Path
    metrics: dict[str, Any]
    """The last logged line: loss, terms, speed, embedding statistics."""


@dataclass(frozen=True)
class Given:
    """Modules and objectives that were given in Python, and that no recipe can name. Modules are copied before use."""

    encoder: nn.Module | None = None
    objective: Any = None

    def copied(self) -> "Given":
        """For a use that must leave no trace."""
        return Given(self.encoder, copy.deepcopy(self.objective))


def pretrain(
    data: FoldersOrName | None = None,
    out: str | os.PathLike[str] = "runs/barlow",
    *,
    recipe: str = DEFAULT,
    objective: str | Callable[..., Any] | None = None,
    encoder: str | nn.Module | None = None,
    resume: bool = False,
    overwrite: bool = False,
    overrides: Mapping[str, Any] | None = None,
    progress: bool = True,
    tell: Callable[[str], None] | None = None,
    **flags: Any,
) -> Result:
    """Trains an encoder on images without labels.

    In a program that torchrun starts in several processes, all of them call this, and the run is that of one process:
    same batches, loss and weights (docs/exactness.md says how exactly). The first process writes and speaks.

    Args:
        data: a folder of images, several, or the name of a set (`barlow list datasets`). Not needed to resume.
        out: the run folder.
        recipe: a shipped recipe's name or a YAML file.
        objective: a kind (`barlow list objectives`), or an objective object. A kind alone picks its small recipe.
        encoder: any timm name, or a module that maps (n, c, h, w) to (n, features).
        resume: go on from the newest checkpoint in `out`.
        overwrite: replace the run in `out`.
        overrides: dotted keys of the recipe, `{"objective.redundancy": 0.01}`.
        progress: show a live line.
        tell: receives one-line messages.
        flags: the command line's short flags by their names, `minutes=15` or `batch_size=256`. All of them are listed
            in `barlow.recipe.flags.FLAGS`; of `epochs`, `steps` and `minutes` one may be given.

    Returns:
        The encoder, the run folder, and the last logged metrics.

    Raises:
        ValueError: something given cannot be used; one line says what, and what to do.
        TypeError: a flag that does not exist.
        Interrupted: on Ctrl-C or SIGTERM, after saving.
    """
    changes = requested(data, objective=objective, encoder=encoder, overrides=overrides, **flags)
    if resume:
        chosen = resumed_recipe(load_recipe_text(Run.open(out).path / "recipe.yaml"), changes)
    else:
        chosen = new_recipe(recipe, changes)
    if not chosen.data.sources:
        raise RecipeError("no images are named; give a folder, or the name of a set (`barlow list datasets`)")
    given = Given(
        encoder if isinstance(encoder, nn.Module) else None,
        objective if chosen.objective["kind"].startswith(CUSTOM) and not isinstance(objective, str) else None,
    )
    with contextlib.ExitStack() as held:
        world = held.enter_context(joined(chosen.train.device))
        run = Run(Path(out)) if resume or not world.main else Run.create(out, overwrite=overwrite)
        if world.main:
            held.enter_context(run.locked())
        say = tell if tell is not None and world.main else lambda line: None
        pretraining = _Pretraining(run, given, world, say, resume, tell or (lambda line: None))
        return pretraining.run_recipe(chosen, progress=progress and world.main)


@dataclass
class _Pretraining:
    """One call of `pretrain`, in one of its processes."""

    run: Run
    given: Given
    world: World
    say: Say
    """Of the main process; the others are silent."""
    resume: bool
    tell: Say
    """Of every process, for what concerns its own images."""

    def run_recipe(self, chosen: Recipe, *, progress: bool) -> Result:
        run, world, say = self.run, self.world, self.say
        if world.main:
            for folder in (run.path, run.path / "encoder"):
                storage.remove_leftovers(folder)
        processes = f"; {world.size} processes" if world.size > 1 else ""
        say(f"reading {', '.join(chosen.data.sources)}{processes}")
        prepared = prepared_alike(chosen, world, self.given.objective)
        for line in prepared.reasons:
            say(line)
        loader = prepared.loader
        checkpoint = self._checkpoint(prepared.report) if self.resume else None
        plan = self._with_steps(prepared.plan, loader)
        total = plan.recipe.train.steps
        assert total is not None
        schedule = plan.recipe.schedule.build(total, loader.steps_per_epoch)
        if (warmup := plan.recipe.schedule.warmup(total, loader.steps_per_epoch)) >= total:
            say(
                f"warm-up  of {warmup} steps is longer than the run: cut to {max(total - 1, 0)}, and nothing follows it"
            )
        # Before anything is written: an unknown encoder leaves no run behind.
        learner = build_learner(plan, world, loader, self.given, say)
        start = 0
        if checkpoint is not None:
            learner.load(checkpoint.tensors, checkpoint.state)
            start = checkpoint.step
        if world.main:
            self._begin(plan, prepared, start)

        def save(step: int) -> None:
            tensors, rest = learner.state()
            run.save_checkpoint(step, tensors, {"total": total, **rest})

        log = MetricsLog(run, plan.recipe.train.log_steps, say)
        watchers = self._watchers(plan, log, save, progress)
        with stoppable(run, save, world) as stop_if_asked, _memory_explained(plan):
            train(
                learner,
                loader.stream(start, total),
                lambda step, of: plan.peak * schedule(step, of),
                total,
                [*watchers, stop_if_asked],
            )
        trained = learner.method.encoder.eval()
        if world.main:
            _write_encoder(run, trained, plan)
        world.share("written")
        weights.with_preprocessing(trained, plan.preprocessing)
        metrics = log.latest or (run.metrics() or [{}])[-1]
        return Result(encoder=trained, run_folder=run.path, metrics=metrics)

    def _checkpoint(self, report: Mapping[str, Any]) -> Any:
        """The newest checkpoint that can be read, or None."""
        run, world, checkpoint = self.run, self.world, None
        if world.main:
            _check_same_data(run, report)
            checkpoint, notes = run.load_checkpoint()  # which also sets damaged ones aside, so the main process first
            for note in notes:
                self.say(note)
        if world.share(str(checkpoint.step) if checkpoint else "none") != "none" and not world.main:
            checkpoint, _ = run.load_checkpoint()
        self.say(f"resumed at step {checkpoint.step}" if checkpoint else "no checkpoint yet; starting from step 0")
        return checkpoint

    def _with_steps(self, plan: Plan, loader: Loader) -> Plan:
        """Turns epochs or minutes into a number of steps, once; from then on the recipe says steps."""
        train = plan.recipe.train
        if train.steps is not None:
            return plan
        if train.epochs is not None:
            steps = max(1, round(train.epochs * loader.steps_per_epoch))
            self.say(f"steps {steps}: {train.epochs:g} epochs of {loader.steps_per_epoch}")
        else:
            assert train.minutes is not None
            with _memory_explained(plan):
                measured = seconds_per_step(build_learner(plan, self.world, loader, self.given.copied()), loader)
            seconds = float(self.world.share(repr(measured)))  # all make as many as the main process's clock allows
            steps = max(1, int(60 * train.minutes / seconds))
            self.say(f"steps {steps}: {train.minutes:g} minutes at {seconds:.3f} s a step, measured just now")
        fixed = schema.check(override(plan.recipe.as_dict(), {"train.steps": steps}))
        return replace(plan, recipe=fixed)

    def _begin(self, plan: Plan, prepared: plans.Prepared, start: int) -> None:
        """Writes what a run has before its first step; of a resumed one, only where it is gone on with."""
        run, recipe = self.run, plan.recipe
        if not self.resume:
            run.clear()  # with --overwrite; only now, when nothing the user gave can still turn out wrong
            what = (
                f"{recipe.objective['kind']} on {', '.join(map(printable, recipe.data.sources))}, seed {recipe.seed}."
            )
            header = f"# barlow pretrain -c recipe.yaml --out ANOTHER_FOLDER repeats this run. {what}\n"
            storage.write_json(run.path / "data.json", prepared.report)
            storage.write_png(run.path / "views.png", prepared.sheet())
            text = files.as_yaml(recipe.as_dict(), header)
            storage.write_text(run.path / "recipe.yaml", text)  # last: it is what makes the folder a run
        storage.write_json(run.path / "environment.json", environment(str(self.world.device), self.world.size))
        run.rewind_metrics(start)

    def _watchers(self, plan: Plan, log: MetricsLog, save: Callable[[int], None], progress: bool) -> list[Watcher]:
        watchers: list[Watcher] = [ReplacedImages(self.tell)]
        if self.world.main:
            train = plan.recipe.train
            watchers += [log, Checkpointer(save, train.checkpoint_minutes, train.checkpoint_steps)]
        if progress:
            from rich.console import Console

            watchers.insert(2, LiveLine(Console(stderr=True)))
        return watchers


def prepared_alike(chosen: Recipe, world: World, objective: Any = None) -> plans.Prepared:
    """What every process knows about the images. The first resolves what is `auto`; the others do as it did."""
    if world.main:
        prepared = plans.prepare(chosen, world, objective)
        world.share(json.dumps(prepared.plan.recipe.as_dict()))
        return prepared
    return plans.prepare(schema.check(json.loads(world.share(None))), world, objective)


def build_learner(
    plan: Plan, world: World, loader: Loader | None = None, given: Given | None = None, say: Say = lambda line: None
) -> Learner:
    """Networks, objective and optimizer: a function of the plan (and of what it names or was given) alone.

    Args:
        plan: what to build.
        world: the processes, each of which builds the same.
        loader: of the images, for objectives that look at all of them before an epoch.
        given: modules given in Python. They are copied.
        say: told where the weights start.
    """
    recipe, given = plan.recipe, given or Given()
    method = recipe.build_method().build(lambda: _new_encoder(plan, given.encoder, say), recipe.seed)
    if not isinstance(getattr(method, "encoder", None), nn.Module):
        raise ValueError(
            f"the method {recipe.method['kind']} has no network `encoder`, which the run is to keep; add it"
        )
    objective = plan.new_objective(given.objective)
    layout = torch.channels_last if recipe.train.channels_last else torch.contiguous_format
    method.to(device=world.device, memory_format=layout)
    if isinstance(objective, nn.Module):
        objective.to(world.device)
    optim, batch = recipe.optim, plan.batch_size
    optimizer = build_optimizer(
        named_parameters(method, objective),
        kind=optim.kind,
        lr=optim.peak(batch),
        vectors_lr=optim.vectors_peak(batch),
        weight_decay=optim.weight_decay,
        exclude_1d=optim.exclude_1d,
        momentum=optim.momentum,
        betas=optim.betas,
        eps=optim.eps,
        trust=optim.trust,
        clip=optim.clip,
        rules=optim.groups,
        fused=has_fused_kernels(optim.kind, world.device),
    )
    return Learner(
        method,
        objective,
        optimizer,
        world,
        precision=plan.precision,
        seed=recipe.seed,
        loss_weight=optim.loss_weight,
        rows_in_memory=recipe.train.rows_in_memory,
        activation_checkpointing=recipe.train.activation_checkpointing,
        all_rows=None if loader is None else loader.all_rows,
    )


def _new_encoder(plan: Plan, module: nn.Module | None, say: Say) -> tuple[nn.Module, int]:
    """An encoder with its first weights, and how many features it has."""
    section = plan.recipe.encoder
    if module is not None:
        encoder = copy.deepcopy(module)
    elif section.name.startswith(CUSTOM):
        raise RecipeError(f"the encoder is {section.name}: pass the module in Python, pretrain(encoder=...)")
    else:
        encoder = building.build_encoder(
            section.name,
            in_channels=plan.channels,
            image_size=plan.image_size,
            stem=plan.stem,
            zero_init_last=section.zero_init_last,
            seed=plan.recipe.seed,
            options=section.options,
        )
    if section.init is not None:
        say(f"start    {weights.initialise(encoder, section.init)}")
    return encoder, building.feature_width(encoder, plan.channels, plan.image_size)


MEASURED_SECONDS = 1.5
MEASURED_STEPS = (3, 30)
"""Steps that are left out (kernels are chosen, memory is touched for the first time), and at most counted."""


def seconds_per_step(throwaway: Learner, loader: Loader) -> float:
    """The time of a step, over the first steps of a learner that is thrown away, with its share of what an objective
    does before an epoch.

    The run itself is built anew from its seed afterwards, so measuring leaves no trace in it.
    """
    warm, most = MEASURED_STEPS
    world, times = throwaway.world, []

    def count(moment: Moment) -> None:
        synchronize(world.device)
        times.append(time.monotonic())
        if world.any(len(times) > warm + 2 and times[-1] - times[warm] > MEASURED_SECONDS):
            raise StopIteration

    with throwaway.training():
        began = time.monotonic()
        throwaway.begin_epoch(len(loader.pipeline.views))
        synchronize(world.device)
        before_epoch = time.monotonic() - began
    stream = loader.stream(0, warm + most)
    within_an_epoch = (replace(batch, begins_epoch=False) for batch in stream)
    with contextlib.closing(stream), contextlib.suppress(StopIteration):  # type: ignore[type-var]
        train(throwaway, within_an_epoch, lambda step, total: 1e-6, warm + most, [count])
    return (times[-1] - times[warm]) / (len(times) - 1 - warm) + before_epoch / loader.steps_per_epoch


def _memory_explained(plan: Plan) -> contextlib.AbstractContextManager[None]:
    return memory_explained(plan.batch_size, plan.image_size, plan.recipe.encoder.name)


def _check_same_data(run: Run, report: Mapping[str, Any]) -> None:
    before = storage.read_json(run.path / "data.json")
    if any(before[key] != report[key] for key in ("fingerprint", "usable")):
        raise RecipeError(
            f"the images have changed since {run.path} began ({before['usable']} usable then, {report['usable']} now, "
            "or other files); --resume needs the same images, all as readable as then. Restore them, or start a new run"
        )


def _write_encoder(run: Run, encoder: nn.Module, plan: Plan) -> None:
    section = plan.recipe.encoder
    tensors, config = weights.packed(
        encoder,
        name=section.name,
        stem=plan.stem,
        zero_init_last=section.zero_init_last,
        options=section.options,
        seed=plan.recipe.seed,
        preprocessing=plan.preprocessing,
    )
    storage.write_tensors(run.path / "encoder" / "model.safetensors", tensors)
    storage.write_json(run.path / "encoder" / "config.json", config)
