"""`barlow pretrain`: what is set up around the loop, and what a run leaves behind."""

import contextlib
import copy
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from barlow import checkpoints, exits, storage, text_branch
from barlow.advice import after_training, before_training
from barlow.data.counting import not_shown
from barlow.data.inventory import TooManyUnreadable
from barlow.data.loader import Batch
from barlow.data.sources import FoldersOrName
from barlow.data.without_views import without_views
from barlow.data.workers import WorkersLost
from barlow.diagnostics.evidence import Movement
from barlow.diagnostics.health import Health
from barlow.distributed import Deserted, World, first_process, joined
from barlow.linalg import not_finite
from barlow.machine import environment, hang_seconds
from barlow.main_guard import check_main_guard, stop_if_imported_again
from barlow.nets import weights
from barlow.planning import fetching, preparation
from barlow.planning.plan import Plan
from barlow.recipe import files, schema
from barlow.recipe.changes import override
from barlow.recipe.request import requested
from barlow.recipe.schema import CUSTOM, Recipe
from barlow.runs import beginning
from barlow.runs.beginning import Begun
from barlow.runs.finishing import Finishing
from barlow.runs.ran import Ran
from barlow.runs.run import Run
from barlow.stopping import Asked, Interrupted, Requests, StopIfAsked, explained, listening, memory_explained
from barlow.telling import Say, once, silent, unfailing
from barlow.training.assembly import Given, Loader, build_learner, seconds_per_step
from barlow.training.event_file import EventFile, check_installed
from barlow.training.learner import Learner, NonFinite
from barlow.training.live import Counter, LiveLine, screen
from barlow.training.monitor import Monitor, monitor_of
from barlow.training.step_log import StepLog
from barlow.training.train import Course, train
from barlow.training.watchers import Checkpointer, EndIfCollapsed, MetricsLog, ReplacedImages, Watcher
from barlow.watchdog import FIRST_STEP, Watch, watching
from barlow.wording import in_arguments


@dataclass(frozen=True)
class Result:
    """What a run leaves behind."""

    encoder: nn.Module = field(repr=False)
    """In eval mode, with `.preprocessing`."""
    run_folder: Path
    metrics: dict[str, Any]
    """The last logged line: loss, terms, speed, embedding statistics."""
    advice: list[str] = field(default_factory=list)
    """What was reached, by the run's own curves, and what to try next: three lines at most."""


@in_arguments
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
    probe_with: FoldersOrName | None = None,
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
        resume: go on with the run in `out` from its newest checkpoint, or begin one if there is none. The same call can
            so be repeated until the run is through. A larger budget than the run had makes it longer.
        overwrite: replace the run in `out`.
        overrides: dotted keys of the recipe, `{"objective.redundancy": 0.01}`.
        progress: show a live line.
        probe_with: labelled images, a sub-folder for each class. Now and then kNN learns from a part of them and is
            measured on another; the scores go to monitor.jsonl. Nothing is trained on them. Do not give test images.
        tell: receives one-line messages.
        flags: the command line's short flags by their names, `minutes=15` or `batch_size=256`. All of them are listed
            in `barlow.recipe.flags.FLAGS`; of `epochs`, `steps` and `minutes` one may be given.

    Returns:
        The encoder, the run folder, and the last logged metrics.

    Raises:
        ValueError: something given cannot be used; one line says what, and what to do.
        TypeError: a flag that does not exist.
        Interrupted: on Ctrl-C, SIGTERM and what else asks to stop, after saving.
        Diverged: a loss, gradient or weight is not a finite number any more; the newest checkpoint is still good.
    """
    stop_if_imported_again()
    changes = requested(data, objective=objective, encoder=encoder, overrides=overrides, **flags)
    begun = beginning.of(Run(Path(out)), recipe, changes, resume=resume)
    chosen, shipped = begun.recipe, not begun.resumed and (recipe is None or recipe in files.names())
    check_main_guard(chosen.data.executor, chosen.data.workers)  # before anything is listed, or a folder made
    fetching.check_asked(chosen, changes, shipped=shipped, start_kept=begun.resumed and (Path(out) / "start").is_dir())
    given = Given(
        encoder if isinstance(encoder, nn.Module) else None,
        objective if chosen.objective["kind"].startswith(CUSTOM) and not isinstance(objective, str) else None,
    )
    pretraining: _Pretraining | None = None
    tell, limit = unfailing(tell), hang_seconds()
    speaks = tell if first_process() else silent
    with listening(speaks) as requests, _told_by_the_launcher(requests), contextlib.ExitStack() as held:
        try:
            world = held.enter_context(joined(chosen.train.device))
            run, check_held = Run(Path(out)), nothing
            if world.main and not begun.resumed:
                run = Run.create(out, overwrite=overwrite, resume=resume)
            if begun.resumed and (run.path / "start").is_dir():
                given = replace(given, start=run.path / "start")
            if world.main:
                check_held = held.enter_context(run.locked(tell))
                beginning.check_unchanged(begun, run, overwrite=overwrite, resume=resume)
            say = tell if world.main else silent
            watch = held.enter_context(watching(world, run.path, tell, limit))
            pretraining = _Pretraining(run, given, world, say, begun, tell, requests, watch, check_held, probe_with)
            return pretraining.run_recipe(chosen, progress=progress and world.main)
        except Asked as asked:
            raise Interrupted(f"stopped {pretraining.where if pretraining else BEFORE}") from asked
        finally:
            requests.finishing = True  # what is left to do is to leave, which a request must not interrupt


@contextlib.contextmanager
def _told_by_the_launcher(requests: Requests) -> Iterator[None]:
    """Where another process has gone and this one was asked to stop as well, the launcher has noticed, and says it."""
    try:
        yield
    except Deserted as error:
        if requests.asked:
            error.told, error.exit_code = True, exits.STOPPED
        raise


def nothing() -> None:
    """What the processes check that hold no lock."""


BEFORE = "before the first step, and nothing is lost: give the same command again"
AFTER = "after the last step, saved. To get the encoder: barlow pretrain --resume --out {}"


@dataclass
class _Pretraining:
    """One call of `pretrain`, in one of its processes."""

    run: Run
    given: Given
    world: World
    say: Say
    """Of the main process; the others are silent."""
    begun: Begun
    tell: Say
    """Of every process, for what concerns its own images."""
    requests: Requests
    watch: Watch
    check_held: Callable[[], None]
    """Raises where the run folder is not the one any more that was locked."""
    probe_with: FoldersOrName | None
    """Labelled images that scores are measured with while it trains."""
    where: str = BEFORE
    """How far it has come, for whoever asks to stop while nothing is under way."""

    def __post_init__(self) -> None:
        self.once = once(self.say)  # for what is met again and again

    def run_recipe(self, chosen: Recipe, *, progress: bool) -> Result:
        run, world, say = self.run, self.world, self.say
        if world.main:
            run.remove_leftovers(say)
        processes = f"; {world.size} processes" if world.size > 1 else ""
        say(f"reading {', '.join(chosen.data.sources)}{processes}")
        shown = Counter.on_screen() if progress else not_shown
        counted = self.watch.counted(shown)
        with self._bad_images_listed():
            prepared = preparation.prepare_alike(chosen, world, self.given.objective, counted)
        for line in prepared.reasons:
            say(line)
        loader = prepared.loader
        checkpoint = beginning.checkpoint_of(self.begun, run, world, prepared.report, say, self.given.encoder)
        plan = self._with_steps(prepared.plan, loader)
        total = plan.recipe.train.steps
        assert total is not None
        ran = Ran.of(plan.recipe.as_dict(), prepared.report)
        for line in [] if self.begun.resumed else before_training(ran):
            say(line)
        course = self._course(plan, loader)
        check_installed(plan.recipe.train.tensorboard)
        # Before anything is written: an unknown encoder leaves no run behind.
        learner = build_learner(plan, world, loader, self.given, say)
        start = 0 if checkpoint is None else checkpoint.step
        if checkpoint is not None:
            learner.load(checkpoint.tensors, checkpoint.state)
        logs = [StepLog(run.path / name, say, since=start) for name in ("metrics.jsonl", "monitor.jsonl")]
        expected, movement = plan.expected(self.given.objective), Movement([p for _, p in learner.named_parameters()])
        log = MetricsLog(logs[0], plan.recipe.train.log_steps, say, Health(ran.about), expected, movement)
        monitor = None
        if world.main and start < total:
            monitor = monitor_of(plan, prepared, learner, logs[1], self.probe_with, say, counted)
        finishing = Finishing(plan.recipe, plan.preprocessing, prepared.source, np.asarray(prepared.ids), shown)
        given = plan.recipe.encoder.init is not None and not self.begun.resumed
        first = finishing.finished(copy.deepcopy(learner.method.encoder), world) if given else None
        save = self._saver(learner, plan)
        if world.main:
            write_start = None if first is None else lambda: finishing.write(run.path / "start", first)
            self._begin(plan, prepared, start, write_start, save)
            log.take_up(start)
            logs[1].rewind()
        if start == total:
            say(f"finished at step {start} already; a larger --steps, --epochs or --minutes goes on from there")
        stop = StopIfAsked(self.requests, world, save, run, start, total)
        watchers = self._watchers(plan, log, monitor, start, save, progress, prepared.source.locate)
        stop.judged_by(self.watch, learner.settle)
        with log.last_words(lambda: stop.step, kept=world.main), explained(plan, run, prepared.source.locate):
            if monitor is not None and start == 0 and not run.monitored():
                monitor.look(0)
            self._train(learner, loader, course, watchers, stop)
        self.watch.save, self.where = None, AFTER.format(run.path)
        trained = finishing.finished(learner.method.encoder, world)
        if world.main:
            self.check_held()
            finishing.write(run.path / "encoder", trained)
            text_branch.write(run.path, plan.recipe, learner.method, prepared.vocabulary)
        world.share("written")
        weights.with_preprocessing(trained, plan.preprocessing)
        metrics = log.latest or (run.metrics() or [{}])[-1]
        advice = after_training(ran, run.metrics()) if world.main else []
        return Result(encoder=trained, run_folder=run.path, metrics=metrics, advice=advice)

    def _train(
        self, learner: Learner, loader: Loader, course: Course, watchers: list[Watcher], stop: StopIfAsked
    ) -> None:
        """All steps that are left. A request to stop that comes while images are waited for is answered at once."""
        held = learner.method.holds_features
        stream: Iterator[Any] = (partial(without_views, loader) if held else loader.stream)(stop.step, course.total)
        if held:
            self.watch.doing("computing the features of all images")
        try:
            with self.requests.finished_first():
                # Several processes can only stop at the end of a step, together.
                between = stream if self.world.size > 1 else self.requests.between(stream)
                judged = self.watch.steps(between, stop.step, loader.patience, _looks_at_all_images(learner, course))
                train(learner, judged, course, [*watchers, stop])
        except Asked:
            learner.settle()
            stop.stop()
        except WorkersLost as lost:
            learner.settle()
            stop.stop(f"{lost}. ")

    def _course(self, plan: Plan, loader: Loader) -> Course:
        total, scheduled = plan.recipe.train.steps, plan.recipe.schedule.steps
        assert total is not None
        length = scheduled or total
        if (warmup := plan.recipe.schedule.warmup(length, loader.steps_per_epoch)) >= length:
            self.say(
                f"warm-up  of {warmup} steps is longer than the run: cut to {max(length - 1, 0)}, and nothing follows "
                "it"
            )
        return Course(total, plan.peak, plan.recipe.schedule.build(length, loader.steps_per_epoch), scheduled)

    def _saver(self, learner: Learner, plan: Plan) -> Callable[[int], None]:
        """Commits a checkpoint of a step. What is not finite is never stored."""

        def save(step: int) -> None:
            tensors, rest = learner.state()
            if broken := not_finite(tensors):
                raise NonFinite(f"step {step}: {broken[0]} is not finite any more, so this state was not saved")
            mark = {**self.begun.identity.mark, "recipe": plan.recipe.as_dict()}
            self.check_held()
            with self.watch.saving_step(step):
                state = {"total": plan.recipe.train.steps, **mark, **rest}
                checkpoints.save(self.run.path, step, tensors, state, self.once)

        return save

    def _with_steps(self, plan: Plan, loader: Loader) -> Plan:
        """Turns epochs or minutes into a number of steps, once; from then on the recipe says steps.

        A run that is gone on with has its steps, and more where a larger budget was asked for.
        """
        train, budget = plan.recipe.train, self.begun.budget
        if self.begun.resumed:
            assert train.steps is not None
            wanted = beginning.steps_of(self.begun, loader.steps_per_epoch, lambda: self._seconds(plan, loader))
            changes, why = beginning.extended(plan.recipe, wanted, budget)
            for line in why:
                self.say(line)
            return replace(plan, recipe=schema.check(override(plan.recipe.as_dict(), changes)))
        if train.steps is not None:
            steps = train.steps
        elif train.epochs is not None:
            steps = max(1, round(train.epochs * loader.steps_per_epoch))
            self.say(f"steps {steps}: {train.epochs:g} epochs of {loader.steps_per_epoch}")
        else:
            assert train.minutes is not None
            seconds = self._seconds(plan, loader)
            steps = max(1, int(60 * train.minutes / seconds))
            self.say(
                f"steps {steps}: {train.minutes:g} minutes at {seconds:.3f} s a step, measured just now; "
                f"{steps / loader.steps_per_epoch:.3g} epochs"
            )
        return replace(plan, recipe=beginning.of_length(self.begun, plan.recipe, steps))

    def _seconds(self, plan: Plan, loader: Loader) -> float:
        """The time of a step, the same for all processes."""
        self.watch.doing("measuring the time of a step", FIRST_STEP * self.watch.limit)
        with memory_explained(plan.batch_size, plan.image_size, plan.recipe.encoder.name):
            measured = seconds_per_step(build_learner(plan, self.world, loader, self.given.copied()), loader)
        self.watch.doing("beginning")
        return float(self.world.share(repr(measured)))  # all make as many as the main process's clock allows

    def _begin(
        self,
        plan: Plan,
        prepared: preparation.Prepared,
        start: int,
        write_start: Callable[[], None] | None,
        save: Callable[[int], None],
    ) -> None:
        """Writes what a run has before its first step; of a resumed one, only where it is gone on with."""
        run, recipe = self.run, plan.recipe.as_dict()
        now = environment(str(self.world.device), self.world.size)
        for line in self.begun.differences(now):
            self.say(line)
        self.begun = self.begun.with_start(recipe, start, now)
        if not self.begun.resumed:
            run.clear()  # with --overwrite; only now, when nothing the user gave can still turn out wrong
            prepared.write(run.path)
            if write_start is not None:
                write_start()
            save(0)
            beginning.check_space(run)
        self.begun.identity.write(run)
        beginning.write_recipe(run, plan.recipe)  # last: it is what makes the folder a run
        checkpoints.rotate(run.path, self.once)

    @contextlib.contextmanager
    def _bad_images_listed(self) -> Iterator[None]:
        """Where too many images cannot be read, leaves the list of them in data.json before it stops."""
        try:
            yield
        except TooManyUnreadable as error:
            path = self.run.path / "data.json"
            if not self.world.main or self.run.exists():  # the list of a run that is there is that run's
                raise
            storage.write_sealed(path, error.report)
            raise TooManyUnreadable(f"{error}. All of them are listed in {path}", error.report) from None

    def _watchers(
        self,
        plan: Plan,
        log: MetricsLog,
        monitor: Monitor | None,
        start: int,
        save: Callable[[int], None],
        progress: bool,
        locate: Callable[[int], str],
    ) -> list[Watcher]:
        watchers: list[Watcher] = [ReplacedImages(self.tell, locate)]
        train = plan.recipe.train
        if self.world.main:
            watchers += [log] if monitor is None else [log, monitor]
            watchers.append(Checkpointer(save, train.checkpoint_minutes, train.checkpoint_steps, self.say))
            watchers += [EventFile(log, self.run.path, start, self.say)] if train.tensorboard else []
        if progress:
            watchers.insert(2, LiveLine(screen(), log, lambda: None if monitor is None else monitor.score))
        return watchers + ([EndIfCollapsed(log, self.world, save, self.run.path)] if train.stop_if_collapsed else [])


def _looks_at_all_images(learner: Learner, course: Course) -> Callable[[Batch], bool]:
    """Whether the step of a batch begins with an objective's look at all images, however long that takes."""
    return lambda batch: learner.looks(batch.step, course.progress(batch.step), begins_epoch=batch.begins_epoch)
