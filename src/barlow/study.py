"""`barlow compare`: runs beside each other. What differs in their recipes, what they reached, and what they cost.

Runs whose recipes differ in nothing but their seed are one column, with the mean over them and its spread.
"""

import os
import re
import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from barlow import objectives
from barlow.printable import printable
from barlow.probes.remarks import row_label
from barlow.run_facts import RunFacts, facts_of
from barlow.runs.same_recipe import NO_DIFFERENCE
from barlow.scores.columns import WIDTH, Cell, cell, legend, letter
from barlow.wording import in_arguments

LABELS = 16
"""Columns of the text for the names of rows."""

AT_ONCE = 4
"""Runs, or groups of them, beside each other. Further ones come below."""

SECTIONS = ("objective", "method", "encoder", "optim", "schedule", "train", "data", "views")
"""Of recipes, in the order in which what differs is shown; others come last."""

MOST_KEYS = 40
"""Keys of recipes that are shown. The plain data has all."""


@dataclass(frozen=True)
class Column:
    """A run, or runs that differ in their seed alone.

    Args:
        runs: their folders.
        seeds: of each.
        recipe: of those keys that differ between columns, the value; keys that it does not have are left out.
        steps, epochs, minutes, images_per_second, parameters, images: the mean over the runs that say so.
        scores: by probe and metric.
        gains: likewise, over the best baseline.
        test: as in `Evaluation`.
        test_images: likewise.
        states: of each run the word at the end of its log (`state`) and what is wrong with it (`why`); None where
            nothing is known.
    """

    runs: list[str]
    seeds: list[Any]
    recipe: dict[str, Any]
    steps: float | None
    epochs: float | None
    minutes: float | None
    images_per_second: float | None
    parameters: float | None
    images: float | None
    scores: dict[str, Cell]
    gains: dict[str, Cell]
    test: str | None
    test_images: str | None
    states: list[dict[str, str | None]] = field(default_factory=list)


@dataclass(frozen=True)
class RunsTable:
    """What `barlow.compare` found; `text()` and `as_dict()` are two views of it.

    Args:
        columns: the runs, in the order in which they were named.
        keys: of the recipes, that differ.
        notes: what makes numbers incomparable, or is missing.
    """

    columns: list[Column]
    keys: list[str]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)

    def text(self) -> str:
        """At most 80 columns; of more than four runs some below others."""
        names = [letter(k) for k in range(len(self.columns))]
        lines = [line for name, column in zip(names, self.columns, strict=True) for line in legend(name, column.runs)]
        for start in range(0, len(self.columns), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            lines += ["", *self._block(names[part], self.columns[part])]
        for note in self.notes:
            lines += textwrap.wrap(printable(note), WIDTH, initial_indent="note  ", subsequent_indent="      ")
        return "\n".join(line.rstrip() for line in lines) + "\n"

    def _tells(self, key: str) -> bool:
        """Whether a key says more than that recipes of other kinds have other keys: all have it, or those that have it
        differ in it, or an objective has there what it has not by default."""
        having = [column.recipe for column in self.columns if key in column.recipe]
        differ = len({repr(recipe[key]) for recipe in having}) > 1
        return len(having) == len(self.columns) or differ or any(_is_unusual(recipe, key) for recipe in having)

    def _block(self, names: Sequence[str], columns: Sequence[Column]) -> Iterator[str]:
        width = (WIDTH - LABELS) // max(len(columns), 2)
        yield from _row("", names, width)
        if any(column.states for column in columns):
            yield from _row("state", [_state(column.states) for column in columns], width)
        shown = [key for key in self.keys if self._tells(key)][:MOST_KEYS]
        for key in shown:
            yield from _row(key, [_value(column.recipe, key) for column in columns], width)
        if left := len(self.keys) - len(shown):
            yield f"and {left} more keys, most of them of some recipes alone (--json has them)"
        if not self.keys and len(self.columns) > 1:
            yield "the recipes are the same but for what is below"
        yield from _row("seed", [", ".join(map(str, column.seeds)) for column in columns], width)
        for label, of in _COSTS.items():
            yield from _row(label, [_number(getattr(column, of)) for column in columns], width)
        for heading, which in (("per cent", "scores"), ("gain", "gains")):
            found = [getattr(column, which) for column in columns]
            if keys := dict.fromkeys(key for cells in found for key in cells):
                yield _HEADINGS[heading]
            for key in keys:
                signed = which == "gains"
                cells = [each[key].text(signed=signed) if key in each else "–" for each in found]
                yield from _row(row_label(*key.split(".", 1)), cells, width)


_COSTS = {
    "steps": "steps",
    "epochs": "epochs",
    "minutes": "minutes",
    "images/s": "images_per_second",
    "parameters": "parameters",
    "images": "images",
}
_HEADINGS = {
    "per cent": "per cent of the test images, with 95 % interval; of seeds ± their spread",
    "gain": "gain over the best baseline, in points",
}


@in_arguments
def compare(*runs: str | os.PathLike[str]) -> RunsTable:
    """Sets runs beside each other.

    Args:
        runs: their folders. Runs that differ in their seed alone are one column.

    Returns:
        What differs in their recipes, what they reached, and what they cost. Nothing is computed anew: scores are those
        of evaluations on test images that all have in common, else of the newest evaluation of each.

    Raises:
        NoRun: a folder is no run.
        BrokenRun: a run's own files are damaged.
    """
    if not runs:
        raise ValueError("no runs are named: give one or more run folders")
    facts = _on_common_images(_with_like_views_as_one([facts_of(Path(run)) for run in runs]))
    groups: dict[str, list[RunFacts]] = {}
    for each in facts:
        groups.setdefault(each.kind, []).append(each)
    keys = _differing([members[0] for members in groups.values()])
    columns = [_column(members, keys) for members in groups.values()]
    return RunsTable(columns, keys, list(_notes(facts, columns)))


# --- Setting runs beside each other -----------------------------------------------------------------------------------


def _on_common_images(runs: Sequence[RunFacts]) -> list[RunFacts]:
    """The same runs, shown by their evaluations on test images that all of them have been evaluated on; by the newest
    of each, where there are none."""
    if len({run.evaluation.test for run in runs}) < 2:
        return list(runs)
    for each in runs[0].evaluations:
        if each.test is not None and all(each.test in {other.test for other in run.evaluations} for run in runs):
            return [run.shown_on(each.test) for run in runs]
    return list(runs)


def _with_like_views_as_one(runs: Sequence[RunFacts]) -> list[RunFacts]:
    """The same runs, where the views of each are all made alike with one view in place of them: `views.*.grayscale.p`
    says what `views.0.grayscale.p` and `views.1.grayscale.p` would say."""
    changed = []
    for run in runs:
        views: dict[str, dict[str, Any]] = {}
        for key, value in run.recipe.items():
            if found := re.fullmatch(r"views\.(\d+)(.*)", key):
                views.setdefault(found[1], {})[found[2]] = value
        if len(views) < 2 or len(set(map(repr, views.values()))) > 1:
            return list(runs)
        others = {key: value for key, value in run.recipe.items() if not key.startswith("views.")}
        like = {f"views.*{key}": value for key, value in views["0"].items()} if "0" in views else {}
        changed.append(replace(run, recipe=others | {"views": len(views)} | like))
    return changed


def _differing(runs: Sequence[RunFacts]) -> list[str]:
    """The keys of which not all runs have one value: what is learned first, then by what, and on which images."""
    every = dict.fromkeys(key for run in runs for key in run.recipe)
    found = [
        key
        for key in every
        if key not in NO_DIFFERENCE
        and not all(run.follows(key) for run in runs if key in run.recipe)
        and len({repr(run.recipe.get(key, _ABSENT)) for run in runs}) > 1
    ]
    section = {name: number for number, name in enumerate(SECTIONS)}
    by_kind: dict[str, list[RunFacts]] = {}
    for run in runs:
        by_kind.setdefault(str(run.recipe.get("objective.kind")), []).append(run)

    def place(key: str) -> tuple[int, bool]:
        """By its section; of an objective, first what runs of one objective differ in."""
        within = any(len({repr(run.recipe.get(key, _ABSENT)) for run in those}) > 1 for those in by_kind.values())
        return section.get(key.partition(".")[0], len(section)), not (within or key == "objective.kind")

    return sorted(found, key=place)


def _is_unusual(recipe: Mapping[str, Any], key: str) -> bool:
    """Whether a key of the objective has another value than it has by default."""
    kind, (section, _, name) = recipe.get("objective.kind"), key.partition(".")
    usual = objectives.defaults(kind) if section == "objective" and isinstance(kind, str) else {}
    return name in usual and recipe[key] != usual[name]


_ABSENT = "\0absent"


def _column(runs: Sequence[RunFacts], keys: Sequence[str]) -> Column:
    return Column(
        runs=[run.run for run in runs],
        seeds=[run.seed for run in runs],
        recipe={key: runs[0].recipe[key] for key in keys if key in runs[0].recipe},
        steps=_mean([run.steps for run in runs]),
        epochs=_mean([run.epochs for run in runs]),
        minutes=_mean([None if run.seconds is None else run.seconds / 60 for run in runs]),
        images_per_second=_mean([run.images_per_second for run in runs]),
        parameters=_mean([run.parameters for run in runs]),
        images=_mean([run.images for run in runs]),
        scores=_cells([run.evaluation.scores for run in runs]),
        gains=_cells([run.evaluation.gains for run in runs]),
        test=runs[0].evaluation.test,
        test_images=runs[0].evaluation.test_images,
        states=[{"state": run.state, "why": run.why} for run in runs],
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _cells(found: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Cell]:
    """What all runs of a column have, as the mean over them."""
    cells = {}
    for name in found[0]:
        each = [scores[name] for scores in found if name in scores]
        if len(each) < len(found):
            continue
        cells[name] = cell([(score["value"], score["low"], score["high"]) for score in each])
    return cells


def _notes(facts: Sequence[RunFacts], columns: Sequence[Column]) -> Iterator[str]:
    tested = {column.test: column.test_images for column in columns if column.test is not None}
    if len(tested) > 1:
        which = "; ".join(
            f"{', '.join(letter(k) for k, column in enumerate(columns) if column.test == test)}: {words}"
            for test, words in tested.items()
        )
        yield f"not the same test images, so that scores cannot be compared across them ({which})"
    for run in facts:
        yield from run.notes


# --- As text ----------------------------------------------------------------------------------------------------------


def _row(label: str, cells: Sequence[str], width: int) -> Iterator[str]:
    """A row of the table. A name that is too long for its column has a line of its own; a value is broken into some."""
    if len(label) >= LABELS:
        yield from textwrap.wrap(printable(label), WIDTH)
        label = ""
    broken = [textwrap.wrap(printable(cell), width - 1) or [""] for cell in cells]
    for k in range(max(map(len, broken), default=0)):
        parts = (f"{lines[k] if k < len(lines) else '':{width}}" for lines in broken)
        yield f"{label if k == 0 else '':{LABELS}}" + "".join(parts)


def _value(recipe: Mapping[str, Any], key: str) -> str:
    """Of a recipe's key; a dash where a recipe does not have it."""
    if key not in recipe:
        return "–"
    value = recipe[key]
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    if isinstance(value, list):
        return f"[{', '.join(_value({'': each}, '') for each in value)}]"
    return str(value)


def _state(states: Sequence[Mapping[str, str | None]]) -> str:
    """The words on the runs of a column, each with its first reason; of several runs with how many have it."""
    words: dict[str, list[str | None]] = {}
    for each in states:
        words.setdefault(each["state"] or "–", []).append(each["why"])
    said = []
    for word, reasons in words.items():
        count = f" ({len(reasons)} of {len(states)})" if len(words) > 1 else ""
        said.append(f"{word}{count}" + (f": {reasons[0]}" if reasons[0] is not None else ""))
    return "; ".join(said)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
