"""One file, one protocol: a way of measuring an encoder with labelled images. The file's name is the protocol's name.

A new protocol is a new file here: a frozen dataclass, named in its file's ``__all__``, whose docstring has Source,
Convention and Deviation. Files whose name begins with an underscore are not protocols. `Probe` says what is asked of
one.

A name may be followed by a colon and a number: `fewshot:5` is five images a class, `knn:200` is 200 neighbours. The
class says which of its fields that sets. Several numbers are several protocols: `fewshot:1,5` is `fewshot:1` and
`fewshot:5`. So each protocol gives one row of each of its metrics, whose name never changes.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from barlow import kinds as _kinds

if TYPE_CHECKING:
    import torch

    from barlow.probes import FeatureSet, Predicted, Score
    from barlow.types import Features

DEFAULT = ("knn", "knn5_euclidean", "logistic", "linear_sgd")
"""What an evaluation measures if it is not told: what takes seconds, and needs features only."""


class Probe(Protocol):
    """A protocol that reads features: a frozen dataclass that needs no arguments.

    Contract (tests/contracts/test_protocols.py checks it for every file of the folder):
      1. `predict` does not get the test labels, so nothing can be fitted to them. Whatever is chosen is chosen on a
         part of `train`. A probe that trains may hand over its predictions after every epoch (`Predicted.by_epoch`),
         from which `measure` finds the best epoch; top-1 and top-5 are always those of the last epoch;
      2. calling the probe is `measure(predict(train, test.features), test.labels)`;
      3. the scores of a test row depend on that row and `train` only; equal inputs give equal scores;
      4. a `train` of one class is a ValueError; several labels an image are accepted.
    """

    label: ClassVar[str]
    """What tables call it. `{}` stands for its number."""
    parameter: ClassVar[str | None]
    """The field that a number after the colon sets; None if there is none."""
    usual: ClassVar[tuple[float, ...]]
    """The numbers that the name alone stands for; empty if the field's default is meant."""

    def predict(self, train: "FeatureSet", test: "Features") -> "Predicted": ...

    def __call__(self, train: "FeatureSet", test: "FeatureSet") -> "dict[str, Score]": ...


def kinds() -> list[str]:
    """The protocols there are, in alphabetical order."""
    return _kinds.kinds(__path__)


def load(kind: str) -> type[Any]:
    """The class of a protocol.

    Raises:
        ValueError: there is none of that name.
    """
    return _kinds.load(__name__, __path__, kind)


def names_in(protocols: str | Sequence[str]) -> list[str]:
    """The protocols that a user named, one by one.

    Example:
        >>> names_in("knn,fewshot:1,5,svm")
        ['knn', 'fewshot:1', 'fewshot:5', 'svm']
    """
    named: list[str] = []
    for text in [protocols] if isinstance(protocols, str) else protocols:
        kind = ""
        for part in (part.strip() for part in text.split(",")):
            if part[:1].isdigit() and ":" not in part and kind:
                part = f"{kind}:{part}"
            kind = part.partition(":")[0]
            named.append(part)
    if not all(named):
        raise ValueError(f"--protocol {protocols!r}: names with commas between them, as in --protocol knn,logistic")
    return named


def build(protocols: str | Sequence[str] | None = None, device: "torch.device | None" = None) -> dict[str, Probe]:
    """Protocols by name, with their papers' settings.

    Args:
        protocols: as `names_in` reads them; `DEFAULT` if not given.
        device: a GPU for the protocols that train. The features of each of their steps are moved there.

    Raises:
        ValueError: there is no protocol of that name, or it takes no such number.
    """
    built: dict[str, Probe] = {}
    for name in names_in(DEFAULT if protocols is None else protocols):
        kind, colon, text = name.partition(":")
        found = load(kind)
        for value in [text] if colon else found.usual or [None]:
            probe = found() if value is None else found(**{_field_of(name, found).name: _number(name, found, value)})
            if device is not None and device.type == "cuda" and hasattr(probe, "device"):
                probe = dataclasses.replace(probe, device=str(device))
            built[_name_of(kind, probe)] = probe
    return built


def label_of(name: str) -> str:
    """What tables call a protocol: `1-shot` for `fewshot:1`. Of one that this version does not know, its name."""
    kind, _, number = name.partition(":")
    if kind not in kinds():
        return name
    found = load(kind)
    label: str = found.label
    if "{}" in label:
        return label.format(number)
    return f"{label} {number}" if number else label


def _field_of(name: str, found: type[Any]) -> "dataclasses.Field[Any]":
    if found.parameter is None:
        raise ValueError(f"protocol {name!r}: {name.partition(':')[0]} takes no number; leave out what is after it")
    return next(field for field in dataclasses.fields(found) if field.name == found.parameter)


def _number(name: str, found: type[Any], text: str | float) -> Any:
    """What is after the colon, as the field's type."""
    kind, asked = name.partition(":")[0], _field_of(name, found)
    try:
        return asked.type(text)  # type: ignore[operator]
    except ValueError:
        what = "a whole number" if asked.type is int else "a number"
        words = asked.name.replace("_", " ")
        raise ValueError(f"protocol {name!r}: {kind} takes {what} after the colon ({words}), as in {kind}:5") from None


def _name_of(kind: str, probe: Any) -> str:
    """The name under which results are kept: with the number, unless it is what the name alone means."""
    if probe.parameter is None:
        return kind
    value = getattr(probe, probe.parameter)
    default = next(field.default for field in dataclasses.fields(probe) if field.name == probe.parameter)
    return kind if value == default and not probe.usual else f"{kind}:{value:g}"
