"""Weights in files: an encoder's folder, a checkpoint of a run, and files of weights of any project that is known."""

from pathlib import Path
from typing import Any

from torch import nn

from barlow import checkpoints, limits, storage, tables
from barlow.exits import NoInput, UnusableData
from barlow.nets import hub_folder, stored_size
from barlow.nets.architectures import Shown, shown_by
from barlow.nets.bounded import items_of
from barlow.nets.expected import IMAGENET, Centre, Normalization
from barlow.nets.given import Given, Network, Origin, Question
from barlow.nets.layouts import NoRule, recognise, shapes_of
from barlow.nets.weight_file import WeightFile, open_weights
from barlow.printable import one_line, printable
from barlow.size import size_of

FORMAT = 3
"""The number of `config.json`'s format. A reader refuses a file with a newer one. 2 came with `stages` and `whiten`, 3
with the preprocessing's `value_range`."""

OF_A_STEM = 1_000_000
"""Parameters that a network may have while it is built and not in the end: those of the stem that is replaced, or of
what only a training uses."""

SOURCES = "give packaged:NAME, timm:NAME, a run folder or a file of weights"
"""What weights can be named by, for messages."""


def stored(source: str) -> Origin:
    """Where weights come from that are neither a package's nor timm's.

    Raises:
        ValueError: there are none, or they are damaged.
    """
    run, step = checkpoints.split_step(source)
    unfinished = step is not None or not (run / "encoder" / "model.safetensors").is_file()
    if unfinished and (folder := checkpoints.whole(run, step, stored_size.look())) is not None:
        return _checkpointed(source, folder)
    file = _weights_file(source)
    whose = hub_folder.whose(file.parent)
    if whose == "barlow" and file.name == "model.safetensors":
        return _of_folder(source, file)
    if whose == "timm" and file.name in hub_folder.WEIGHTS:
        return _of_hub_folder(source, file)
    return _of_file(source, file)


def described(folder: Path) -> Any:
    """What an encoder's `config.json` says, not yet checked.

    Raises:
        ValueError: it is too long to be one, or not JSON.
    """
    limits.check_text(folder / "config.json", "an encoder's description")
    path = folder / "config.json"
    return tables.checked(storage.read_sealed(path), path, FORMAT)


def _weights_file(source: str) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    for candidate in (path / "encoder" / "model.safetensors", path / "model.safetensors", hub_folder.weights_in(path)):
        if candidate is not None and candidate.is_file():
            return candidate
    if path.is_dir():
        raise ValueError(
            f"no encoder/model.safetensors and no checkpoint in {source}; give a run's folder or a file of weights"
        )
    raise NoInput(f"no weights at {source!r}; {SOURCES}")


# --- What barlow has written --------------------------------------------------------------------------------------


def _of_folder(source: str, file: Path) -> Origin:
    """The weights of an encoder's folder, which also says what they are."""
    config, network = described(file.parent), None
    try:
        digest = config.get("model_sha256")
        seen = config["preprocessing"]
        ends = seen.get("value_range")
        normalization = Normalization(tuple(seen["mean"]), tuple(seen["std"]), None if ends is None else tuple(ends))
        if config["kind"] == "timm":
            network = Network(*(config[key] for key in ("name", "options", "stem", "zero_init_last")))
    except (KeyError, TypeError) as error:
        name = file.with_name("config.json")
        raise UnusableData(f"{name} is incomplete or damaged: {one_line(error)}") from error
    return Origin(source, lambda encoder: _read(encoder, open_weights(file, digest)), network, normalization)


def _checkpointed(source: str, folder: Path) -> Origin:
    """The encoder in a checkpoint, which also says what recipe it was trained by."""
    recipe = checkpoints.state_of(folder).get("recipe")
    network = normalization = None
    if recipe is not None:
        encoder, data = recipe["encoder"], recipe["data"]
        normalization = Normalization(tuple(data["mean"]), tuple(data["std"]))
        if not encoder["name"].startswith("custom:"):
            network = Network(*(encoder[key] for key in ("name", "options", "stem", "zero_init_last")))
    file = folder / checkpoints.TENSORS
    return Origin(source, lambda encoder: _read(encoder, open_weights(file)), network, normalization)


# --- What others have written -------------------------------------------------------------------------------------


def _of_hub_folder(source: str, file: Path) -> Origin:
    """The weights of a folder of timm's, which also says what they are."""
    found, there = hub_folder.read(file.parent), open_weights(file)
    numbers = sum(entry.items for entry in recognise(file, there.tree).tensors.values())
    return Origin(
        source,
        lambda encoder: _read(encoder, there),
        found.network,
        found.normalization,
        found.centre,
        found.channels,
        assumed=found.assumed,
        most=(numbers + OF_A_STEM, f"and its file of weights has {numbers:,} numbers"),
    )


def _of_file(source: str, file: Path) -> Origin:
    """A file of weights, of which nothing says what it is but what is in it."""
    there = open_weights(file)

    def read(encoder: nn.Module) -> Given:
        return _read(encoder, there)

    try:
        found = recognise(file, there.tree)
    except NoRule as error:  # an encoder that is known may still have all of its names
        why = str(error).replace(f"{file} ", "it ", 1)  # whoever asks names the file
        return Origin(source, read, asks=Question(why))
    shown = shown_by(shapes_of(found), found.arch)
    words = f"{found.layout}; {shown.about or 'a network that its shapes do not show'}"
    return Origin(
        source,
        read,
        None if shown.asks else shown.network,
        IMAGENET if shown.channels == IMAGENET.channels else None,
        _centre(shown),
        shown.channels,
        printable(words),
        shown.assumed,
        shown.asks,
        shown.network if shown.asks else None,
    )


def _centre(shown: Shown) -> Centre | None:
    """The view that networks of this kind are measured on in the code that released weights come with."""
    if shown.image_size is None:
        return None
    return Centre(size_of(shown.image_size), 0.875 if shown.image_size > 64 else 1.0, "bilinear")


def _read(encoder: nn.Module, there: WeightFile) -> Given:
    """The encoder's tensors in a file.

    Raises:
        limits.TooLarge: they are far more than the encoder's.
    """
    own = encoder.state_dict()
    found = recognise(there.path, there.tree, own)
    what, most = f"this {type(encoder).__name__}", items_of(encoder)
    limits.check_items(there.path, found.tensors, most, what)
    tensors = there.read(found.tensors, limits.items_allowed(most), what)
    for name in found.flat:
        tensors[name] = tensors[name].flatten()
    return Given(tensors, found.dropped)
