"""Runs the probes, and sets the encoder's numbers beside those of its baselines: as JSON, and as a table to read."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from barlow.probes import Probe, build_probes
from barlow.probes.features import FeatureSet
from barlow.probes.intervals import Score
from barlow.probes.metrics import BEST_EPOCH, Predicted, best_epoch, measure

ENCODER = "encoder"
PIXELS = "pixels"
UNTRAINED = ("untrained", "untrained_recalibrated")
"""The untrained network as it is built, and with its batch norm recalibrated. The table shows the better of the two,
metric by metric."""

AUGMENTED = "linear_sgd_augmented"
"""`linear_sgd` on augmented views. Only the encoder is measured in this way."""

BASELINES_OF = {AUGMENTED: "linear_sgd"}
"""Rows without baselines of their own, and the probe whose baselines they are compared with."""

WIDTH = 80
"""Columns of the table."""

_LABELS = {
    "knn": "kNN",
    "knn5_euclidean": "5-NN",
    "logistic": "logistic",
    "linear_sgd": "SGD",
    "linear_adam": "Adam",
    AUGMENTED: "SGD augm.",
}
_METRICS = {"top1": "top-1", "top5": "top-5", "map": "mAP", BEST_EPOCH: "best epoch"}
_BEST_EPOCH_WORDS = (
    "SGD: after the last epoch. Best epoch: chosen on these very test images, as the papers do; to be set beside "
    "their numbers only, so without a gain."
)
_AUGMENTED_WORDS = "SGD augm.: the encoder on augmented views, its baselines on centre views."


@dataclass(frozen=True)
class Outcome:
    """What one probe found on one set of features."""

    metrics: Mapping[str, Score]
    notes: Mapping[str, Any]
    chosen_on_test: Mapping[str, Any] = field(default_factory=dict)
    """What was chosen by looking at the test labels, as the papers do: `best_epoch`, to which `best_epoch_top1`
    belongs."""


Results = dict[str, dict[str, Outcome]]
"""Outcomes by the name of the set of features, then by the kind of the probe."""


@dataclass(frozen=True)
class Row:
    """One metric of one probe, for the encoder and its baselines; None where it was not measured."""

    probe: str
    metric: str
    encoder: Score | None
    pixels: Score | None
    untrained: Score | None

    @property
    def gain(self) -> float | None:
        """The encoder's value less that of the best baseline. The best epoch has no gain: it was chosen on the test
        images."""
        if self.metric == BEST_EPOCH:
            return None
        baselines = [score.value for score in (self.pixels, self.untrained) if score is not None]
        return self.encoder.value - max(baselines) if self.encoder is not None and baselines else None


def evaluate_features(
    named_sets: Mapping[str, tuple[FeatureSet, FeatureSet]], probes: Mapping[str, Probe] | Sequence[str] | None = None
) -> Results:
    """Runs every probe on every pair of (train, test) features.

    Args:
        named_sets: the pairs by name. The table has a place for "encoder", "pixels", "untrained" and
            "untrained_recalibrated".
        probes: by kind, or a list of kinds; `barlow.probes.DEFAULT_PROBES` if not given.

    Raises:
        ValueError: a probe is not known, or train and test are not labelled in the same way.
    """
    if not isinstance(probes, Mapping):
        probes = build_probes(probes)
    results: Results = {}
    for name, (train, test) in named_sets.items():
        if train.several_labels != test.several_labels:
            raise ValueError(
                f"{name}: one of train and test has several labels an image, the other has one; label both the same way"
            )
        results[name] = {
            kind: outcome_of(probe.predict(train, test.features), test.labels) for kind, probe in probes.items()
        }
    return results


def outcome_of(predicted: Predicted, labels: np.ndarray) -> Outcome:
    """Compares what a probe predicted with the test labels."""
    best = best_epoch(predicted, labels)
    chosen = {} if best is None else {"best_epoch": best}
    return Outcome(measure(predicted, labels), dict(predicted.notes), chosen)


def results_table(results: Results) -> list[Row]:
    """A row for each probe and metric, in the order in which they were measured."""
    order: dict[tuple[str, str], None] = {}
    for outcomes in results.values():
        for kind, outcome in outcomes.items():
            order.update(dict.fromkeys((kind, metric) for metric in outcome.metrics))
    rows = []
    for kind, metric in order:
        baseline = BASELINES_OF.get(kind, kind)
        untrained = [score for name in UNTRAINED if (score := _find(results, name, baseline, metric)) is not None]
        rows.append(
            Row(
                kind,
                metric,
                _find(results, ENCODER, kind, metric),
                _find(results, PIXELS, baseline, metric),
                max(untrained, key=lambda score: score.value, default=None),
            )
        )
    return rows


def _find(results: Results, name: str, kind: str, metric: str) -> Score | None:
    outcome = results.get(name, {}).get(kind)
    return outcome.metrics.get(metric) if outcome is not None else None


def unsuited_rates(results: Results) -> Iterator[str]:
    """A line for each probe whose learning rate does not suit the scale of its features, so that its number says
    little."""
    for name, outcomes in results.items():
        for kind, outcome in outcomes.items():
            if outcome.notes.get("worse_than_class_frequencies"):
                yield (
                    f"{kind} on {name} fits the training images worse (loss {outcome.notes['train_loss']:.3g}) than "
                    f"the class frequencies alone: lr {outcome.notes['lr']:g} does not suit features of this scale; "
                    "rely on logistic, which standardises them"
                )


def as_json(results: Results) -> dict[str, Any]:
    """The results as plain data: every number, and the gains over the best baseline.

    Probes that train have `chosen_on_test` too: the epoch to which `best_epoch_top1` belongs.
    """
    return {
        "sets": {
            name: {
                kind: {
                    "metrics": {metric: asdict(score) for metric, score in outcome.metrics.items()},
                    "notes": dict(outcome.notes),
                    **({"chosen_on_test": dict(outcome.chosen_on_test)} if outcome.chosen_on_test else {}),
                }
                for kind, outcome in outcomes.items()
            }
            for name, outcomes in results.items()
        },
        "gain": {f"{row.probe}.{row.metric}": row.gain for row in results_table(results) if row.metric != BEST_EPOCH},
    }


def render(results: Results) -> str:
    """The table as text, at most 80 columns wide: per cent with 95 % intervals, and the gain over the best baseline.

    If there are rows of probes that train, a note below the table explains them.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for heading in ("Encoder", "Raw pixels", "Untrained", "Gain"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = results_table(results)
    for row in rows:
        gain = "" if row.gain is None else f"{100 * row.gain:+.1f}"
        cells = (_cell(score) for score in (row.encoder, row.pixels, row.untrained))
        table.add_row(f"{_LABELS.get(row.probe, row.probe)} {_METRICS.get(row.metric, row.metric)}", *cells, gain)
    console = Console(width=WIDTH, color_system=None, force_terminal=False, highlight=False, record=False)
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    counts = {score.n for row in rows for score in (row.encoder, row.pixels, row.untrained) if score}
    images = " and ".join(f"{n:,}" for n in sorted(counts))
    lines.append(f"Per cent [95 % interval over {images} test images]; gain over the better baseline.")
    for words, needed in (
        (_BEST_EPOCH_WORDS, any(row.metric == BEST_EPOCH for row in rows)),
        (_AUGMENTED_WORDS, any(row.probe == AUGMENTED for row in rows)),
    ):
        lines.extend(textwrap.wrap(words, WIDTH) if needed else [])
    return "\n".join(lines) + "\n"


def _cell(score: Score | None) -> str:
    if score is None:
        return "-"
    return f"{_percent(score.value)} [{_percent(score.low)}, {_percent(score.high)}]"


def _percent(value: float) -> str:
    return "100" if value == 1 else f"{100 * value:.1f}"
