"""Columns of numbers beside each other: what tables of several runs, or of several encoders, have in common."""

import statistics
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from barlow.printable import printable
from barlow.probes.intervals import Difference, end_of_difference

WIDTH = 80
"""Of a table as text."""


@dataclass(frozen=True)
class Cell:
    """A number of one run, or of several.

    Args:
        value: the number, or the mean.
        low, high: its 95 % interval over the test images, of one run.
        spread: the standard deviation over the seeds, of several.
        runs: how many there are.
    """

    value: float
    low: float | None
    high: float | None
    spread: float | None
    runs: int

    def text(self, *, signed: bool = False) -> str:
        """In per cent, as in `63.3 61.8…64.7`, or `63.3 ± 0.4`."""
        value = f"{100 * self.value:{'+' if signed else ''}.1f}"
        if self.spread is not None:
            return f"{value} ± {100 * self.spread:.1f}"
        if self.low is None or self.high is None:
            return value
        if signed:
            return f"{value} {end_of_difference(self.low)}…{end_of_difference(self.high)}"
        return f"{value} {100 * self.low:.1f}…{100 * self.high:.1f}"


def cell(scores: Sequence[tuple[float, float, float]]) -> Cell:
    """Of the values of one run or several, each with the ends of its interval."""
    values = [value for value, _, _ in scores]
    if len(scores) > 1:
        return Cell(statistics.fmean(values), None, None, statistics.stdev(values), len(scores))
    return Cell(*scores[0], None, 1)


def difference_cell(found: Difference) -> Cell:
    """Of a difference. An interval from -1 to 1 says nothing, and is left out."""
    if found.low <= -1 and found.high >= 1:
        return Cell(found.value, None, None, None, 1)
    return Cell(found.value, found.low, found.high, None, 1)


def letter(number: int) -> str:
    """A, B, …, Z, A1, B1, …"""
    return chr(ord("A") + number % 26) + (str(number // 26) if number >= 26 else "")


def legend(name: str, members: Sequence[str]) -> Iterator[str]:
    """Which runs a column is of."""
    several = f" ({len(members)} seeds)" if len(members) > 1 else ""
    yield from textwrap.wrap(
        printable(", ".join(members)) + several,
        WIDTH,
        initial_indent=f"{name:3}",
        subsequent_indent="   ",
        break_on_hyphens=False,
    )
