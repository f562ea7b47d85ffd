"""How far a long reading is: told to whoever shows it, who decides how often that is."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

Counted = Callable[[str, int, int | None], None]
"""Receives what is counted, how many are done, and of how many; None if that is not known yet."""

LOOKED_AT = "images looked at"
"""What is counted where a sample of a set is read, to learn what the set is like."""

T = TypeVar("T")


def not_shown(what: str, done: int, total: int | None) -> None:
    """For readings that nobody watches."""


def words(what: str, done: int, total: int | None) -> str:
    """As in `images read: 1,200 of 90,000`."""
    return f"{what}: {done:,}" if total is None else f"{what}: {done:,} of {total:,}"


@dataclass
class Counts:
    """Tells counts that follow each other apart, so that nothing is shown of one that has only begun."""

    _what: str | None = None
    _done: int = 0

    def begins(self, what: str, done: int) -> bool:
        """Whether this is the first that is heard of a count: another one, or the same from its beginning."""
        new = what != self._what or done < self._done
        self._what, self._done = what, done
        return new


@dataclass
class NowAndThen:
    """Says a line of a count every so many seconds, and nothing of one that takes less."""

    say: Callable[[str], None]
    seconds: float = 10.0
    _said_at: float = 0.0
    _counts: Counts = field(default_factory=Counts)

    def __call__(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if self._counts.begins(what, done):
            self._said_at = now
        elif now - self._said_at >= self.seconds:
            self._said_at = now
            self.say(words(what, done, total))


def over(items: Iterable[T], what: str, total: int, counted: Counted) -> Iterator[T]:
    """Passes items on and counts them."""
    for done, item in enumerate(items, 1):
        yield item
        counted(what, done, total)
