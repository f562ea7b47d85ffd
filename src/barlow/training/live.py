"""What a terminal shows while a run trains: one live line, and a count of what takes long before it."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from barlow.data.counting import Counts, words
from barlow.telling import unfailing
from barlow.training.watchers import MetricsLog, Moment, Throughput

if TYPE_CHECKING:
    from rich.console import Console


WORTH_SAYING = 0.1
"""Share of the time that is spent waiting for images, from which on the live line says so."""


@dataclass
class LiveLine:
    """One line that is rewritten on a terminal, and printed now and then elsewhere."""

    console: "Console"
    metrics: MetricsLog | None = None
    """Whose word on the run, and what is expected of its loss, is shown."""
    score: Callable[[], str | None] = lambda: None
    """The newest score of labelled images, if there are any."""
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
        parts = [
            f"step {moment.step}/{moment.total}",
            f"eta {_clock(left)}",
            *([] if self.metrics is None else [self.metrics.health.word]),
            *([] if (score := self.score()) is None else [score]),
            self._loss(moment.terms()),
            f"{images_per_second:.0f} img/s",
            *([f"wait {100 * wait:.0f}%"] if wait >= WORTH_SAYING else []),
        ]
        _show(self.console, " ".join(parts), ended=last)

    def _loss(self, terms: dict[str, float]) -> str:
        """The loss between its floor and what it is for unrelated views; where nothing is expected, with its terms."""
        reference = {} if self.metrics is None else self.metrics.reference
        unrelated, floor = reference.get("unrelated"), reference.get("floor")
        beside = ", ".join(f"{name} {_short(value)}" for name, value in terms.items())
        if unrelated is not None:
            beside = f"unrelated {_short(unrelated)}" + ("" if floor is None else f", floor {_short(floor)}")
        return f"loss {_short(sum(terms.values()))} ({beside})"


def _short(value: float) -> str:
    """A number in few characters: four digits and more as a whole number, fewer with three that count."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"


@dataclass
class Counter:
    """Shows how far a long reading is: a line that is rewritten on a terminal, and printed now and then elsewhere.

    Nothing is shown of a count that takes less than a pause. It is called for every image, so it looks at the clock and
    mostly does no more.
    """

    console: "Console"
    _shown_at: float = 0.0
    _counts: Counts = field(default_factory=Counts)
    _open: bool = False

    @classmethod
    def on_screen(cls) -> "Counter":
        return cls(screen())

    REFRESH_SECONDS = 0.5
    PLAIN_SECONDS = 10.0

    def __call__(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if self._counts.begins(what, done):
            self._shown_at = now
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


def screen() -> "Console":
    """Standard error. It is a terminal where messages take it for one, and not where only colours are asked for."""
    from rich.console import Console

    return Console(stderr=True, force_terminal=sys.stderr.isatty())


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
