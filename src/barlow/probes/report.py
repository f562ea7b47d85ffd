"""The numbers of an evaluation beside what they are compared with: a dictionary for the file, a table for the eye."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from barlow.probes import DEFAULT_PROBES, PROBES, Probe
from barlow.probes.features import FeatureSet
from barlow.probes.intervals import Score
from barlow.probes.metrics import BEST_EPOCH, Predicted, best_epoch, measure

ENCODER = "encoder"
PIXELS = "pixels"
UNTRAINED = ("untrained", "untrained_recalibrated")
"""The untrained network as initialised, and with batch norm recalibrated: a table shows the better, metric by
metric."""

AUGMENTED = "linear_sgd_augmented"
"""`linear_sgd` on augmented views, which the encoder alone gets."""

BASELINES_OF = {AUGMENTED: "linear_sgd"}
"""Probes whose baselines are another probe's."""

WIDTH = 80

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
    """What was chosen with the test labels in sight, as the papers do: `best_epoch`, which `best_epoch_top1` is of."""


Results = dict[str, dict[str, Outcome]]
"""Set's name → probe's kind → outcome."""


@dataclass(frozen=True)
class Row:
    """One metric of one probe, on the encoder and what it is compared with; None where it was not measured."""

    probe: str
    metric: str
    encoder: Score | None
    pixels: Score | None
    untrained: Score | None

    @property
    def gain(self) -> float | None:
        """The encoder's value less that of the best baseline; none where either was chosen on the test images."""
        if self.metric == BEST_EPOCH:
            return None
        baselines = [score.value for score in (self.pixels, self.untrained) if score is not None]
        return self.encoder.value - max(baselines) if self.encoder is not None and baselines else None


def evaluate_features(
    named_sets: Mapping[str, tuple[FeatureSet, FeatureSet]], probes: Mapping[str, Probe] | Sequence[str] | None = None
) -> Results:
    """Runs every probe on every (train, test) pair, all through the same code.

    Args:
        named_sets: by name; "encoder", "pixels", "untrained" and "untrained_recalibrated" have a place in the table.
        probes: by kind, or a list of kinds; `DEFAULT_PROBES` if not given.
    """
    if not isinstance(probes, Mapping):
        kinds = list(DEFAULT_PROBES if probes is None else probes)
        if unknown := [kind for kind in kinds if kind not in PROBES]:
            raise ValueError(f"unknown probe {unknown[0]!r}; use one or more of {', '.join(PROBES)}")
        probes = {kind: PROBES[kind]() for kind in kinds}
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
    """Measures what a probe predicted."""
    best = best_epoch(predicted, labels)
    chosen = {} if best is None else {"best_epoch": best}
    return Outcome(measure(predicted, labels), dict(predicted.notes), chosen)


def results_table(results: Results) -> list[Row]:
    """One row per probe and metric, in the order in which they were measured."""
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


def as_json(results: Results) -> dict[str, Any]:
    """Results as plain data: every measured set, and the gain over the best baseline.

    `chosen_on_test` is there for probes that train: the epoch that `best_epoch_top1` is of.
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
    """The table as text of at most 80 columns: per cent, with 95 % intervals, and the gain over the better baseline.

    Below it stands what the rows of probes that train mean, where there are such rows.
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
