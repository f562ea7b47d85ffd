"""What a run folder says, read once: reports and comparisons are made of it."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from barlow import storage
from barlow.data.sources import named_set
from barlow.printable import one_line, printable
from barlow.results import HISTORY, HOME, NEWEST
from barlow.runs.identity import identity_of
from barlow.runs.ran import Ran
from barlow.runs.run import Run, load_recipe_text
from barlow.scores.labels import DETECT

Point = tuple[float, float]
"""A step, and a number that was logged there."""

MOST_EVALUATIONS = 50
"""The newest ones, where there are more."""


@dataclass(frozen=True)
class Record:
    """A run folder. Whatever is missing or damaged is empty here, and a line of `notes` says so."""

    path: Path
    recipe: dict[str, Any]
    asked: dict[str, Any] = field(default_factory=dict)
    """The recipe as it was asked for, where the run has kept that: a budget in minutes is one in minutes."""
    starts: list[dict[str, Any]] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    """Lines of metrics.jsonl, by their steps."""
    monitor: list[dict[str, Any]] = field(default_factory=list)
    """Lines of monitor.jsonl, by their steps."""
    results: dict[str, Any] | None = None
    """The newest evaluation."""
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    """All of them that are kept, the oldest first."""
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What a person calls the run."""
        return printable(self.path.resolve().name)

    @property
    def command(self) -> str:
        """The run as a command names it."""
        return printable(str(self.path))

    @property
    def sources(self) -> list[str]:
        """Where its images were, as the recipe says."""
        found = table_of(self.recipe, "data").get("sources", [])
        return [str(source) for source in found] if isinstance(found, list) else []

    @property
    def has_own_labels(self) -> bool:
        """Whether an evaluation needs no folders to be named."""
        return len(self.sources) == 1 and named_set(self.sources[0]) is not None

    @property
    def evaluate(self) -> str:
        """The command that measures it."""
        return f"barlow evaluate {self.command}" + (
            "" if self.has_own_labels else " --train LABELLED/train --test LABELLED/test"
        )

    @property
    def ran(self) -> Ran | None:
        """What advice depends on; None where the folder does not say enough."""
        try:
            return Ran.of(self.recipe, self.data)
        except (LookupError, TypeError, ValueError, AttributeError):
            return None

    @property
    def steps(self) -> tuple[int, int]:
        """The steps that were logged, and those of the whole run."""
        total = value_of(self.recipe, "train", "steps")
        done = max((line["step"] for line in self.log), default=0)
        return done, int(total) if total is not None else done

    @property
    def seconds(self) -> float | None:
        """What the logged steps took, all starts together; None where nothing was logged.

        The clock of the log begins anew at each start, so the last line of each is added up.
        """
        read = [seconds for _, seconds in self.curve("seconds")]
        if not read:
            return None
        return sum(before for before, after in zip(read, [*read[1:], 0.0], strict=True) if after < before)

    def curve(self, *keys: str | int) -> list[Point]:
        """What the log holds under some keys, by step."""
        return curve(self.log, *keys)


def read(path: Path) -> Record:
    """What is in a run folder.

    Raises:
        NoRun: it is none.
        BrokenRun: its recipe.yaml cannot be read.
    """
    run, notes = Run.open(path), []

    def table(name: str) -> dict[str, Any]:
        try:
            return storage.read_sealed(run.path / name)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            notes.append(one_line(error))
            return {}

    recipe = load_recipe_text(run.path / "recipe.yaml")
    identity = table("run.json")
    if identity:
        try:
            identity_of(run)
        except (OSError, ValueError) as error:
            notes.append(one_line(error, 400))
    starts = identity.get("starts", [])
    if not identity and (first := table("environment.json")):  # of the first release
        starts = [first]
    with contextlib.suppress(OSError, ValueError):
        bad = storage.bad_lines(run.path / "metrics.jsonl")
        if bad:
            notes.append(f"{len(bad)} damaged lines of metrics.jsonl are left out")
    home = run.path / HOME
    evaluations, newest = _evaluations(home, table), table(f"{HOME}/{NEWEST}") or None
    return Record(
        path=run.path,
        recipe=recipe,
        asked=table_of(identity, "asked"),
        starts=[start for start in starts if isinstance(start, dict)] if isinstance(starts, list) else [],
        data=table("data.json"),
        log=_by_step(run.path / "metrics.jsonl", notes),
        monitor=_by_step(run.path / "monitor.jsonl", notes),
        results=_of_labels(newest, evaluations),
        evaluations=evaluations,
        notes=notes,
    )


def _by_step(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    try:
        lines = storage.read_lines(path)
    except (OSError, ValueError) as error:
        notes.append(one_line(error))
        return []
    found = {line["step"]: line for line in lines if type(line.get("step")) is int and 0 <= line["step"] < 10**12}
    return [found[step] for step in sorted(found)]


def _of_labels(newest: dict[str, Any] | None, evaluations: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The newest evaluation by labelled images, whose features are kept; a detection's only where there is no other."""
    if newest is None or not _is_detection(newest):
        return newest
    return next((each for each in reversed(evaluations) if not _is_detection(each)), newest)


def _is_detection(report: Mapping[str, Any]) -> bool:
    probes = table_of(report, "asked").get("probes")
    return isinstance(probes, list) and bool(probes) and all(str(name).startswith(f"{DETECT}:") for name in probes)


def _evaluations(home: Path, table: Any) -> list[dict[str, Any]]:
    """The kept evaluations, in the order in which they were first made. Those of one question are one."""
    order: dict[str, None] = {}
    with contextlib.suppress(OSError, ValueError):
        order = {str(line["file"]): None for line in storage.read_lines(home / HISTORY) if "file" in line}
    there = {path.name for path in home.glob("results-*.json")}
    names = [name for name in order if name in there] + sorted(there - order.keys())
    found = [table(f"{HOME}/{name}") for name in names[-MOST_EVALUATIONS:]]
    return [each for each in found if each]


def value_of(content: Any, *keys: str | int) -> float | None:
    """The number under some keys; None where there is none, whatever there is instead."""
    for key in keys:
        try:
            content = content[key]
        except (LookupError, TypeError):
            return None
    if isinstance(content, bool) or not isinstance(content, int | float):
        return None
    return float(content) if abs(content) < 1e300 else None


def table_of(content: Any, *keys: str) -> dict[str, Any]:
    """The table under some keys; an empty one where there is none."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def curve(lines: Sequence[Mapping[str, Any]], *keys: str | int) -> list[Point]:
    """What lines hold under some keys, by step; lines that have no number there are left out."""
    return list(_points(lines, keys))


def _points(lines: Sequence[Mapping[str, Any]], keys: tuple[str | int, ...]) -> Iterator[Point]:
    for line in lines:
        if (value := value_of(line, *keys)) is not None:
            yield float(line["step"]), value


def names_in(lines: Sequence[Mapping[str, Any]], *keys: str) -> list[str]:
    """The keys of a table that lines hold under some keys, in the order in which they first occur."""
    found: dict[str, None] = {}
    for line in lines:
        inner: Any = line
        for key in keys:
            inner = inner.get(key) if isinstance(inner, Mapping) else None
        if isinstance(inner, Mapping):
            found |= dict.fromkeys(map(str, inner))
    return list(found)
