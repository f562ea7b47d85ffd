"""Encoders beside each other: a row for each metric of each protocol, a column for each encoder and each baseline.

Encoders that are one but for their seed share a column, which has their mean and spread. A baseline that is the same
for several encoders (raw pixels of the same views, one untrained network) has one column.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from barlow.printable import printable
from barlow.probes.intervals import Difference
from barlow.probes.metrics import compare_means
from barlow.probes.remarks import HELD_OUT, over_what, remarks
from barlow.probes.report import BASELINES, BASELINES_OF, ENCODER, Row, results_table
from barlow.probes.results import Outcome, Results
from barlow.scores.columns import WIDTH, Cell, cell, difference_cell, legend, letter
from barlow.scores.labels import label_of_metric
from barlow.scores.published import Published, published_for

GAIN = "gain over untrained"
"""What is above the gains in every form of a table."""

LABELS = 24
"""Columns of the text for the names of rows, at most."""

Key = tuple[str, str]
"""A protocol and a metric."""


@dataclass(frozen=True)
class Measured:
    """What one encoder reached on one pair of sets.

    Args:
        name: of the encoder.
        kin: the same text for encoders that are one but for their seed.
        results: by set of features, then by protocol.
    """

    name: str
    kin: str
    results: Results


@dataclass(frozen=True)
class Part:
    """One pair of sets, with what all encoders reached on it.

    Args:
        images: of the training and the test images, what a file of results says of them.
        classes: their names.
        encoders: always the same ones, in the same order.
    """

    images: Mapping[str, Mapping[str, Any]]
    classes: Sequence[str]
    encoders: Sequence[Measured]

    @property
    def words(self) -> str:
        """As in `3,925 test images of b, training on 9,469 of a`."""
        train, test = (self.images[name] for name in ("train", "test"))
        return (
            f"{test['count']:,} test images of {printable(str(test['source']))}, training on {train['count']:,} of "
            f"{printable(str(train['source']))}"
        )


@dataclass(frozen=True)
class Column:
    """An encoder, encoders of several seeds, or a baseline.

    Args:
        title: a letter for encoders; a baseline's family, and whose it is if not all have the same.
        family: of the baseline; None for encoders.
        names: of the encoders.
        members: their positions; of a baseline those that it is taken from.
    """

    title: str
    family: str | None
    names: list[str]
    members: list[int]


@dataclass(frozen=True)
class Line:
    """One metric of one protocol, in every column; None where a column does not have it.

    Args:
        protocol, metric: names, as results have them.
        label: what tables call it.
        cells: the scores.
        held_out: what the protocol chose by, on a part of the training images; None where it chose nothing.
        differences: to the first column, paired on the same test images, or seed by seed.
        gains: of each encoder over untrained weights of its own network, where they are asked for by themselves; None
            where the table does not have them.
    """

    protocol: str
    metric: str
    label: str
    cells: list[Cell | None]
    held_out: list[Cell | None] | None
    differences: list[Difference | None]
    gains: list[Difference | None] | None = None

    @property
    def gained(self) -> list[Difference | None]:
        """The gains, one for each column; empty, if no column has any."""
        return self.gains if self.gains is not None and any(self.gains) else []


@dataclass(frozen=True)
class Section:
    """What is known about one pair of sets.

    Args:
        images: which they are, in words.
        lines: what was measured.
        published: the papers' numbers for the same set and protocols.
    """

    images: str
    lines: list[Line]
    published: list[Published]


@dataclass(frozen=True)
class ScoreTable:
    """The numbers of several encoders; `text()` and `as_dict()` are two views of them.

    Args:
        columns: encoders first, then baselines.
        sections: one for each pair of sets.
        notes: what the numbers are.
    """

    columns: list[Column]
    sections: list[Section]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)

    def text(self) -> str:
        """At most 80 columns; columns that find no room stand below the others."""
        lines = [
            line for column in self.columns if column.family is None for line in legend(column.title, column.names)
        ]
        for section in self.sections:
            lines += ["", *textwrap.wrap(section.images, WIDTH, break_on_hyphens=False)]
            for block in _blocks(self.columns, section):
                lines += block
            for each in section.published:
                words = f"papers   {published_words(each)}"
                lines += textwrap.wrap(words, WIDTH, subsequent_indent=" " * 9, break_on_hyphens=False)
        lines.append("")
        for note in self.notes:
            lines += textwrap.wrap(note, WIDTH)
        return "\n".join(line.rstrip() for line in lines) + "\n"


# --- Setting encoders beside each other -------------------------------------------------------------------------------


def score_table(parts: Sequence[Part]) -> ScoreTable:
    """Sets what encoders reached beside each other."""
    columns = list(_columns(parts))
    sections = []
    for part in parts:
        lines = list(_lines(part, columns))
        published = published_for(part.images, part.classes, [(line.protocol, line.metric) for line in lines])
        sections.append(Section(part.words, lines, published))
    return ScoreTable(columns, sections, list(_notes(parts, columns)))


def _notes(parts: Sequence[Part], columns: Sequence[Column]) -> Iterator[str]:
    every = {f"{i}, {name}": each for i, found in enumerate(_every(parts)) for name, each in found.items()}
    yield f"Per cent, with the 95 % interval {over_what(every, 'the test images')}."
    if any(len(column.members) > 1 for column in columns):
        yield "Of several seeds: mean ± standard deviation over them."
    if any(column.family for column in columns):
        yield "Of each baseline the best of its kind, metric by metric."
    yield from dict.fromkeys(line for found in _every(parts) for line in remarks(found))


def _every(parts: Sequence[Part]) -> list[Results]:
    return [each.results for part in parts for each in part.encoders]


def _columns(parts: Sequence[Part]) -> Iterator[Column]:
    encoders = parts[0].encoders
    groups: dict[str, list[int]] = {}
    for i, each in enumerate(encoders):
        groups.setdefault(each.kin, []).append(i)
    titled = {letter(k): members for k, members in enumerate(groups.values())}
    for title, members in titled.items():
        yield Column(title, None, [encoders[i].name for i in members], members)
    for family, heading in BASELINES.items():
        same: dict[str, tuple[list[str], list[int]]] = {}
        for title, members in titled.items():
            scores = {_scores_of(parts, i, family): i for i in reversed(members)}
            if any(scores):
                owners, _ = same.setdefault(repr(sorted(scores)), ([], list(reversed(scores.values()))))
                owners.append(title)
        for owners, members in same.values():
            whose = "" if len(same) == 1 and len(owners) == len(titled) else f" {','.join(owners)}"
            yield Column(f"{heading}{whose}", family, [encoders[i].name for i in members], members)


def _scores_of(parts: Sequence[Part], encoder: int, family: str) -> str:
    """All scores of a family of baselines that an encoder was compared with; an empty text where it was with none."""
    found = [
        (name, {kind: dict(outcome.metrics) for kind, outcome in outcomes.items()})
        for part in parts
        for name, outcomes in part.encoders[encoder].results.items()
        if name.partition("_")[0] == family
    ]
    return repr(found) if found else ""


def _lines(part: Part, columns: Sequence[Column]) -> Iterator[Line]:
    rows = [{(row.probe, row.metric): row for row in results_table(each.results)} for each in part.encoders]
    told: set[str] = set()
    for key in dict.fromkeys(key for of_encoder in rows for key in of_encoder):
        protocol, metric = key
        outcomes = [_outcomes(part, rows, column, key) for column in columns]
        scored = [[each.metrics[metric] for each in found] for found in outcomes]
        cells = [cell([(s.value, s.low, s.high) for s in scores]) if scores else None for scores in scored]
        held_out = None if protocol in told else [_held_out(found) for found in outcomes]
        told.add(protocol)
        yield Line(
            protocol,
            metric,
            label_of_metric(protocol, metric),
            cells,
            held_out if held_out and any(held_out) else None,
            [None, *(_difference(found, outcomes[0], metric) for found in outcomes[1:])],
        )


def _outcomes(part: Part, rows: Sequence[Mapping[Key, Row]], column: Column, key: Key) -> list[Outcome]:
    """What stands behind a cell: an outcome of each member; none, if one of them lacks it."""
    protocol, metric = key
    found: list[Outcome | None] = []
    for i in column.members:
        results = part.encoders[i].results
        if column.family is None:
            found.append(results[ENCODER].get(protocol))
        else:
            row = rows[i].get(key)
            best = None if row is None else row.baselines.get(column.family)
            found.append(None if best is None else results[best[0]].get(BASELINES_OF.get(protocol, protocol)))
    whole = [each for each in found if each is not None and metric in each.metrics]
    return whole if len(whole) == len(found) else []


def _held_out(outcomes: Sequence[Outcome]) -> Cell | None:
    values = [each.notes.get(HELD_OUT) for each in outcomes]
    known = [float(value) for value in values if isinstance(value, int | float)]
    if not known or len(known) < len(values):
        return None
    if len(known) == 1:
        return Cell(known[0], None, None, None, 1)
    return cell([(value, value, value) for value in known])


def _difference(outcomes: Sequence[Outcome], first: Sequence[Outcome], metric: str) -> Difference | None:
    """Of the means of two columns; None where it cannot be paired: other test images, or chosen on them."""
    answers = [[each.answers for each in found if each.answers is not None] for found in (outcomes, first)]
    if not all(answers) or [len(each) for each in answers] != [len(outcomes), len(first)]:
        return None
    labels = answers[0][0][1]
    if not all(np.array_equal(labels, other) for found in answers for _, other in found):
        return None
    mine, theirs = ([predicted for predicted, _ in found] for found in answers)
    return compare_means(mine, theirs, labels).get(metric)


def published_words(each: Published) -> str:
    """As in `5-NN top-1: SimCLR 88.4, BYOL 89.5 (ResNet-18; Table 1 of a paper)`."""
    values = ", ".join(f"{name} {value:.1f}" for name, value in each.values.items())
    return f"{label_of_metric(each.protocol, each.metric)}: {values} ({each.network}; {each.source})"


# --- As text ----------------------------------------------------------------------------------------------------------


def _blocks(columns: Sequence[Column], section: Section) -> Iterator[list[str]]:
    """As many columns beside each other as there is room for."""
    written = [_written(column.title, i, section, columns[0].title) for i, column in enumerate(columns)]
    names = [name for name, _ in written[0]]
    label = min(LABELS, max(map(len, names)) + 2)
    widths = [max(len(text) for _, text in column) + 2 for column in written]
    start = 0
    while start < len(columns):
        stop, room = start, WIDTH - label
        while stop < len(columns) and (widths[stop] - 2 <= room or stop == start):
            room -= widths[stop]
            stop += 1
        lines = []
        for row, name in enumerate(names):
            cells = [f"{written[i][row][1]:{widths[i]}}" for i in range(start, stop)]
            if row and not any(map(str.strip, cells)) and not name.startswith(("difference", GAIN)):
                continue
            if len(name) >= label and any(map(str.strip, cells)):  # too long to have numbers beside it
                lines.append(name)
                name = ""
            lines.append(f"{name:{label}}" + "".join(cells))
        yield lines
        start = stop


def _written(title: str, column: int, section: Section, first: str) -> list[tuple[str, str]]:
    """A column as text, each with the name of its row."""
    rows = [("", title)]
    for line in section.lines:
        score = line.cells[column]
        rows.append((line.label, "–" if score is None else score.text()))
        if line.held_out is not None:
            held_out = line.held_out[column]
            rows.append(("  held out", "–" if held_out is None else held_out.text()))
    compared = [line for line in section.lines if any(line.differences)]
    if compared:
        rows.append((f"difference to {first}", ""))
    for line in compared:
        difference = line.differences[column]
        rows.append((line.label, "" if difference is None else _signed(difference)))
    if gained := [line for line in section.lines if line.gained]:
        rows.append((GAIN, ""))
    for line in gained:
        gain = line.gained[column]
        rows.append((line.label, "" if gain is None else _signed(gain)))
    return rows


def _signed(found: Difference) -> str:
    return difference_cell(found).text(signed=True)
