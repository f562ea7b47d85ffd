"""`barlow pretrain`: what is set up around the loop, and what a run leaves behind."""

import contextlib
import copy
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from barlow import preparation, storage
from barlow.advice import Ran, after_training, before_training
from barlow.assembly import Given, Loader, Say, build_learner, seconds_per_step
from barlow.data import identity
from barlow.data.centre import centre_views
from barlow.data.counting import Counted, not_shown
from barlow.data.folder import printable
from barlow.data.inventory import TooManyUnreadable
from barlow.data.sources import FoldersOrName
from barlow.distributed import World, joined
from barlow.machine import available_cores, environment
from barlow.nets import weights
from barlow.nets.handed_out import IMAGES, HandedOut, handed_out
from barlow.plan import Plan
from barlow.recipe import files, schema
from barlow.recipe.changes import override
from barlow.recipe.messages import RecipeError
from barlow.recipe.request import new_recipe, requested, resumed_recipe
from barlow.recipe.schema import CUSTOM, Recipe
from barlow.run import Run, load_recipe_text
from barlow.stopping import memory_explained, stoppable
from barlow.train import train
from barlow.views.keys import permutation
from barlow.watchers import Checkpointer, Counter, LiveLine, MetricsLog, ReplacedImages, Watcher


@dataclass(frozen=True)
class Result:
    """What a run leaves behind."""

    encoder: nn.Module
    """In eval mode, with `.preprocessing`."""
    run_folder: Path
    metrics: dict[str, Any]
    """The last logged line: loss, terms, speed, embedding statistics."""
    advice: list[str] = field(default_factory=list)
    """What was reached, by the run's own curves, and what to try next: three lines at most."""


def pretrain(
    data: FoldersOrName | None = None,
    out: str | os.PathLike[str] = "runs/barlow",
    *,
    recipe: str | None = None,
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
        recipe: a shipped recipe's name or a YAML file. By default small_w_mse, or the recipe of the objective or of
            weights (`init`) that are asked for.
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
        if resume and (run.path / "start").is_dir():
            given = replace(given, start=run.path / "start")
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
            for folder in (run.path, run.path / "start", run.path / "encoder"):
                storage.remove_leftovers(folder)
        processes = f"; {world.size} processes" if world.size > 1 else ""
        say(f"reading {', '.join(chosen.data.sources)}{processes}")
        counted = _counter() if progress else not_shown
        with self._bad_images_listed():
            prepared = prepared_alike(chosen, world, self.given.objective, counted)
        for line in prepared.reasons:
            say(line)
        loader = prepared.loader
        checkpoint = self._checkpoint(prepared.report) if self.resume else None
        plan = self._with_steps(prepared.plan, loader)
        total = plan.recipe.train.steps
        assert total is not None
        ran = Ran.of(plan.recipe.as_dict(), prepared.report)
        for line in [] if self.resume else before_training(ran):
            say(line)
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
        first = None
        if plan.recipe.encoder.init is not None and not self.resume:
            first = _finished(copy.deepcopy(learner.method.encoder), plan, prepared, world)
        if world.main:
            self._begin(plan, prepared, start, first)

        def save(step: int) -> None:
            tensors, rest = learner.state()
            run.save_checkpoint(step, tensors, {"total": total, **rest})

        log = MetricsLog(run, plan.recipe.train.log_steps, say)
        watchers = self._watchers(plan, log, save, progress, prepared.source.locate)
        with stoppable(run, save, world) as stop_if_asked, _memory_explained(plan):
            train(
                learner,
                loader.stream(start, total),
                lambda step, of: plan.peak * schedule(step, of),
                total,
                [*watchers, stop_if_asked],
            )
        trained = _finished(learner.method.encoder, plan, prepared, world)
        if world.main:
            _write_encoder(run.path / "encoder", trained, plan)
        world.share("written")
        weights.with_preprocessing(trained, plan.preprocessing)
        metrics = log.latest or (run.metrics() or [{}])[-1]
        advice = after_training(ran, run.metrics()) if world.main else []
        return Result(encoder=trained, run_folder=run.path, metrics=metrics, advice=advice)

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
            self.say(
                f"steps {steps}: {train.minutes:g} minutes at {seconds:.3f} s a step, measured just now; "
                f"{steps / loader.steps_per_epoch:.3g} epochs"
            )
        fixed = schema.check(override(plan.recipe.as_dict(), {"train.steps": steps}))
        return replace(plan, recipe=fixed)

    def _begin(self, plan: Plan, prepared: preparation.Prepared, start: int, first: nn.Module | None) -> None:
        """Writes what a run has before its first step; of a resumed one, only where it is gone on with."""
        run, recipe = self.run, plan.recipe
        if not self.resume:
            run.clear()  # with --overwrite; only now, when nothing the user gave can still turn out wrong
            what = (
                f"{recipe.objective['kind']} on {', '.join(map(printable, recipe.data.sources))}, seed {recipe.seed}."
            )
            header = f"# barlow pretrain -c recipe.yaml --out ANOTHER_FOLDER repeats this run. {what}\n"
            storage.write_json(run.path / "data.json", prepared.report)
            storage.write_json(run.path / "images.json", identity.as_json(prepared.digests))
            storage.write_png(run.path / "views.png", prepared.sheet())
            if first is not None:
                _write_encoder(run.path / "start", first, plan)
            text = files.as_yaml(recipe.as_dict(), header)
            storage.write_text(run.path / "recipe.yaml", text)  # last: it is what makes the folder a run
        storage.write_json(run.path / "environment.json", environment(str(self.world.device), self.world.size))
        run.rewind_metrics(start)

    @contextlib.contextmanager
    def _bad_images_listed(self) -> Iterator[None]:
        """Where too many images cannot be read, leaves the list of them in data.json before it stops."""
        try:
            yield
        except TooManyUnreadable as error:
            path = self.run.path / "data.json"
            if not self.world.main or self.resume:
                raise
            storage.write_json(path, error.report)
            raise TooManyUnreadable(f"{error}. All of them are listed in {path}", error.report) from None

    def _watchers(
        self,
        plan: Plan,
        log: MetricsLog,
        save: Callable[[int], None],
        progress: bool,
        locate: Callable[[int], str],
    ) -> list[Watcher]:
        watchers: list[Watcher] = [ReplacedImages(self.tell, locate)]
        if self.world.main:
            train = plan.recipe.train
            watchers += [log, Checkpointer(save, train.checkpoint_minutes, train.checkpoint_steps)]
        if progress:
            from rich.console import Console

            watchers.insert(2, LiveLine(Console(stderr=True)))
        return watchers


def _counter() -> Counter:
    from rich.console import Console

    return Counter(Console(stderr=True))


def prepared_alike(
    chosen: Recipe, world: World, objective: Any = None, counted: Counted = not_shown
) -> preparation.Prepared:
    """What every process knows about the images. The first resolves what is `auto`; the others do as it did."""
    if world.main:
        prepared = preparation.prepare(chosen, world, objective, counted)
        world.share(json.dumps(prepared.plan.recipe.as_dict()))
        return prepared
    return preparation.prepare(schema.check(json.loads(world.share(None))), world, objective)


def _memory_explained(plan: Plan) -> contextlib.AbstractContextManager[None]:
    return memory_explained(plan.batch_size, plan.image_size, plan.recipe.encoder.name)


def _check_same_data(run: Run, report: Mapping[str, Any]) -> None:
    before = storage.read_json(run.path / "data.json")
    if any(before[key] != report[key] for key in ("fingerprint", "usable")):
        raise RecipeError(
            f"the images have changed since {run.path} began ({before['usable']} usable then, {report['usable']} now, "
            "or other files); --resume needs the same images, all as readable as then. Restore them, or start a new run"
        )


def _finished(encoder: nn.Module, plan: Plan, prepared: preparation.Prepared, world: World) -> nn.Module:
    """An encoder as it is handed out: in eval mode, with the stages and the whitening that the recipe asks for."""
    section = plan.recipe.encoder
    finished = handed_out(encoder.eval(), section.stages, section.whiten).eval().to(world.device)
    if isinstance(finished, HandedOut) and section.whiten is not None:
        ids = np.asarray(prepared.ids)[permutation(plan.recipe.seed, 0, len(prepared.ids))[:IMAGES]]
        own, threads = ids[world.rank :: world.size], max(1, available_cores() // world.neighbours)
        views = centre_views(prepared.source, own, plan.preprocessing, batch_size=256, workers=threads)
        finished.fit((view.to(world.device) for view in views), section.whiten, world)
    return finished


def _write_encoder(folder: Path, encoder: nn.Module, plan: Plan) -> None:
    section = plan.recipe.encoder
    tensors, config = weights.packed(
        encoder,
        name=section.name,
        stem=plan.stem,
        zero_init_last=section.zero_init_last,
        options=section.options,
        seed=plan.recipe.seed,
        preprocessing=plan.preprocessing,
        stages=section.stages,
        whiten=section.whiten,
    )
    storage.write_tensors(folder / "model.safetensors", tensors)
    storage.write_json(folder / "config.json", config)
