"""What protocols have found, kept under what it follows from: a question that was answered is not worked on again."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from barlow import __version__, limits, storage
from barlow.exits import UnusableData
from barlow.probes.drawn import Drawn
from barlow.probes.intervals import Score
from barlow.probes.metrics import Predicted, Prediction
from barlow.probes.ranked import Ranked
from barlow.probes.report import chance_of
from barlow.probes.results import Outcome
from barlow.seals import Damaged, digest_of, finite, sealed_tensors
from barlow.telling import Say

FORMAT = 2
"""Of what is kept. Of another format nothing is read: intervals and places among equals were others then."""

FORMAT_OF_DRAWS = 1
"""Of what a network says that was tuned on a draw, whose answers are taken and not its numbers."""

MOST_NUMBERS = 2**25
"""Of one answer, to be kept: a quarter of a gigabyte."""

_PLACES_ONLY = ("device",)
"""Settings of a protocol that say where it computes, and not what."""


def outcome_key(protocol: str, settings: object, sources: Mapping[str, Any], form: int = FORMAT) -> str:
    """Names an outcome by all that it follows from.

    Args:
        protocol: its name.
        settings: the dataclass that it is.
        sources: of the training and the test images: what their features are kept under, and digests of their labels.
        form: the format.
    """
    assert is_dataclass(settings)
    assert not isinstance(settings, type)
    chosen = {key: value for key, value in asdict(settings).items() if key not in _PLACES_ONLY}
    return digest_of([form, __version__, protocol, type(settings).__name__, chosen, sources])


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
            if sum(entry.items for entry in there.values()) > 2 * MOST_NUMBERS:
                raise Damaged(f"{path} is far larger than what is kept")
            return _outcome(storage.read_sealed_tensors(path), labels)
        except (UnusableData, OSError, LookupError, TypeError, ValueError, AssertionError) as error:
            self.say(f"{error}: it is computed again" if isinstance(error, UnusableData) else f"{path} is not used")
            return None

    def keep(self, key: str, outcome: Outcome) -> Outcome:
        """Keeps an outcome, and returns it as it will be found again."""
        answers = outcome.answers and (_compact(outcome.answers[0]), outcome.answers[1])
        notes, chosen = _plain(outcome.notes), _plain(outcome.chosen_on_test)
        compact = replace(outcome, notes=notes, chosen_on_test=chosen, answers=answers)
        if _numbers(compact) > MOST_NUMBERS:
            self.say(f"an answer of {_numbers(compact):,} numbers is not kept: asked again, it is computed again")
            return compact
        try:
            storage.write_tensors(self._place(key), sealed_tensors(_tensors(compact)), {"key": key})
        except storage.StorageError as error:
            self.say(f"{error}; the numbers are not lost, and would be computed again")
        return compact

    def _place(self, key: str) -> Path:
        return self.folder / f"{key[:32]}.safetensors"


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(finite(table)))
    return found


_ARRAY = "answers."
"""What the names of a prediction's arrays begin with."""

_KINDS: Mapping[str, Callable[..., Prediction]] = {kind.__name__: kind for kind in (Predicted, Drawn, Ranked)}
"""The kinds of prediction, by the names under which they are kept."""


def _compact(prediction: Prediction) -> Prediction:
    """The same, without what no metric and no difference asks for: of a thousand classes, the five best of an image."""
    if isinstance(prediction, Predicted) and prediction.classes is not None:
        return Drawn(prediction.answers[None], None, len(prediction.classes), prediction.notes)
    return prediction


def _numbers(outcome: Outcome) -> int:
    if outcome.answers is None:
        return 0
    return sum(value.size for value in vars(outcome.answers[0]).values() if isinstance(value, np.ndarray))


def _tensors(outcome: Outcome) -> dict[str, Tensor]:
    """Numbers as JSON, whose text is exact; arrays as they are, but whole numbers in as few bytes as they need."""
    table: dict[str, Any] = {
        "metrics": {name: asdict(score) for name, score in outcome.metrics.items()},
        "notes": outcome.notes,
        "chosen_on_test": outcome.chosen_on_test,
    }
    tensors = {}
    if outcome.answers is not None:
        prediction: Any = outcome.answers[0]
        values = {each.name: getattr(prediction, each.name) for each in fields(prediction) if each.name != "notes"}
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        tensors = {_ARRAY + name: torch.from_numpy(np.ascontiguousarray(_small(a))) for name, a in arrays.items()}
        rest = {name: value for name, value in values.items() if name not in arrays}
        table["answers"] = {"kind": type(prediction).__name__, "rest": rest}
    text = json.dumps(finite(table)).encode()
    return {**tensors, "table": torch.frombuffer(bytearray(text), dtype=torch.uint8)}


def _small(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.int64 or not array.size:
        return array
    kind = next(kind for kind in (np.int16, np.int32, np.int64) if np.iinfo(kind).max >= np.abs(array).max())
    return array.astype(kind)


def _outcome(tensors: Mapping[str, Tensor], labels: np.ndarray) -> Outcome:
    table = json.loads(tensors["table"].numpy().tobytes())
    answers = None
    if (kept := table.get("answers")) is not None:
        arrays = {
            name.removeprefix(_ARRAY): array.astype(np.int64) if array.dtype.kind == "i" else array
            for name, array in ((name, tensor.numpy()) for name, tensor in tensors.items() if name.startswith(_ARRAY))
        }
        prediction: Prediction = _KINDS[kept["kind"]](**arrays, **kept["rest"], notes=table["notes"])
        answers = prediction, labels
    return Outcome(
        metrics={name: Score(**score) for name, score in table["metrics"].items()},
        notes=table["notes"],
        chosen_on_test=table["chosen_on_test"],
        chance=chance_of(None if answers is None else answers[0], labels, table["metrics"]),
        answers=answers,
    )
