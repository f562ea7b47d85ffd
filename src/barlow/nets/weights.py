"""An encoder's weights: starting from given ones, and saving and loading an encoder whole.

Nothing is loaded by halves. Every tensor of the encoder and of the file is accounted for, or it is an error.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from barlow import __version__, limits, storage
from barlow.exits import Diverged, UnusableData
from barlow.linalg import not_finite
from barlow.nets import hub_folder
from barlow.nets.building import BuiltAs, build_encoder, feature_width
from barlow.nets.files import FORMAT, OF_A_STEM, described
from barlow.nets.fitting import fitted
from barlow.nets.given import Network, Origin
from barlow.nets.handed_out import Stages, handed_out
from barlow.nets.origin import origin_of, some
from barlow.nets.preprocessing import Preprocessing
from barlow.nets.stems import belongs_to_stem
from barlow.nets.weight_file import tensors_with_digest
from barlow.printable import one_line, printable
from barlow.seals import sha256

# --- Starting from given weights ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class InitialisationReport:
    """What became of every tensor when an encoder was started from given weights."""

    source: str
    loaded: int
    """Tensors of the encoder that were taken from the source."""
    recognised: str = ""
    """As what the source was recognised, if it had to be."""
    kept: tuple[str, ...] = ()
    """Tensors of the encoder that stay as they were built: a replaced stem's, and counts that older files have not."""
    dropped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Tensors and entries of the source that have no place here, by what they are."""
    notes: tuple[str, ...] = ()
    """One for each tensor that was made to fit, and for numbers of another type."""
    assumed: tuple[str, ...] = ()
    """What the source does not show and is taken to be so."""

    @property
    def unused(self) -> tuple[str, ...]:
        """All that was dropped, by name."""
        return tuple(name for names in self.dropped.values() for name in names)

    def __str__(self) -> str:
        line = f"{self.loaded} tensors from {self.source}"
        if self.recognised:
            line += f" ({self.recognised})"
        if self.kept:
            line += f"; kept as built: {some(self.kept)}"
        if self.dropped:
            parts = ", ".join(f"{what} ({some(names, 2)})" for what, names in self.dropped.items())
            line += f"; not used: {parts}"
        if self.assumed:
            line += f"; assumed: {', '.join(self.assumed)}"
        return "; ".join([line, *self.notes])


_CLASSIFIERS = ("fc", "head", "heads", "classifier")
"""What classifiers are called in timm and torchvision. timm's configuration of a network names its own as well."""

_COUNT = ".num_batches_tracked"
"""Of batch norms, which files of torch before 0.4.1 have not. Only norms without a momentum of their own use it."""


def initialise(
    encoder: nn.Module, source: str | os.PathLike[str], origin: Origin | None = None
) -> InitialisationReport:
    """Starts an encoder from given weights. Every tensor must find its counterpart, on both sides.

    These differences are allowed, and the report names them:

    - The source may have a classifier, and what the rules of its layout (`barlow.nets.layouts`) drop by name.
    - The encoder may have been built with another stem, which it then keeps.
    - The weights may be for images of one or three channels, and the encoder for another number; and a ViT's for
      another size of image. See `barlow.nets.fitting`.
    - The numbers may be of another type of float, and the norms' counts of batches may be missing.

    Args:
        encoder: changed in place, or not at all.
        source: see `barlow.nets.origin.origin_of`.
        origin: what that says of the source, where the caller has asked already.

    Raises:
        ValueError: the source cannot be read or does not fit. The message lists the first tensors that are missing,
            unexpected or of another shape.
    """
    text = os.fspath(source)
    origin = origin or origin_of(text)
    given, own = origin.read(encoder), encoder.state_dict()
    found, notes = fitted(encoder, given.tensors)
    stem_replaced = getattr(getattr(encoder, "built_as", None), "stem", "as_is") != "as_is"
    taken: dict[str, Tensor] = {}
    kept, wrong, stem = [], [], []
    for name, value in own.items():
        other = found.get(name)
        if other is not None and other.shape == value.shape and other.is_floating_point() == value.is_floating_point():
            taken[name] = other
        elif stem_replaced and belongs_to_stem(name):
            kept.append(name)
            stem += [name] * (other is not None)
        elif other is None and name.endswith(_COUNT) and not any(each.endswith(_COUNT) for each in found):
            kept.append(name)
        elif other is None:
            wrong.append(f"{name} is missing")
        else:
            wrong.append(f"{name} is {_kind(other)} there, {_kind(value)} here")
    classifiers = tuple(f"{name}." for name in (*_CLASSIFIERS, *_classifier(encoder)))
    classifier = [name for name in found if name not in own and name.startswith(classifiers)]
    for name in found.keys() - own.keys() - set(classifier):
        if stem_replaced and belongs_to_stem(name):
            stem.append(name)
        else:
            wrong.append(f"{name} is unexpected")
    if wrong or not taken:
        raise UnusableData(_misfit(encoder, origin, wrong or ["no name in common"]))
    if broken := [name for name, value in taken.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise UnusableData(f"the weights in {text} are not finite: {some(broken)}; take others")
    notes += _types(taken, own)
    encoder.load_state_dict(own | taken, strict=True)
    dropped = dict(given.dropped)
    for what, names in (("the classifier", classifier), ("the stem", sorted(stem))):
        if names:
            dropped[what] = (*dropped.get(what, ()), *names)
    return InitialisationReport(text, len(taken), origin.recognised, tuple(kept), dropped, notes, origin.assumed)


def _misfit(encoder: nn.Module, origin: Origin, wrong: list[str]) -> str:
    """One line for weights that do not fit."""
    built_as: BuiltAs | None = getattr(encoder, "built_as", None)
    whose = type(encoder).__name__ if built_as is None else built_as.name
    advice = "give the encoder, options and image size that they were made with (docs/weights.md)"
    if origin.network is not None:
        advice = f"they are of {origin.network.name}: --encoder auto takes it, with what belongs to it"
        if built_as is not None and (built_as.name, built_as.options) == (origin.network.name, origin.network.options):
            advice = "the file is not whole, or of a network that only looks like it"
    as_what = f" ({origin.recognised})" * bool(origin.recognised)
    return f"the weights in {origin.source}{as_what} do not fit {whose}: {printable(some(wrong, 3))}; {advice}"


def _types(taken: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[str, ...]:
    """A phrase, where floats are of another type than the encoder's."""
    other = {
        str(t.dtype).removeprefix("torch.")
        for n, t in taken.items()
        if t.dtype != own[n].dtype and t.is_floating_point()
    }
    return (f"{' and '.join(sorted(other))} numbers, held as float32 here",) if other else ()


def _classifier(encoder: nn.Module) -> tuple[str, ...]:
    names = (getattr(encoder, "pretrained_cfg", None) or {}).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _kind(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


# --- Saving and loading -------------------------------------------------------------------------------------------


def packed(
    encoder: nn.Module,
    *,
    name: str,
    stem: str,
    zero_init_last: bool,
    options: Mapping[str, Any],
    seed: int,
    preprocessing: Preprocessing,
    stages: Stages = "last",
    whiten: float | None = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An encoder as the contents of `model.safetensors` and of `config.json`, which are all that `load_encoder` needs.

    Args:
        name: a timm name, or `custom:CLASS` for a module that was given in Python.
        stem, zero_init_last, options, seed: as in `build_encoder`.
        stages, whiten: as the recipe has them; see `barlow.nets.handed_out`. If either is more than the network's own
            features, the encoder is a `HandedOut`.
        preprocessing: what the encoder expects of an image; the image size and the number of channels come from it.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in encoder.state_dict().items()}
    network = Network(name, dict(options), stem, zero_init_last)
    return tensors, _description(encoder, network, seed, preprocessing, stages, whiten)


def _description(
    encoder: nn.Module, network: Network, seed: int, preprocessing: Preprocessing, stages: Stages, whiten: float | None
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "barlow": __version__,
        "kind": "custom" if network.name.startswith("custom:") else "timm",
        "name": network.name,
        "in_channels": preprocessing.channels,
        "image_size": preprocessing.as_dict()["size"],
        "stem": network.stem,
        "zero_init_last": network.zero_init_last,
        "options": network.options,
        "seed": seed,
        "stages": stages,
        "whiten": whiten,
        "num_features": feature_width(encoder, preprocessing.channels, preprocessing.size),
        "preprocessing": preprocessing.as_dict(),
    }


def with_description(encoder: nn.Module, network: Network, preprocessing: Preprocessing, seed: int) -> nn.Module:
    """An encoder that barlow has not written, with all that one has that it has: `.num_features`, `.preprocessing`,
    `.preprocess`, a description, and eval mode.

    Args:
        encoder: changed in place; its tensors are not.
        network: which one it is; `custom:CLASS` for a module that was given in Python.
        preprocessing: what it expects of an image.
        seed: that it was built with.

    Raises:
        ValueError: it does not return (n, features).
    """
    config = _description(encoder, network, seed, preprocessing, "last", None)
    encoder.num_features = config["num_features"]
    encoder.description = config  # type: ignore[assignment]
    return with_preprocessing(encoder.eval(), preprocessing)


def write(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Writes what `packed` returns, in the place of an older encoder if there is one."""
    data = storage.tensors_bytes(tensors)
    # The older encoder of a run that was made longer goes first: meanwhile the newest checkpoint is taken for it.
    storage.remove_own(folder / "config.json")
    storage.write_bytes(folder / "model.safetensors", data)
    # Last, with the digest of the weights: of two encoders a crash may leave halves, and they are told apart.
    storage.write_sealed(folder / "config.json", {**config, "model_sha256": sha256(data)})


def read_encoder(folder: Path, module: nn.Module | None = None) -> nn.Module:
    """The encoder of a folder, on the CPU and in eval mode, with `.num_features`, `.preprocessing`, `.preprocess`.

    Args:
        folder: with `model.safetensors` and `config.json`.
        module: as for `unpacked`.

    Raises:
        ValueError: it is damaged, a newer barlow wrote it, or it does not fit `module`.
        Diverged: it holds numbers that are not finite.
    """
    config = described(folder)
    form = config.get("format")
    if type(form) is not int:
        raise UnusableData(f"{folder / 'config.json'} is not an encoder's description: it has no format number")
    if form > FORMAT:
        raise storage.Newer(
            f"{folder} was written by barlow {config.get('barlow', '(unknown)')} in format {form}; this is barlow "
            f"{__version__}, which reads up to {FORMAT}: upgrade it"
        )
    path = folder / "model.safetensors"
    there = limits.tensors_in(path)  # the header alone; nothing is built or read that is larger than it says
    numbers = sum(entry.items for entry in there.values())
    most = numbers + OF_A_STEM, f"and its file of weights has {numbers:,} numbers"
    encoder = _built(config, str(folder), module, most)
    _check_shapes(encoder, {name: entry.shape for name, entry in there.items()}, config, str(folder))
    return _filled(encoder, tensors_with_digest(path, config.get("model_sha256")), config, str(folder))


def unpacked(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], where: str, module: nn.Module | None = None
) -> nn.Module:
    """What `packed` made of an encoder, as the encoder again. It keeps its description, for `description_of`.

    Args:
        tensors, config: as `packed` returns them.
        where: what messages call it.
        module: needed for an encoder that was given in Python: a module of the same class, which is filled.
    """
    encoder = _built(config, where, module)
    _check_shapes(encoder, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, config, where)
    return _filled(encoder, tensors, config, where)


def as_described(config: Mapping[str, Any]) -> nn.Module:
    """The network that barlow builds from an encoder's description, with other weights."""
    return _built(config, str(config["name"]), None)


def _built(
    config: Mapping[str, Any], where: str, module: nn.Module | None, most: tuple[int, str] | None = None
) -> nn.Module:
    """The encoder that a description is of, with other weights; `most` is as of `build_encoder`."""
    try:
        if config["kind"] == "custom":
            if module is None:
                raise ValueError(
                    f"{where} holds a {config['name'].removeprefix('custom:')} that was given in Python, which cannot "
                    "be rebuilt from its description: load_encoder(folder, module=...) fills a module of the same class"
                )
            return module
        if module is not None:
            raise ValueError(f"{where} holds timm's {config['name']}, which is built here: leave out module")
        keys = ("in_channels", "image_size", "stem", "zero_init_last", "seed", "options")
        encoder = build_encoder(config["name"], most=most, **{key: config[key] for key in keys})
        # Encoders of format 1 hand out their network's own features.
        return handed_out(encoder, config.get("stages", "last"), config.get("whiten"))
    except (KeyError, TypeError) as error:
        raise UnusableData(f"{where}/config.json is incomplete or damaged: {one_line(error)}") from error


def _check_shapes(
    encoder: nn.Module, there: Mapping[str, tuple[int, ...]], config: Mapping[str, Any], where: str
) -> None:
    """Refuses weights that are not exactly those of an encoder: too few, too many, or of another shape."""
    own = encoder.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in there]
    wrong += [f"{name} is unexpected" for name in there if name not in own]
    wrong += [
        f"{name} is {list(there[name])} there, {list(value.shape)} here"
        for name, value in own.items()
        if name in there and there[name] != tuple(value.shape)
    ]
    if wrong:
        raise UnusableData(f"the weights in {where} do not fit {config['name']}: {some(wrong)}")


def _filled(encoder: nn.Module, tensors: Mapping[str, Tensor], config: Mapping[str, Any], where: str) -> nn.Module:
    """The encoder with its weights, and all that its description says of it."""
    if broken := not_finite(tensors):
        raise Diverged(f"the weights in {where} are not finite ({some(broken)}): the run that made them had diverged")
    encoder.load_state_dict(tensors, strict=True)
    try:
        encoder.num_features = config["num_features"]
        preprocessing = Preprocessing(**config["preprocessing"])
    except (KeyError, TypeError) as error:
        raise UnusableData(f"{where}/config.json is incomplete or damaged: {one_line(error)}") from error
    encoder.description = dict(config)  # type: ignore[assignment]
    return with_preprocessing(encoder.eval(), preprocessing)


def description_of(encoder: nn.Module) -> dict[str, Any]:
    """What config.json says of an encoder that was loaded."""
    config: dict[str, Any] = encoder.description  # type: ignore[assignment]
    return config


def with_preprocessing(encoder: nn.Module, preprocessing: Preprocessing) -> nn.Module:
    """The same encoder, now with `.preprocessing` and `.preprocess`."""
    encoder.preprocessing = preprocessing  # type: ignore[assignment]
    encoder.preprocess = preprocessing  # type: ignore[assignment]
    return encoder


def encoder_folder(folder: Path) -> Path | None:
    """Where a run folder, or an encoder folder, has a finished encoder of barlow's; None if it has none."""
    for home in (folder / "encoder", folder):
        if (home / "model.safetensors").is_file() and hub_folder.whose(home) == "barlow":
            return home
    return None
