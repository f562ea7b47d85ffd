"""From a file of weights of others to a folder with an encoder, which everything here reads."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from barlow import storage
from barlow.encoders import find_encoder
from barlow.nets import hub_folder, weights
from barlow.printable import printable
from barlow.telling import Say, silent
from barlow.wording import in_arguments

_KEYS = ("encoder.options", "encoder.stem")
"""Of the recipe's, those that say which network a file of weights is of."""


@dataclass(frozen=True)
class Imported:
    """An encoder that was written.

    Args:
        folder: with `config.json` and `model.safetensors`; `barlow.load_encoder(folder)` reads it.
        report: what became of every tensor.
        advice: all of that in lines that begin with a word.
    """

    folder: Path
    report: weights.InitialisationReport
    advice: list[str] = field(default_factory=list)


@in_arguments
def import_weights(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    encoder: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    image_size: object = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    tell: Say | None = None,
) -> Imported:
    """Writes foreign weights as an encoder's folder, with their network and what they expect of an image.

    Nothing of a file runs. Every tensor is used, or dropped by a rule that has a name, or it is an error
    (docs/weights.md).

    Args:
        source: a file of weights, a folder of timm's as it lies on the Hugging Face hub, `timm:NAME` or
            `packaged:NAME`.
        out: a folder that is not there yet. It appears whole, or not at all.
        encoder: the network, a name of timm's, where the shapes of the tensors do not show it; None or `auto` where
            they do.
        overrides: `encoder.options` and `encoder.stem` of the network, where shapes do not show them.
        image_size: a side or (height, width) in pixels, in place of the one that the network is mostly used with.
        mean, std: of each channel, for pixels in [0, 1], where they are not ImageNet's.
        tell: receives messages of one line.

    Raises:
        ValueError: the file cannot be read or does not say enough. One line says what to do.
        StorageError: the folder cannot be written, or exists.
    """
    folder, changes = Path(out), dict(overrides or {})
    for key in changes.keys() - set(_KEYS):
        raise ValueError(f"--{key} is no key of a network: only {' and '.join(f'--{key}' for key in _KEYS)} are")
    if folder.exists():
        raise storage.CannotCreate(f"--out {printable(folder)} exists: name a folder that does not, or remove it first")
    options, stem = (changes.get(key) for key in _KEYS)
    lines: list[str] = []
    found = find_encoder(
        source,
        encoder=encoder,
        options=options,
        stem=stem or "as_is",
        image_size=image_size,
        mean=mean,
        std=std,
        say=lines.append,
    )
    report = found.report
    if report is None:
        raise ValueError(
            f"{found.name} is an encoder of barlow's already: give its folder wherever an encoder is asked for"
        )
    _check_taken(found.name, weights.description_of(found.network), encoder, stem)
    (tell or silent)(f"writing {printable(folder)}")
    network, config = found.network, weights.description_of(found.network)
    tensors = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    with storage.appearing(folder) as beside:
        weights.write(beside, tensors, {**config, "imported": _record(source, report)})
    return Imported(folder, report, [*_lines(found.name, report, config), *(f"assumed  {line}" for line in lines[1:])])


def _check_taken(name: str, config: Mapping[str, Any], encoder: str | None, stem: str | None) -> None:
    """Refuses what a user says of a network and its weights say otherwise: it would be dropped."""
    shown = config["name"] + ("" if config["stem"] == "as_is" else f" with the stem {config['stem']}")
    if encoder not in (None, "auto") and config["name"].partition(".")[0] != str(encoder).partition(".")[0]:
        raise ValueError(f"{name} is of {shown}, and --encoder is {printable(encoder)}: leave --encoder out")
    if stem is not None and config["stem"] != stem:
        raise ValueError(
            f"{name} is of {shown}, and --encoder.stem is {printable(str(stem))}: leave that out, or name the network "
            f"too, --encoder {config['name']}"
        )


def _record(source: str | os.PathLike[str], report: weights.InitialisationReport) -> dict[str, Any]:
    """Where the encoder comes from, for its description: of a path its last part, as the rest is of somebody's
    machine."""
    place = Path(source)
    file = place if place.is_file() else hub_folder.weights_in(place)
    return {
        "source": printable(place.resolve().name if place.exists() else source),
        "sha256": None if file is None else _digest(file),
        "recognised": report.recognised,
        "dropped": {what: len(names) for what, names in report.dropped.items()},
        "changed": list(report.notes),
        "assumed": list(report.assumed),
    }


def _digest(file: Path) -> str:
    """Of a file that may be too large for the memory."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _lines(name: str, report: weights.InitialisationReport, config: Mapping[str, Any]) -> list[str]:
    """What became of a file, a line each."""
    options = f" with {config['options']}" if config["options"] else ""
    stem = "" if config["stem"] == "as_is" else f", stem {config['stem']}"
    lines = [
        f"read     {name}" + f": {report.recognised}" * bool(report.recognised),
        f"network  {config['name']}{options}{stem}",
        f"used     {report.loaded} tensors",
    ]
    for what, names in report.dropped.items():
        first = ", ".join(map(printable, names[:2])) + ", …" * (len(names) > 2)
        lines.append(f"dropped  {what}: {len(names)} ({first})")
    if report.kept:
        lines.append(f"kept     {len(report.kept)} tensors as they are built ({report.kept[0]})")
    lines += [f"changed  {note}" for note in report.notes]
    return lines + [f"assumed  {phrase}" for phrase in report.assumed]
