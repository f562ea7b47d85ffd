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
class NowAndThen:
    """Says a line every so many seconds, and nothing of what takes less."""

    say: Callable[[str], None]
    seconds: float = 10.0
    _said_at: float = field(default_factory=lambda: time.monotonic())

    def __call__(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._said_at >= self.seconds:
            self._said_at = now
            self.say(words(what, done, total))


def over(items: Iterable[T], what: str, total: int, counted: Counted) -> Iterator[T]:
    """Passes items on and counts them."""
    for done, item in enumerate(items, 1):
        yield item
        counted(what, done, total)
