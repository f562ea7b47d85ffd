"""One file, one protocol: a way of measuring an encoder with labelled images. The file's name is the protocol's name.

A new protocol is a new file here: a frozen dataclass, named in its file's ``__all__``, whose docstring has Source,
Convention and Deviation. Files whose name begins with an underscore are not protocols. `Probe` says what is asked of
one.

A name may be followed by a colon and a number: `fewshot:5` is five images a class, `knn:200` is 200 neighbours. The
class says which of its fields that sets. Several numbers are several protocols: `fewshot:1,5` is `fewshot:1` and
`fewshot:5`. So each protocol gives one row of each of its metrics, whose name never changes.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from barlow import kinds as _kinds

if TYPE_CHECKING:
    import torch
    from torch import nn

    from barlow.data.labelled import LabelledSet
    from barlow.probes import FeatureSet, Score
    from barlow.probes.drawn import Drawn
    from barlow.probes.metrics import Prediction
    from barlow.probes.tuning import Unlabelled
    from barlow.telling import Say
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
      4. a `train` of one class is a ValueError; several labels an image are accepted, or refused (`several_labels`).
    """

    label: ClassVar[str]
    """What tables call it. `{}` stands for its number."""
    parameter: ClassVar[str | None]
    """The field that a number after the colon sets; None if there is none."""
    usual: ClassVar[tuple[float, ...]]
    """The numbers that the name alone stands for; empty if the field's default is meant."""
    several_labels: ClassVar[bool]
    """Whether an image may have several labels."""
    trains_encoder: ClassVar[bool]
    """False: it is a `Probe`."""

    def predict(self, train: "FeatureSet", test: "Features") -> "Prediction": ...

    def __call__(self, train: "FeatureSet", test: "FeatureSet") -> "dict[str, Score]": ...


class FineTuning(Protocol):
    """A protocol that trains the encoder itself, and so needs images: a frozen dataclass with `trains_encoder` True.

    Contract (tests/contracts/test_fine_tuning.py): the encoder is not changed. The test images come without labels
    (`barlow.probes.tuning.Unlabelled`), and whatever is chosen is chosen on a part of `train`. It works in draws, and
    hands the work of each to `kept`, which returns what was kept of it, or does it: so one that was stopped goes on
    with the next draw. Equal inputs give equal answers. What names of files decide is in `named`: an answer is kept
    under the settings, pixels, labels and order of the images, and names are no part of these.
    """

    label: ClassVar[str]
    parameter: ClassVar[str | None]
    usual: ClassVar[tuple[float, ...]]
    several_labels: ClassVar[bool]
    trains_encoder: ClassVar[bool]

    def named(self, train: "LabelledSet") -> "list[int] | None":
        """The positions of the training images that are named, for example in a list; None if none are."""

    def predict(
        self,
        encoder: "nn.Module",
        train: "LabelledSet",
        test: "Unlabelled",
        kept: "Callable[[int, Callable[[], Drawn]], Drawn]",
        say: "Say",
    ) -> "Drawn": ...


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


def build(
    protocols: str | Sequence[str] | None = None, device: "torch.device | None" = None
) -> "dict[str, Probe | FineTuning]":
    """Protocols by name, with their papers' settings.

    Args:
        protocols: as `names_in` reads them; `DEFAULT` if not given.
        device: a GPU for the protocols that train. The features of each of their steps are moved there.

    Raises:
        ValueError: there is no protocol of that name, or it takes no such number.
    """
    built: dict[str, Probe | FineTuning] = {}
    for name in names_in(DEFAULT if protocols is None else protocols):
        kind, colon, text = name.partition(":")
        found = load(kind)
        for value in [text] if colon else found.usual or [None]:
            called, probe = _made(name, found, value)
            if device is not None and device.type == "cuda" and hasattr(probe, "device"):
                probe = dataclasses.replace(probe, device=str(device))
            built[called] = probe
    return built


def reading_features(protocols: "Mapping[str, Probe | FineTuning]") -> dict[str, Probe]:
    """Those that read features."""
    return {name: cast("Probe", each) for name, each in protocols.items() if not each.trains_encoder}


def training_encoders(protocols: "Mapping[str, Probe | FineTuning]") -> dict[str, FineTuning]:
    """Those that train the encoder."""
    return {name: cast("FineTuning", each) for name, each in protocols.items() if each.trains_encoder}


def check_labels(protocols: Mapping[str, Any], several: bool) -> None:
    """Refuses what cannot read the labels, before any work is done.

    Args:
        protocols: by name.
        several: whether an image may have several labels.

    Raises:
        ValueError: one of the protocols is for images of one class each.
    """
    for name, protocol in protocols.items():
        if several and not protocol.several_labels:
            raise ValueError(
                f"protocol {name} is for images of one class each, and these may have several labels: "
                "use others, such as --protocol knn,logistic,svm"
            )


def label_of(name: str) -> str:
    """What tables call a protocol: `1-shot` for `fewshot:1`. Of one that this version does not know, its name; of one
    with a file, that file's."""
    kind, _, number = name.partition(":")
    if kind not in kinds():
        return name
    found = load(kind)
    label: str = found.label
    if number and not _is_number(number):
        return f"{kind} {number.replace(os.sep, '/').rpartition('/')[2]}"
    if "{}" in label:
        return label.format(number)
    return f"{label} {number}" if number else label


def _made(name: str, found: type[Any], value: str | float | None) -> tuple[str, Any]:
    """The name under which results are kept, and the protocol: with the number after the colon, or with a file."""
    if isinstance(value, str) and hasattr(found, "from_text") and not _is_number(value):
        return name, found.from_text(value)
    given = {} if value is None else {_field_of(name, found).name: _number(name, found, value)}
    try:
        probe = found(**given)
    except ValueError as error:
        raise ValueError(f"--protocol {name}: {error}") from error
    return _name_of(name.partition(":")[0], probe), probe


def _is_number(text: str) -> bool:
    """Whether it can only be a number. A file may well begin with a digit: `1percent.txt` is one of SimCLR's lists."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # which Python allows in a number


def _field_of(name: str, found: type[Any]) -> "dataclasses.Field[Any]":
    if found.parameter is None:
        raise ValueError(f"protocol {name!r}: {name.partition(':')[0]} takes no number; leave out what is after it")
    return next(field for field in dataclasses.fields(found) if field.name == found.parameter)


def _number(name: str, found: type[Any], text: str | float) -> Any:
    """What is after the colon, as the field's type."""
    kind, asked = name.partition(":")[0], _field_of(name, found)
    try:
        if isinstance(text, str) and not _is_number(text):
            raise ValueError
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
    return kind if value == default and not probe.usual else f"{kind}:{_shortest(value)}"


def _shortest(value: float) -> str:
    """A number in six digits, as in 0.3 or 1e+06, where these say it; otherwise in as many as tell it from others."""
    return short if float(short := f"{value:g}") == value else repr(value)
