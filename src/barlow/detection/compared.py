"""Encoders as backbones beside each other: means over the seeds, paired differences, and what is kept of each."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from barlow.detection.annotations import AnnotatedSet
from barlow.detection.average_precision import COCO_NAMES
from barlow.detection.measuring import Question
from barlow.detection.sets import Places, lasting
from barlow.encoders import FoundEncoder
from barlow.probes.intervals import Difference, Score, over_draws
from barlow.probes.report import BASELINES, ENCODER, as_json
from barlow.probes.results import Outcome, Results
from barlow.scores.columns import Cell, letter
from barlow.scores.labels import CONVENTIONS, label_of_metric
from barlow.scores.published import published_for
from barlow.scores.score_table import Column, Line, ScoreTable, Section

UNTRAINED = "untrained"
"""The family of baselines that a detection has: weights of the same network before any training."""

SHOWN = COCO_NAMES[:3]
"""In tables; AP_small, AP_medium and AP_large are in the files of results."""

Values = list[float] | None
"""A metric of each seed; None where a set has no object that it is about."""


@dataclass(frozen=True)
class Row:
    """An encoder's numbers over the seeds.

    Args:
        name: of the encoder.
        results: as `measuring.measured` returns them, one for each seed.
        beside: the same of untrained weights of the same network; None where they cannot be made.
    """

    name: str
    results: list[dict[str, Any]]
    beside: list[dict[str, Any]] | None

    def values(self, convention: str, metric: str) -> Values:
        """A metric of each seed; None where a set has no object that it is about."""
        return _values(self.results, f"{convention}_{metric}")

    def gains(self, convention: str, metric: str) -> Values:
        """For each seed the difference to the untrained weights."""
        own, other = (_values(rows, f"{convention}_{metric}") for rows in (self.results, self.beside or []))
        return None if not own or not other else [a - b for a, b in zip(own, other, strict=True)]


def _values(results: Sequence[dict[str, Any]], name: str) -> Values:
    convention, _, metric = name.rpartition("_AP")
    found = [each["precision"].get(convention, {}).get(f"AP{metric}") for each in results]
    return None if None in found else found


def _names(results: Sequence[dict[str, Any]], metrics: Sequence[str]) -> list[str]:
    """The metrics that all seeds have, as in `coco_box_AP50`."""
    named = [f"{convention}_{metric}" for convention in CONVENTIONS for metric in metrics]
    return [name for name in named if _values(results, name)]


@dataclass(frozen=True)
class OverSeeds:
    """What stands in the place of a prediction: average precisions of detectors that differ in their seed alone.

    Numbers are means over the seeds, and intervals are over the seeds too (Student's), on the same test images. One
    seed says nothing of how sure a number is, so its intervals are as wide as they can be.

    Args:
        values: of each metric one for each seed.
        images: of the test.
        notes: for the record.
    """

    values: Mapping[str, Sequence[float]]
    images: int
    notes: Mapping[str, Any] = field(default_factory=dict)

    def measured(self, labels: np.ndarray) -> dict[str, Score]:
        """The mean of every metric."""
        return {name: Score(*_interval(values, 0.0), self.images) for name, values in self.values.items()}

    def compared(self, other: "OverSeeds", labels: np.ndarray) -> dict[str, Difference]:
        """The mean difference of every metric, paired seed by seed: equal seeds see the same images in the same order.

        Raises:
            ValueError: there are not as many seeds of each.
        """
        return {
            name: _paired(values, other.values[name], self.images)
            for name, values in self.values.items()
            if name in other.values
        }


def _paired(mine: Sequence[float], theirs: Sequence[float], images: int) -> Difference:
    differences = [a - b for a, b in zip(mine, theirs, strict=True)]
    return Difference(*_interval(differences, -1.0), images)


def _interval(values: Sequence[float], least: float) -> tuple[float, float, float]:
    """The mean, and the ends of its 95 % interval over the seeds, between `least` and 1."""
    if len(values) == 1:
        return values[0], least, 1.0
    mean, low, high = over_draws(np.array(values))
    return mean, max(least, low), min(1.0, high)


# --- What is kept -----------------------------------------------------------------------------------------------------


def results_of(row: Row, question: Question) -> Results:
    """An encoder's numbers in the form that those of protocols that read features have, with its baseline's."""
    found = {ENCODER: row.results} | ({} if row.beside is None else {UNTRAINED: row.beside})
    return {name: {question.protocol: _outcome(results, question)} for name, results in found.items()}


def _outcome(results: Sequence[dict[str, Any]], question: Question) -> Outcome:
    values = {name: _values(results, name) or [] for name in _names(results, COCO_NAMES)}
    notes = {
        "seeds": [each["seed"] for each in results],
        "values": values,
        "processor_seconds": [each["processor_seconds"] for each in results],
        "batch_norm": question.batch_norm,
    }
    made = OverSeeds(values, len(question.test), notes)
    same = np.array([str(question.causes["test"])])
    return Outcome(made.measured(same), notes, answers=(made, same))


def report_of(
    row: Row, encoder: FoundEncoder, question: Question, named: tuple[Places, Places], notes: Sequence[str]
) -> dict[str, Any]:
    """What a file of results says of a detection (`barlow.results.keep`), as an evaluation's does."""
    return {
        **as_json(results_of(row, question)),
        "images": images_of(question, named),
        "classes": question.train.classes,
        "preprocessing": encoder.preprocessing.as_dict(),
        "encoder": encoder.name,
        "encoder_sha256": encoder.digest,
        "encoder_identity": encoder.identity,
        "warnings": list(notes),
    }


def images_of(question: Question, named: tuple[Places, Places] = ((), ())) -> dict[str, dict[str, Any]]:
    """What a file of results says of the images. What is learned of them is part of their fingerprint."""

    def about(part: AnnotatedSet, fingerprint: str, given: Places) -> dict[str, Any]:
        known = {"source": part.name, "places": lasting(given), "skipped": []}
        return {**known, "count": len(part), "fingerprint": fingerprint, "labels": fingerprint}

    both = (("train", question.train), ("test", question.test))
    return {name: about(part, question.causes[name], given) for (name, part), given in zip(both, named, strict=True)}


# --- The table --------------------------------------------------------------------------------------------------------


def detection_table(rows: Sequence[Row], question: Question) -> ScoreTable:
    """Encoders beside each other, and what papers print where set, detector and schedule are theirs."""
    columns, found = _columns(rows, question)
    names = _names(rows[0].results, SHOWN)
    lines = [_line(name, rows, found, question) for name in names]
    images, protocol = images_of(question), question.protocol
    published = published_for(images, question.train.classes, [(protocol, name) for name in names])
    train, test, seeds = question.train, question.test, len(rows[0].results)
    words = (
        f"{len(test):,} test images of {test.name}, training on {len(train):,} of {train.name}: {protocol}, "
        f"{question.schedule.steps:,} steps, {seeds} {'seeds' if seeds > 1 else 'seed'}"
    )
    return ScoreTable(columns, [Section(words, lines, published)], list(_notes(names, seeds, bool(published))))


def _columns(rows: Sequence[Row], question: Question) -> tuple[list[Column], list[Sequence[dict[str, Any]]]]:
    """The columns, and the results of each. Untrained weights that are the same for several encoders are one column."""
    columns = [Column(letter(i), None, [row.name], [i]) for i, row in enumerate(rows)]
    found: list[Sequence[dict[str, Any]]] = [row.results for row in rows]
    same: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if row.beside is not None:
            same.setdefault(repr([each.get("encoder_identity", i) for each in row.beside]), []).append(i)
    for members in same.values():
        whose = "" if len(members) == len(rows) else f" {','.join(letter(i) for i in members)}"
        title = f"{BASELINES[UNTRAINED]}{whose}"
        columns.append(Column(title, UNTRAINED, [rows[i].name for i in members], members))
        found.append(rows[members[0]].beside or [])
    return columns, found


def _line(name: str, rows: Sequence[Row], found: Sequence[Sequence[dict[str, Any]]], question: Question) -> Line:
    by_column = [_values(results, name) for results in found]
    first, n = by_column[0], len(question.test)
    gains = [_gain(row, name, n) for row in rows]
    return Line(
        question.protocol,
        name,
        label_of_metric(question.protocol, name),
        [_cell(values) for values in by_column],
        None,
        [None, *(_paired(v, first, n) if v and first else None for v in by_column[1:])],
        [*gains, *[None] * (len(found) - len(rows))],
    )


def _gain(row: Row, name: str, images: int) -> Difference | None:
    own, other = _values(row.results, name), _values(row.beside or [], name)
    return _paired(own, other, images) if own and other else None


def _cell(values: Values) -> Cell | None:
    if not values:
        return None
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Cell(statistics.fmean(values), None, None, spread, len(values))


def _notes(names: Sequence[str], seeds: int, published: bool) -> Iterator[str]:
    if seeds > 1:
        yield (
            "Per cent: mean ± standard deviation over the seeds. Differences and gains are paired seed by seed, with "
            "95 % intervals over the seeds."
        )
    else:
        yield "Per cent, of one seed, which says nothing of how sure a number or a difference is."
    if any(name.startswith("voc07") for name in names):
        yield (
            "VOC07: average precision at 11 recalls, as papers print it for VOC2007; COCO: at 101. Never set one "
            "beside the other."
        )
    if published:
        yield "The papers' detectors are detectron2's; docs/detection.md has what is different in these."
