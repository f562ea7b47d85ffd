"""How far a long piece of an evaluation is: a line now and then, for logs and for people who wait."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from barlow.types import Images

SECONDS_BETWEEN_LINES = 30.0
SECONDS_MEANWHILE = 30.0
"""Between lines on work that counts nothing."""


@dataclass
class Progress:
    """Counts what is done, and says now and then how much that is, how fast it goes and how long it will take.

    Args:
        say: receives a line.
        what: is done, which the line begins with.
        total: how many there are.
        unit: of what is counted.
    """

    say: Callable[[str], None]
    what: str
    total: int
    unit: str = "images"
    done: int = 0
    before: int = 0
    started: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)

    def begin_at(self, done: int) -> None:
        """So many were there already: they say nothing about the time that the others take."""
        self.done = self.before = done
        self.started = time.monotonic()

    def over(self, batches: Iterable[Images], where: str = "") -> Iterator[Images]:
        """Passes batches of images on. A batch counts as done when the next one is asked for."""
        for batch in batches:
            yield batch
            self.more(len(batch), where)

    def more(self, count: int = 1, where: str = "") -> None:
        """So many more are done.

        Args:
            count: of them.
            where: follows `what` in the line.
        """
        self.done += count
        now = time.monotonic()
        if now - self.said < SECONDS_BETWEEN_LINES:
            return
        self.said = now
        rate = (self.done - self.before) / max(now - self.started, 1e-9)
        left = timedelta(seconds=round((self.total - self.done) / rate))
        shown = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
        self.say(f"{self.what}{where}: {self.done} of {self.total} {self.unit}, {shown} {self.unit}/s, eta {left}")


@contextlib.contextmanager
def told_meanwhile(say: Callable[[str], None], what: str) -> Iterator[None]:
    """Says every half minute that a piece of work goes on which cannot count what it does, such as a solver's.

    Nothing is said of work that takes less.

    Args:
        say: receives a line, from a thread beside the work.
        what: is done, which the line begins with.
    """
    over, began = threading.Event(), time.monotonic()

    def tell() -> None:
        while not over.wait(SECONDS_MEANWHILE):
            say(f"{what}: {timedelta(seconds=round(time.monotonic() - began))} so far")

    thread = threading.Thread(target=tell, name="barlow told meanwhile", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(1.0)  # no longer: where it is said may hang
