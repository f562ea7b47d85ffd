"""What `barlow check` has found: plain data, and the same as text of 80 columns."""

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from barlow.checks.set_report import Between, SetReport
from barlow.printable import printable

WIDTH = 80
INDENT = 9
"""Columns of the word that a line begins with."""

TELLING = ("aspect", "workers")
"""How lines begin, of those on what `barlow pretrain` has chosen, that ask for something to be done."""


@dataclass(frozen=True)
class Budget:
    """What a number of minutes would be here.

    Args:
        minutes: of training.
        steps: that fit.
        epochs: passes over the images.
        lines: what runs of this length gained elsewhere, and what else there is.
    """

    minutes: float
    steps: int
    epochs: float
    lines: list[str]


@dataclass(frozen=True)
class Pace:
    """How long training takes on this machine.

    Args:
        recipe: its name, with which `barlow pretrain` would train.
        views: size of the views, as in `32` or `32x128`.
        batch: images a step.
        device: and precision, as in `cpu, bf16`.
        where: whether images are held in memory or streamed.
        reading_seconds: what passes before the first step, for reading and choosing.
        step_seconds: of a step.
        epoch_steps: steps of an epoch.
        budgets: what some numbers of minutes would be.
        choices: what `barlow pretrain` would say that it has chosen.
    """

    recipe: str
    views: str
    batch: int
    device: str
    where: str
    reading_seconds: float
    step_seconds: float
    epoch_steps: int
    budgets: list[Budget]
    choices: list[str]

    @property
    def epoch_seconds(self) -> float:
        return self.step_seconds * self.epoch_steps

    def lines(self) -> Iterator[str]:
        """As text."""
        yield (
            f"time     an epoch takes {_span(self.epoch_seconds)} here: {self.epoch_steps:,} steps of {self.batch} "
            f"images, {self.step_seconds:.3g} s each ({self.recipe}, {self.views}-pixel views, {self.device})"
        )
        minutes = "; ".join(
            f"{each.minutes:g} minutes are {each.steps:,} steps, {_epochs(each.epochs)} epochs" for each in self.budgets
        )
        yield f"budget   {minutes}"
        yield from (line for line in self.choices if line.split(maxsplit=1)[0] in TELLING)
        said: set[str] = set()
        for each in self.budgets:
            for line in each.lines:
                what = line.split("; this run is shorter")[
                    0
                ]  # the same runs, of a budget that is nearer to them or not
                if what not in said:
                    yield line
                    said.add(what)
        if not any(line.startswith("expect") for line in said):
            yield "expect   no run of this recipe and about these lengths was measured against baselines yet"


@dataclass(frozen=True)
class Check:
    """What `barlow.check` found; `text()` and `as_dict()` are two views of it.

    Args:
        images: of the set itself.
        test: of the test images, where some were given.
        between: how these stand to the set.
        pace: how long training takes here; None where it was not measured.
        pace_missing: why it was not.
    """

    images: SetReport
    test: SetReport | None = None
    between: Between | None = None
    pace: Pace | None = None
    pace_missing: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        content = asdict(self)
        if self.pace is not None:
            content["pace"]["epoch_seconds"] = self.pace.epoch_seconds
        if self.between is not None:
            for shift, found in zip(content["between"]["shifts"], self.between.shifts, strict=True):
                shift["told"] = found.told
            if self.between.classes is not None:
                content["between"]["classes"]["told"] = self.between.classes.told
        return content

    def text(self) -> str:
        """Lines of at most 80 columns."""
        lines: list[str] = []
        for heading, part in (("", self.images), ("test images", self.test), ("test and training", self.between)):
            if part is not None:
                lines += [*([f"--- {heading}"] if heading else []), *part.lines()]
        if self.pace is not None or self.pace_missing:
            lines += ["--- training here"] if self.test is not None else []
        if self.pace is not None:
            lines += self.pace.lines()
        elif self.pace_missing:
            lines.append(f"time     not measured: {self.pace_missing}")
        return "\n".join(map(_filled, lines)) + "\n"


def _filled(line: str) -> str:
    """A line broken into some; one that begins with spaces is about the one before."""
    indent = " " * INDENT
    return textwrap.fill(
        printable(line.strip()),
        WIDTH,
        initial_indent=indent if line.startswith(" ") else "",
        subsequent_indent=indent,
        break_on_hyphens=False,
    )


def _epochs(count: float) -> str:
    return f"{count:,.0f}" if count >= 100 else f"{count:.3g}"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
