"""What happens beside the loop: the log, the live line, checkpoints. Each watcher knows when it is due."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from barlow import storage
from barlow.data.counting import words
from barlow.data.folder import printable
from barlow.diagnostics import concerns, embedding_statistics, healthy_ranges
from barlow.run import Run
from barlow.seals import sealed
from barlow.telling import unfailing

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from barlow.data.loader import Batch
    from barlow.learner import Outcome
    from barlow.types import Outputs


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

    def __call__(self, moment: Moment) -> None: ...


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


def _judged(outputs: "Outputs") -> "dict[str, Tensor]":
    """What is looked at for collapse: the first view's features, and its embeddings where views are compared.

    A classifier's logits are compared with classes, not with another view; to lie in few directions is their task.
    """
    judged = {"features": outputs.features[0].detach()}
    if len(outputs.groups[0]) > 1:
        judged["embeddings"] = outputs.groups[0][0].detach()
    return judged


@dataclass
class MetricsLog:
    """A line of `metrics.jsonl` every `every` steps and after the last: terms, rate, speed, and what the batch's own
    features and embeddings say about collapse (no extra forward pass)."""

    run: Run
    every: int
    warn: Callable[[str], None]
    since: int | None = None
    """The step that the log is still to be rewound to, before its next line."""
    started: float = field(default_factory=time.monotonic)
    latest: dict[str, Any] = field(default_factory=dict)
    _speed: Throughput = field(default_factory=Throughput)
    _warned: set[str] = field(default_factory=set)

    def __call__(self, moment: Moment) -> None:
        self._speed.add(moment)
        if moment.step % self.every and moment.step != moment.total:
            return
        moment.settle()
        images_per_second, wait = self._speed.read()
        terms = moment.terms()
        judged = _judged(moment.outcome.outputs)
        states = {name: embedding_statistics(z) for name, z in judged.items()}
        self.latest = {
            "step": moment.step,
            "epoch": moment.batch.epoch,
            "loss": sum(terms.values()),
            "terms": terms,
            "rate": moment.outcome.rate,
            "gradient_norm": float(moment.outcome.gradient_norm),
            "images_per_second": round(images_per_second, 1),
            "data_wait": round(wait, 4),
            "seconds": round(time.monotonic() - self.started, 2),
            "replaced": len(moment.batch.replaced),
            **states,
            "healthy": {name: healthy_ranges(*z.shape) for name, z in judged.items()},
        }
        try:
            self._rewind()
            storage.append_line(self.run.path / "metrics.jsonl", sealed(self.latest))
        except storage.StorageError as error:  # a log is worth less than a step
            self._warn_once("log", f"{error}; training goes on without these lines")
        if moment.step >= 0.1 * moment.total:  # the first tenth is the way out of a random start
            for name, z in judged.items():
                for concern in concerns(states[name], *z.shape):
                    kind = f"{name} {concern.partition(':')[0]}"  # what follows has the step's own numbers in it
                    self._warn_once(kind, f"step {moment.step}, {name}: {concern}")

    def rewind(self) -> None:
        """Forgets the lines of steps that are about to be run again. Where that fails, the next line tries it again."""
        try:
            self._rewind()
        except storage.StorageError as error:
            self._warn_once("log", f"{error}; training goes on without these lines")

    def _rewind(self) -> None:
        if self.since is not None:
            if bad := self.run.rewind_metrics(self.since):
                lines = "a line that is" if bad == 1 else f"{bad} lines that are"
                path = self.run.path / "metrics.jsonl"
                self.warn(f"{path} had {lines} damaged or cut short, now in metrics.jsonl.bad")
            self.since = None

    def _warn_once(self, kind: str, line: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            self.warn(line)


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


@dataclass
class LiveLine:
    """One line that is rewritten on a terminal, and printed now and then elsewhere."""

    console: "Console"
    started: float = field(default_factory=time.monotonic)
    first_step: int | None = None
    _shown_at: float = 0.0
    _speed: Throughput = field(default_factory=Throughput)

    REFRESH_SECONDS = 0.5
    PLAIN_SECONDS = 30.0

    def __call__(self, moment: Moment) -> None:
        self._speed.add(moment)
        if self.first_step is None:
            self.first_step, self.started = moment.step, time.monotonic()
        now, last = time.monotonic(), moment.step == moment.total
        pause = self.REFRESH_SECONDS if self.console.is_terminal else self.PLAIN_SECONDS
        if not last and now - self._shown_at < pause:
            return
        self._shown_at = now
        moment.settle()
        images_per_second, wait = self._speed.read()
        done = moment.step - self.first_step
        left = (now - self.started) / done * (moment.total - moment.step) if done else float("nan")
        terms = moment.terms()
        parts = [
            f"step {moment.step}/{moment.total}",
            f"loss {sum(terms.values()):.4g} (" + ", ".join(f"{n} {v:.3g}" for n, v in terms.items()) + ")",
            f"{images_per_second:.0f} img/s",
            f"wait {100 * wait:.0f}%",
            f"eta {_clock(left)}",
        ]
        _show(self.console, " ".join(parts), ended=last)


@dataclass
class Counter:
    """Shows how far a long reading is: a line that is rewritten on a terminal, and printed now and then elsewhere.

    Nothing is shown of what takes less than a pause. It is called for every image, so it looks at the clock and mostly
    does no more.
    """

    console: "Console"
    _shown_at: float = field(default_factory=lambda: time.monotonic())
    _open: bool = False

    REFRESH_SECONDS = 0.5
    PLAIN_SECONDS = 10.0

    def __call__(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        pause = self.REFRESH_SECONDS if self.console.is_terminal else self.PLAIN_SECONDS
        if now - self._shown_at < pause:
            if self._open and done == total:
                self.close()
            return
        self._shown_at = now
        _show(self.console, words(what, done, total), ended=False)
        self._open = self.console.is_terminal
        if done == total:
            self.close()

    def close(self) -> None:
        """Leaves the terminal an empty line for what comes next."""
        if self._open:
            _write(self.console, "\r\x1b[K")
            self._open = False


def _show(console: "Console", line: str, *, ended: bool) -> None:
    """Writes a line, on a terminal over the one before unless that had ended."""
    if console.is_terminal:
        width = console.width - 1
        _write(console, "\r" + line[:width].ljust(width) + ("\n" if ended else ""))
    else:
        _write(console, line + "\n")


def _write(console: "Console", text: str) -> None:
    """Puts text on a screen, if that can be done: what is only shown may fail."""

    def put(text: str) -> None:
        console.file.write(text)
        console.file.flush()

    unfailing(put)(text)


def _clock(seconds: float) -> str:
    if seconds != seconds:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
