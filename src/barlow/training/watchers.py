"""What happens beside the loop: the log, checkpoints, an end on collapse. Each watcher knows when it is due."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from barlow import storage
from barlow.data.folder import printable
from barlow.diagnostics import embedding_statistics, healthy_ranges
from barlow.diagnostics.doctor import OPENING
from barlow.diagnostics.evidence import Movement, of_views
from barlow.diagnostics.health import COLLAPSED, DIVERGED, Health
from barlow.distributed import World
from barlow.exits import Collapsed, Diverged
from barlow.training import step_log

if TYPE_CHECKING:
    from barlow.data.loader import Batch
    from barlow.training.learner import Outcome


@dataclass(frozen=True)
class Moment:
    """The state of training right after an update."""

    batch: "Batch"
    """This process's part of it."""
    outcome: "Outcome"
    total: int
    """Updates that the run makes."""
    processes: int
    wait_seconds: float
    """How long this step waited for its images."""
    step_seconds: float
    """The whole step, waiting included."""
    settle: Callable[[], None]
    """Raises what is wrong with the steps so far. Whoever keeps or shows something of a step calls it first: on a GPU
    the loop itself looks a step later, and this waits."""

    @property
    def step(self) -> int:
        """Updates done, this one included."""
        return self.batch.step + 1

    @property
    def images(self) -> int:
        """Images of the global batch."""
        return len(self.batch.rows) * self.processes

    def terms(self) -> dict[str, float]:
        """The terms of the loss as numbers; on a GPU this waits."""
        return {name: float(value.detach()) for name, value in self.outcome.terms.items()}


class Watcher(Protocol):
    """Called after every update."""

    def __call__(self, moment: Moment, /) -> None: ...


@dataclass
class Throughput:
    """Images per second and the share of time spent waiting for data, since the last reading."""

    seconds: float = 0.0
    wait: float = 0.0
    images: int = 0

    def add(self, moment: Moment) -> None:
        self.seconds += moment.step_seconds
        self.wait += moment.wait_seconds
        self.images += moment.images

    def read(self) -> tuple[float, float]:
        """(images per second, share of the time spent waiting), and starts anew."""
        rates = (self.images / max(self.seconds, 1e-9), self.wait / max(self.seconds, 1e-9))
        self.seconds, self.wait, self.images = 0.0, 0.0, 0
        return rates


@dataclass(frozen=True)
class ReplacedImages:
    """Tells of every image that could not be read any more and was replaced; each process of its own."""

    warn: Callable[[str], None]
    locate: Callable[[int], str]
    """Where a person finds an image, from its id."""

    def __call__(self, moment: Moment) -> None:
        for note in moment.batch.notes:
            self.warn(note)
        for bad, instead, reason in moment.batch.replaced:
            where, other = printable(self.locate(bad)), printable(self.locate(instead))
            self.warn(f"{where} could not be read ({reason}); {other} took its place")


Expected = Callable[[int, int, int], "tuple[float | None, float | None]"]
"""Of a loss, by rows of the batch, width of the embeddings and number of groups: what it is for views that have nothing
in common, and its floor. None where no formula is known."""


@dataclass
class MetricsLog:
    """A line of `metrics.jsonl` every `every` steps, after the first and after the last: terms, rate, speed, and what
    the batch's own features and embeddings say about collapse (no extra forward pass). A step that finds parts without
    gradient has a line at once. The first step's is for curves, and the doctor does not read it (`OPENING`)."""

    log: step_log.StepLog
    every: int
    say: Callable[[str], None]
    health: Health
    expected: Expected = lambda rows, width, groups: (None, None)
    movement: Movement | None = None
    started: float = field(default_factory=time.monotonic)
    latest: dict[str, Any] = field(default_factory=dict)
    reference: dict[str, float | None] = field(default_factory=dict)
    """What is expected of the loss; known from the first step on."""
    _speed: Throughput = field(default_factory=Throughput)

    def __call__(self, moment: Moment) -> None:
        self._speed.add(moment)
        if not self.reference:
            groups = moment.outcome.outputs.groups
            expected = self.expected(moment.images, groups[0][0].shape[1], len(groups))
            self.reference = dict(zip(("unrelated", "floor"), expected, strict=True))
        idle = list(moment.outcome.without_gradient)
        due = moment.step % self.every == 0 or moment.step == moment.total or bool(idle)
        if not due and moment.step > 1:
            return
        opening = not due
        moment.settle()
        images_per_second, wait = self._speed.read()
        terms = moment.terms()
        outputs = moment.outcome.outputs
        judged = outputs.compared()
        self.latest = {
            "step": moment.step,
            "total": moment.total,
            "epoch": moment.batch.epoch,
            "loss": sum(terms.values()),
            "terms": terms,
            "reference": self.reference,
            "rate": moment.outcome.rate,
            "gradient_norm": float(moment.outcome.gradient_norm),
            "images_per_second": round(images_per_second, 1),
            "data_wait": round(wait, 4),
            "seconds": round(time.monotonic() - self.started, 2),
            "replaced": len(moment.batch.replaced),
            **{name: embedding_statistics(z) for name, z in judged.items()},
            "views": of_views(moment.batch.rows.views, outputs.groups[0], outputs.features),
            "moved": None if self.movement is None or opening else self.movement.read(),
            **({OPENING: True} if opening else {}),
            **({"without_gradient": idle} if idle else {}),
            "healthy": {name: healthy_ranges(*z.shape) for name, z in judged.items()},
        }
        if self.health.read(self.latest):
            self.say(f"step {moment.step}: {self.health}")
        self.latest |= {"state": self.health.word, "why": self.health.why}
        self.log.append(self.latest)

    def take_up(self, since: int) -> None:
        """Forgets the lines of steps that are about to be made again. By those before them the run is judged on, and
        where they told of something wrong, that is said once more.

        Args:
            since: the step from which on the run is gone on with.
        """
        self.log.rewind()
        health = Health(self.health.about)
        try:
            health.recall(lines := [line for line in step_log.lines(self.log.path) if line["step"] <= since])
        except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError):  # a log of another form
            self.say(f"{self.log.path} cannot be read, so the run is judged by its lines from here on")
            return
        self.health = health
        if self.health.why is not None:
            self.say(f"step {lines[-1]['step']}: {self.health}")

    @contextlib.contextmanager
    def last_words(self, step: Callable[[], int], *, kept: bool) -> Iterator[None]:
        """Where training ends because numbers are none any more, the log says so: a report has nothing else to go by.

        Args:
            step: how many updates were done.
            kept: whether this process keeps the log.
        """
        try:
            yield
        except Diverged as error:
            if kept:
                self.log.append({"step": step() + 1, "state": DIVERGED, "why": str(error)})
            raise


@dataclass
class Checkpointer:
    """Commits a checkpoint every so many minutes or steps, and after the last step.

    One that cannot be written (a full disk) is tried again when the next is due, and training goes on meanwhile. Only
    after the last step there is no next one.
    """

    save: Callable[[int], None]
    minutes: float | None
    steps: int | None
    warn: Callable[[str], None]
    _saved_at: float = field(default_factory=time.monotonic)
    _failed: bool = False

    def __call__(self, moment: Moment) -> None:
        by_steps = self.steps is not None and moment.step % self.steps == 0
        by_time = self.minutes is not None and time.monotonic() - self._saved_at >= 60 * self.minutes
        if by_steps or by_time or moment.step == moment.total:
            moment.settle()
            try:
                self.save(moment.step)
            except storage.StorageError as error:
                if moment.step == moment.total:
                    raise
                if not self._failed:
                    self.warn(f"{error}. Training goes on, and the next checkpoint is tried when it is due")
                self._failed = True
            else:
                self._failed = False
            self._saved_at = time.monotonic()


LASTING = 5
"""Lines of the log in a row that say `collapsed` before a run ends because of it: networks come out of a short one."""


@dataclass
class EndIfCollapsed:
    """Ends a run that has collapsed and stays so. All processes end together, so each asks after each logged step.

    Raises:
        Collapsed: from the watcher, with the reason. The state is saved.
    """

    log: MetricsLog
    world: World
    save: Callable[[int], None]
    run: Path

    def __call__(self, moment: Moment) -> None:
        if moment.step % self.log.every or moment.step == moment.total:
            return
        health = self.log.health
        if not self.world.any(health.word == COLLAPSED and health.lines >= LASTING):
            return
        if self.world.main:
            self.save(moment.step)
        why = self.world.share(health.why)
        raise Collapsed(
            f"step {moment.step}: {why}. It has been so for {LASTING} lines of the log, so the run ends here, saved. "
            f"To go on all the same: barlow pretrain --resume --out {self.run} --train.stop_if_collapsed false"
        )
