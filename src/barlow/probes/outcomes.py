"""What protocols have found, kept under what it follows from: a question that was answered is not worked on again."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from barlow import __version__, limits, storage
from barlow.exits import UnusableData
from barlow.probes.features import WIDTH
from barlow.probes.intervals import Score
from barlow.probes.metrics import Predicted
from barlow.probes.report import Outcome
from barlow.seals import Damaged, digest_of, finite, sealed_tensors
from barlow.telling import Say

FORMAT = 1

_PLACES_ONLY = ("device",)
"""Settings of a protocol that say where it computes, and not what."""


def outcome_key(protocol: str, settings: object, sources: Mapping[str, Any]) -> str:
    """Names an outcome by all that it follows from.

    Args:
        protocol: its name.
        settings: the dataclass that it is.
        sources: of the training and the test images: what their features are kept under, and digests of their labels.
    """
    assert is_dataclass(settings)
    assert not isinstance(settings, type)
    chosen = {key: value for key, value in asdict(settings).items() if key not in _PLACES_ONLY}
    return digest_of([FORMAT, __version__, protocol, type(settings).__name__, chosen, sources])


@dataclass(frozen=True)
class Outcomes:
    """A folder of outcomes.

    Args:
        folder: where they are.
        say: told of those that are damaged, and of what cannot be kept. Neither stands in the way.
    """

    folder: Path
    say: Say

    def found(self, key: str, labels: np.ndarray) -> Outcome | None:
        """What is kept under a key, if anything is.

        Args:
            key: of `outcome_key`.
            labels: of the test images; they are not kept once more.
        """
        path = self._place(key)
        if not path.exists():
            return None
        try:
            there = limits.tensors_in(path)  # before a stranger's gigabytes are read
            if sum(entry.items for entry in there.values()) > max(len(labels), 1) * WIDTH:
                raise Damaged(f"{path} is far larger than what is predicted of {len(labels):,} images")
            return _outcome(storage.read_sealed_tensors(path), labels)
        except (UnusableData, OSError, LookupError, TypeError, ValueError, AssertionError) as error:
            self.say(f"{error}: it is computed again" if isinstance(error, UnusableData) else f"{path} is not used")
            return None

    def keep(self, key: str, outcome: Outcome) -> Outcome:
        """Keeps an outcome, and returns it as it will be found again."""
        plain = replace(outcome, notes=_plain(outcome.notes), chosen_on_test=_plain(outcome.chosen_on_test))
        try:
            storage.write_tensors(self._place(key), sealed_tensors(_tensors(plain)), {"key": key})
        except storage.StorageError as error:
            self.say(f"{error}; the numbers are not lost, and would be computed again")
        return plain

    def _place(self, key: str) -> Path:
        return self.folder / f"{key[:32]}.safetensors"


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(finite(table)))
    return found


_PREDICTED = "predicted."
"""What the names of a prediction's arrays begin with."""


def _tensors(outcome: Outcome) -> dict[str, Tensor]:
    """Numbers as JSON, whose text is exact; arrays as they are."""
    table: dict[str, Any] = {
        "metrics": {name: asdict(score) for name, score in outcome.metrics.items()},
        "notes": outcome.notes,
        "chosen_on_test": outcome.chosen_on_test,
    }
    tensors = {}
    if outcome.answers is not None:
        predicted, _ = outcome.answers
        values = {field.name: getattr(predicted, field.name) for field in fields(predicted) if field.name != "notes"}
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        tensors = {_PREDICTED + name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
        table["without"] = [name for name in values if name not in arrays]
        assert all(values[name] is None for name in table["without"])
    text = json.dumps(finite(table)).encode()
    return {**tensors, "table": torch.frombuffer(bytearray(text), dtype=torch.uint8)}


def _outcome(tensors: Mapping[str, Tensor], labels: np.ndarray) -> Outcome:
    table = json.loads(tensors["table"].numpy().tobytes())
    answers = None
    if "without" in table:
        arrays: dict[str, Any] = {
            name.removeprefix(_PREDICTED): tensor.numpy()
            for name, tensor in tensors.items()
            if name.startswith(_PREDICTED)
        }
        absent: dict[str, Any] = dict.fromkeys(table["without"])
        answers = Predicted(**arrays, **absent, notes=table["notes"]), labels
    return Outcome(
        metrics={name: Score(**score) for name, score in table["metrics"].items()},
        notes=table["notes"],
        chosen_on_test=table["chosen_on_test"],
        answers=answers,
    )
