"""Runs the probes, and sets the encoder's numbers beside those of its baselines: as JSON, and as a table to read."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from barlow.probes.average_precision import CONVENTIONS, chance
from barlow.probes.features import FeatureSet, share_alike
from barlow.probes.intervals import Difference, Score, end_of_difference
from barlow.probes.metrics import BEST_EPOCH, Predicted, Prediction, best_epoch, compare, measure
from barlow.probes.ranked import Ranked
from barlow.probes.remarks import ALIKE, AUGMENTED, HELD_OUT, NEARLY_ALL, alike_features, over_what, remarks, row_label
from barlow.probes.results import Outcome, Results
from barlow.protocols import Probe, build, reading_features

ENCODER = "encoder"

BASELINES = {"start": "Start", "pixels": "Pixels", "untrained": "Untrained"}
"""Families of baselines and their headings. A set of features belongs to the family that its name begins with.

For example, `pixels_16` and `pixels_32` are both raw pixels. The table shows the best of each family, metric by metric,
so that an encoder is never compared with a baseline that was made weak by an unlucky choice.
"""

BASELINES_OF = {AUGMENTED: "linear_sgd"}
"""Rows without baselines of their own, and the probe whose baselines they are compared with."""

WIDTH = 80
"""Columns of the table."""


@dataclass(frozen=True)
class Row:
    """One metric of one probe, for the encoder and its baselines."""

    probe: str
    metric: str
    encoder: Score | None
    """None where it was not measured."""
    baselines: Mapping[str, tuple[str, Score]]
    """By family: the name of its best set of features, and that set's score."""
    gain: Difference | None
    """The encoder's value less that of the best baseline, on the same test images. The best epoch has none: it was
    chosen on the test images."""

    @property
    def best(self) -> tuple[str, Score] | None:
        """The best baseline: the name of its set of features, and its score."""
        return max(self.baselines.values(), key=lambda named: named[1].value, default=None)


def evaluate_features(
    named_sets: Mapping[str, tuple[FeatureSet, FeatureSet]],
    protocols: Mapping[str, Probe] | str | Sequence[str] | None = None,
) -> Results:
    """Runs every probe on every pair of (train, test) features.

    Args:
        named_sets: the pairs by name: "encoder", and baselines, whose names begin with one of `BASELINES`. All have the
            same test images in the same order.
        protocols: by name, or their names; `barlow.protocols.DEFAULT` if not given. Those that train the encoder are
            left out, as they need images.

    Raises:
        ValueError: a protocol is not known, train and test are not labelled in the same way, or a set has other test
            images than the first.
    """
    probes = protocols if isinstance(protocols, Mapping) else reading_features(build(protocols))
    results: Results = {}
    first = next((test.labels for _, test in named_sets.values()), np.empty(0))
    for name, (train, test) in named_sets.items():
        if not np.array_equal(test.labels, first):
            raise ValueError(f"{name}: its test labels are not those of the first set; give all sets the same images")
        check_labelled_alike(name, train, test)
        results[name] = {kind: found_by(probe, train, test) for kind, probe in probes.items()}
    return results


def check_labelled_alike(name: str, train: FeatureSet, test: FeatureSet) -> None:
    """Raises ValueError, if an image may have several labels in one of two sets alone."""
    if train.several_labels != test.several_labels:
        raise ValueError(
            f"{name}: one of train and test has several labels an image, the other has one; label both the same way"
        )


def found_by(probe: Probe, train: FeatureSet, test: FeatureSet) -> Outcome:
    """What a probe finds on a pair of sets. Its notes say if nearly all images have the same features."""
    outcome = outcome_of(probe.predict(train, test.features), test.labels)
    share = share_alike(train.features, test.features)
    return outcome if share < NEARLY_ALL else replace(outcome, notes={**outcome.notes, ALIKE: share})


def outcome_of(predicted: Prediction, labels: np.ndarray) -> Outcome:
    """Compares what a probe predicted with the test labels."""
    best = best_epoch(predicted, labels) if isinstance(predicted, Predicted) else None
    chosen = {} if best is None else {"best_epoch": best}
    found = measure(predicted, labels)
    return Outcome(found, dict(predicted.notes), chosen, chance_of(predicted, labels, found), (predicted, labels))


def chance_of(predicted: Prediction | None, labels: np.ndarray, metrics: Iterable[str]) -> dict[str, float]:
    """What a random order would have, of those metrics that are mean average precisions: of the test images, for the
    scores of a label; of the images that are searched, for a search."""
    if isinstance(predicted, Ranked):
        of_search = predicted.chance(labels)
        return {} if of_search is None else {"map": of_search}
    return {name: chance(labels, name) for name in metrics if name in CONVENTIONS} if labels.ndim == 2 else {}


def results_table(results: Results) -> list[Row]:
    """A row for each probe and metric, in the order in which they were measured."""
    order: dict[tuple[str, str], None] = {}
    for outcomes in results.values():
        for kind, outcome in outcomes.items():
            order.update(dict.fromkeys((kind, metric) for metric in outcome.metrics))
    return [_row(results, kind, metric) for kind, metric in order]


def _row(results: Results, kind: str, metric: str) -> Row:
    compared = BASELINES_OF.get(kind, kind)
    best: dict[str, tuple[str, Score]] = {}
    for name, outcomes in results.items():
        family = name.partition("_")[0]
        if family not in BASELINES or compared not in outcomes or metric not in outcomes[compared].metrics:
            continue
        score = outcomes[compared].metrics[metric]
        if family not in best or score.value > best[family][1].value:
            best[family] = name, score
    ours = results.get(ENCODER, {}).get(kind)
    row = Row(kind, metric, None if ours is None else ours.metrics.get(metric), best, None)
    if ours is None or row.encoder is None or row.best is None or metric == BEST_EPOCH:
        return row
    return replace(row, gain=_gain(ours, results[row.best[0]][compared], metric))


def _gain(ours: Outcome, theirs: Outcome, metric: str) -> Difference | None:
    if ours.answers is None or theirs.answers is None:
        return None
    (predicted, labels), (other, _) = ours.answers, theirs.answers
    return compare(predicted, other, labels)[metric]


def unsuited_features(results: Results) -> Iterator[str]:
    """A line for each set of features that is the same for all images, and for each probe whose learning rate does not
    suit the scale of its features: their numbers say little."""
    yield from alike_features(results)
    for name, outcomes in results.items():
        for kind, outcome in outcomes.items():
            if outcome.notes.get("worse_than_class_frequencies"):
                yield (
                    f"{kind} on {name} fits the training images worse (loss {outcome.notes['train_loss']:.3g}) than "
                    f"the class frequencies alone: lr {outcome.notes['lr']:g} does not suit features of this scale; "
                    "rely on logistic, which standardises them"
                )


def as_json(results: Results) -> dict[str, Any]:
    """The results as plain data: every number, and the gains over the best baseline with their paired intervals.

    Probes that train have `chosen_on_test` too: the epoch to which `best_epoch_top1` belongs.
    """
    return {
        "sets": {
            name: {
                kind: {
                    "metrics": {metric: asdict(score) for metric, score in outcome.metrics.items()},
                    "notes": dict(outcome.notes),
                    **({"chosen_on_test": dict(outcome.chosen_on_test)} if outcome.chosen_on_test else {}),
                    **({"chance": dict(outcome.chance)} if outcome.chance else {}),
                }
                for kind, outcome in outcomes.items()
            }
            for name, outcomes in results.items()
        },
        "gain": {
            f"{row.probe}.{row.metric}": {"over": row.best[0], **asdict(row.gain)}
            for row in results_table(results)
            if row.gain is not None and row.best is not None
        },
    }


def results_of(report: Mapping[str, Any]) -> Results:
    """The scores and the notes of a report that `as_json` has made, without what was predicted.

    Raises:
        LookupError, TypeError, AttributeError: it is no such report.
    """
    return {
        name: {
            kind: Outcome(
                {metric: Score(**score) for metric, score in outcome["metrics"].items()},
                outcome["notes"],
                chance=_chance_in(outcome),
            )
            for kind, outcome in outcomes.items()
        }
        for name, outcomes in report["sets"].items()
    }


def _chance_in(outcome: Mapping[str, Any]) -> dict[str, float]:
    """What a random order has; nothing from files of earlier versions, which have one number, the share of images."""
    there = outcome.get("chance")
    return dict(there) if isinstance(there, Mapping) else {}


def rows_of(report: Mapping[str, Any]) -> list[Row]:
    """The rows of a report that `as_json` has made, as `results_table` gives them, with the gains that it holds.

    Raises:
        LookupError, TypeError, AttributeError: it is no such report.
    """
    results = results_of(report)
    return [
        replace(row, gain=None if gain is None else Difference(*(gain[key] for key in ("value", "low", "high", "n"))))
        for row in results_table(results)
        for gain in [report["gain"].get(f"{row.probe}.{row.metric}")]
    ]


def render(results: Results) -> str:
    """The table as text, at most 80 columns wide: per cent with 95 % intervals, and the gain over the best baseline.

    If there are rows of probes that train, a note below the table explains them.
    """
    from rich.console import Console
    from rich.table import Table

    rows = results_table(results)
    there = [family for family in BASELINES if any(family in row.baselines for row in rows)]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for heading in ("Encoder", *(BASELINES[family] for family in there), *(["Gain"] if there else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    told: set[str] = set()
    for row in rows:
        table.add_row(row_label(row.probe, row.metric), *_cells(row, there))
        if row.probe not in told and (held_out := held_out_of(results, row, there)):
            table.add_row("  held out", *("-" if value is None else _percent(value) for value in held_out))
        told.add(row.probe)
    console = Console(width=WIDTH, color_system=None, force_terminal=False, highlight=False, record=False)
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    images = " and ".join(f"{n:,}" for n in sorted({row.encoder.n for row in rows if row.encoder}))
    caption = f"Per cent [95 % interval {over_what(results, f'{images} test images')}]"
    for words in (f"{caption}; gain over the best baseline." if there else f"{caption}.", *remarks(results)):
        lines.extend(textwrap.wrap(words, WIDTH))
    return "\n".join(lines) + "\n"


def called(row: Row) -> str:
    """What a person calls a row: kNN top-1."""
    return row_label(row.probe, row.metric)


def held_out_of(results: Results, row: Row, families: Sequence[str]) -> list[float | None]:
    """What a protocol chose by, of the encoder and the baselines of a row; nothing, if it chose nothing."""
    names = [ENCODER, *(row.baselines[family][0] if family in row.baselines else "" for family in families)]
    kinds = [row.probe, *[BASELINES_OF.get(row.probe, row.probe)] * len(families)]
    outcomes = [results.get(name, {}).get(kind) for name, kind in zip(names, kinds, strict=True)]
    noted = [None if each is None else each.notes.get(HELD_OUT) for each in outcomes]
    values = [value if isinstance(value, float) else None for value in noted]
    return [] if values.count(None) == len(values) else values


def _cells(row: Row, families: Sequence[str]) -> Iterator[str]:
    """The encoder, its baselines (without intervals, for the gain has one), and the gain."""
    yield _with_interval(row.encoder) if row.encoder else "-"
    for family in families:
        yield _percent(row.baselines[family][1].value) if family in row.baselines else "-"
    if families:
        yield "" if row.gain is None else "+" * (row.gain.value >= 0) + _with_interval(row.gain)


def _with_interval(found: Score | Difference) -> str:
    if isinstance(found, Difference):
        return f"{_percent(found.value)} [{end_of_difference(found.low)}, {end_of_difference(found.high)}]"
    return f"{_percent(found.value)} [{_percent(found.low)}, {_percent(found.high)}]"


def _percent(value: float) -> str:
    return "100" if value == 1 else f"{100 * value:.1f}"
