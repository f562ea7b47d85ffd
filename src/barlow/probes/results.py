"""What probes found: numbers with their intervals, what was chosen, and what was predicted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from barlow.probes.intervals import Score
from barlow.probes.metrics import Prediction


@dataclass(frozen=True)
class Outcome:
    """What one probe found on one set of features."""

    metrics: Mapping[str, Score]
    notes: Mapping[str, Any]
    chosen_on_test: Mapping[str, Any] = field(default_factory=dict)
    """What was chosen by looking at the test labels, as the papers do: `best_epoch`, to which `best_epoch_top1`
    belongs."""
    chance: Mapping[str, float] = field(default_factory=dict)
    """What a random order has, of each metric that is a mean average precision (`chance_of`)."""
    answers: tuple[Prediction, np.ndarray] | None = field(default=None, repr=False, compare=False)
    """What was predicted, and the labels of the test images: for paired intervals."""


Results = dict[str, dict[str, Outcome]]
"""Outcomes by the name of the set of features, then by the kind of the probe."""
