"""An encoder's weights: starting from given ones, and saving and loading an encoder whole.

Nothing is loaded by halves. Every tensor of the encoder and of the file is accounted for, or it is an error.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from barlow import __version__, limits, storage
from barlow.exits import Diverged, UnusableData
from barlow.linalg import not_finite
from barlow.nets.building import build_encoder, feature_width
from barlow.nets.handed_out import Stages, handed_out
from barlow.nets.origin import FORMAT, Network, described, origin_of, some, weights_in
from barlow.nets.preprocessing import Preprocessing
from barlow.nets.stems import belongs_to_stem
from barlow.printable import one_line

OF_A_STEM = 1_000_000
"""Parameters that a network may have while it is built and not in the end: those of the stem that is replaced."""


# --- Starting from given weights ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class InitialisationReport:
    """What became of every tensor when an encoder was started from given weights."""

    source: str
    loaded: int
    """Tensors of the encoder that were taken from the source."""
    kept: tuple[str, ...] = ()
    """Tensors of the encoder that stay as they were built. Only a replaced stem's may."""
    unused: tuple[str, ...] = ()
    """Tensors of the source that have no place here: its classifier, its stem, and what lies outside of `prefix`."""
    prefix: str = ""
    """What the source's names begin with and the encoder's do not."""
    notes: tuple[str, ...] = ()
    """One for each tensor that was adapted to another number of channels."""

    def __str__(self) -> str:
        line = f"{self.loaded} tensors from {self.source}"
        if self.prefix:
            line += f" (names without {self.prefix!r})"
        for what, names in (("kept as built", self.kept), ("not used", self.unused)):
            if names:
                line += f"; {what}: {some(names)}"
        return "; ".join([line, *self.notes])


_PREFIXES = (
    "",
    "encoder.",
    "backbone.",
    "model.",
    "module.",
    "module.encoder.",
    "module.backbone.",
    "method/encoder.",
    "network.",
)
"""What full checkpoints put before the names of their encoder's tensors.

`backbone.` is lightly's and solo-learn's, `module.` that of data-parallel runs, `module.backbone.` Barlow Twins' and
VICReg's, `method/encoder.` that of this package's checkpoints, and `network.` that of its encoders that hand out all
stages or whitened features.
"""

_CLASSIFIERS = ("fc", "head", "classifier")
"""What classifiers are called in timm and torchvision. timm's configuration of a network names its own as well."""


def initialise(encoder: nn.Module, source: str | os.PathLike[str]) -> InitialisationReport:
    """Starts an encoder from given weights. Every tensor must find its counterpart, on both sides.

    Four differences are allowed, and the report names them:

    - The source may have a classifier.
    - The encoder may have been built with another stem, which it then keeps.
    - The weights may be for images of one or three channels, and the encoder for another number; see `adapted`.
    - The source may be a full checkpoint, in which the encoder's names begin with `encoder.`, `backbone.`, `model.`,
      `module.`, `module.encoder.`, `module.backbone.`, `method/encoder.` or `network.`. What has other names is left
      out.

    Args:
        encoder: changed in place, or not at all.
        source: see `barlow.nets.origin.origin_of`.

    Raises:
        ValueError: the source cannot be read or does not fit. The message lists the first tensors that are missing,
            unexpected or of another shape.
    """
    text = os.fspath(source)
    origin = origin_of(text)
    read, own = origin.read(encoder), encoder.state_dict()
    counts = [sum(prefix + name in read for name in own) for prefix in _PREFIXES]
    prefix = _PREFIXES[counts.index(max(counts))]
    found, notes = _with_channels_of(encoder, read, prefix)
    stem_replaced = getattr(getattr(encoder, "built_as", None), "stem", "as_is") != "as_is"
    taken: dict[str, Tensor] = {}
    kept, wrong, unused = [], [], [name for name in found if not name.startswith(prefix)]
    for name, value in own.items():
        other = found.get(prefix + name)
        if other is not None and other.shape == value.shape and other.is_floating_point() == value.is_floating_point():
            taken[name] = other
        elif stem_replaced and belongs_to_stem(name):
            kept.append(name)
            if other is not None:
                unused.append(prefix + name)
        elif other is None:
            wrong.append(f"{name} is missing")
        else:
            wrong.append(f"{name} is {_kind(other)} there, {_kind(value)} here")
    classifiers = tuple(f"{name}." for name in (*_CLASSIFIERS, *_classifier(encoder)))
    for name in found:
        inner = name.removeprefix(prefix)
        if name.startswith(prefix) and inner not in own:
            if inner.startswith(classifiers) or (stem_replaced and belongs_to_stem(inner)):
                unused.append(name)
            else:
                wrong.append(f"{inner} is unexpected")
    if wrong or not taken:
        whose = "Give the encoder, options and image size that the weights were made with"
        if origin.network is not None:
            whose = f"They are of {origin.network.name}: --encoder auto takes it, with what belongs to it"
        raise ValueError(
            f"the weights in {text} do not fit this {type(encoder).__name__}: {some(wrong or ['no name in common'])}. "
            f"{whose}"
        )
    if broken := [name for name, value in taken.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise ValueError(f"the weights in {text} are not finite: {some(broken)}; take others")
    encoder.load_state_dict(own | taken, strict=True)
    return InitialisationReport(text, len(taken), tuple(kept), tuple(unused), prefix, notes)


def _with_channels_of(
    encoder: nn.Module, found: dict[str, Tensor], prefix: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Weights for grey or RGB images, made to fit an encoder of other images, and what was adapted."""
    first = (getattr(encoder, "pretrained_cfg", None) or {}).get("first_conv") or ()
    own, fitting, notes = encoder.state_dict(), dict(found), []
    for layer in (first,) if isinstance(first, str) else first:
        name = f"{layer}.weight"
        weight, here = found.get(prefix + name), own.get(name)
        if weight is None or here is None or weight.ndim != 4 or here.ndim != 4:
            continue
        there, wanted = weight.shape[1], here.shape[1]
        if there == wanted or there not in (1, 3) or weight.shape[2:] != here.shape[2:]:
            continue
        fitting[prefix + name] = adapted(weight, wanted)
        notes.append(f"{name} adapted from {there} to {wanted} channels")
    return fitting, tuple(notes)


def adapted(weight: Tensor, channels: int) -> Tensor:
    """A first convolution for images of another number of channels.

    For one channel its kernels are summed: a grey image then gives what it gave as three equal channels. For any other
    number they are repeated in their order (red, green, blue, red, …) and scaled by the old number over the new one, so
    that the sum over channels stays about as large as it was. (It stays the same for equal channels, if their number is
    a multiple of the old one.) Nobody knows which band is which, so this is a start and no more.

    Source: timm's `adapt_input_conv`, which does the same for three channels.

    Args:
        weight: (outputs, c, height, width).
        channels: the new number.
    """
    there = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, -(-channels // there), 1, 1)[:, :channels]
    return repeated * (there / channels)


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
    return _filled(encoder, weights_in(path, config.get("model_sha256")), config, str(folder))


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
    """Where a run folder, or an encoder folder, has a finished encoder; None if it has none."""
    for home in (folder / "encoder", folder):
        if (home / "config.json").is_file() and (home / "model.safetensors").is_file():
            return home
    return None
