"""Encoders: any timm network as images to features, started from given weights, saved whole and loaded strictly."""

import difflib
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from barlow import __version__, storage
from barlow.nets.preprocessing import Preprocessing
from barlow.nets.seeds import seeded

__all__ = [
    "STEMS",
    "InitialisationReport",
    "Preprocessing",
    "build_encoder",
    "feature_width",
    "initialise",
    "list_encoders",
    "load_encoder",
    "packed",
    "takes_small_stem",
    "with_preprocessing",
]

STEMS = {
    "as_is": None,
    "small": (1, False),
    "small_pooled": (1, True),
    "strided": (2, False),
}
"""Stems by name: stride of the 3×3 convolution, and whether the max-pool stays; `as_is` is the network's own."""

FORMAT = 1
"""Number of the form of `config.json`; a reader refuses a newer one."""

_OWN_ARGUMENTS = {
    "num_classes": "there is no classifier",
    "in_chans": "it is in_channels",
    "img_size": "it is image_size",
    "zero_init_last": "it is an argument of its own",
    "pretrained": "weights come from init",
    "pretrained_cfg": "weights come from init",
    "pretrained_cfg_overlay": "weights come from init",
    "checkpoint_path": "weights come from init",
    "cache_dir": "weights come from init",
    "features_only": "an encoder returns one vector per image",
}


@dataclass(frozen=True)
class BuiltAs:
    """The arguments a timm encoder was built with, kept on it as `encoder.built_as`."""

    name: str
    in_channels: int
    image_size: int
    stem: str
    zero_init_last: bool
    seed: int
    options: dict[str, Any]


def list_encoders(pattern: str = "") -> list[str]:
    """Names of timm's networks; `pattern` is a shell pattern (`resnet*`) or a part of the name."""
    import timm

    if pattern and not any(mark in pattern for mark in "*?["):
        pattern = f"*{pattern}*"
    return list(timm.list_models(pattern))


def build_encoder(
    name: str,
    *,
    in_channels: int = 3,
    image_size: int,
    stem: str = "as_is",
    zero_init_last: bool = True,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A timm network without its classifier: images to globally pooled features, with `.num_features`.

    Source: the small stem is that of W-MSE's released code (3×3 convolution, stride 1, padding 1, no bias; without the
    max-pool on CIFAR, with it on STL-10 and Tiny ImageNet). Convolutions of ResNets and RegNets start Kaiming-normal
    over fan-out (torchvision's way, as in Barlow Twins and VICReg).

    Deviation: `strided` (stride 2, no max-pool) is ours, four times cheaper than `small`, for CPUs. A replaced stem
    starts Kaiming-normal as the rest; W-MSE's code leaves it at torch's default (Kaiming-uniform over fan-in).

    Args:
        name: as `list_encoders` gives it.
        in_channels: of the images.
        image_size: side of the views. Networks with positions or windows (ViT, Swin) are built for it.
        stem: `as_is`, or for ResNets `small`, `small_pooled`, `strided`; they replace deep stems whole.
        zero_init_last: the last batch norm of each residual branch of ResNets and RegNets starts with scale zero
            (timm's default for these); False starts it at one. Other families start as timm starts them.
        seed: the weights are a function of the arguments and this.
        options: further arguments of the network: `{"patch_size": 4}`, `{"layers": [1, 1, 1, 1]}`.

    Raises:
        ValueError: an unknown name, stem or option, or a combination that does not work at this size.
    """
    import timm

    chosen = dict(options or {})
    _check_arguments(name, in_channels, image_size, stem, chosen)
    with seeded(seed, "encoder"):
        try:
            encoder: Any = timm.create_model(
                name, num_classes=0, **_timm_arguments(name, in_channels, image_size, chosen)
            )
        except (TypeError, ValueError, AssertionError, RuntimeError, AttributeError) as error:
            raise ValueError(
                f"timm cannot build {name} for {image_size}-pixel images with options {chosen}: {_one_line(error)}"
            ) from error
        if stem != "as_is":
            _replace_stem(encoder, name, in_channels, stem)
    if not zero_init_last:
        for module in encoder.modules():
            if isinstance(module, _BatchNorm) and module.affine and not module.weight.any():
                nn.init.ones_(module.weight)
    _check_patches(encoder, name, image_size)
    encoder.built_as = BuiltAs(name, in_channels, image_size, stem, zero_init_last, seed, chosen)
    try:
        encoder.num_features = feature_width(encoder, in_channels, image_size)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"{name} cannot take {image_size}-pixel images: {_one_line(error)}. Take larger images or another encoder"
        ) from error
    return encoder


def _check_arguments(name: str, in_channels: int, image_size: int, stem: str, options: Mapping[str, Any]) -> None:
    import timm

    if not timm.is_model(name) or "." in name:
        architecture = name.split(".")[0]
        if timm.is_model(architecture):
            raise ValueError(f"{name!r} names pretrained weights; give encoder {architecture!r} and init timm:{name}")
        near = difflib.get_close_matches(name, timm.list_models(), n=3) or timm.list_models(f"*{name[:6]}*")[:3]
        nearest = f"nearest: {', '.join(near)}; " if near else ""
        raise ValueError(f"unknown encoder {name!r}; {nearest}`barlow list encoders` lists all")
    if stem not in STEMS:
        raise ValueError(f"unknown stem {stem!r}; allowed: {', '.join(STEMS)}")
    if in_channels < 1 or image_size < 1:
        raise ValueError(f"in_channels {in_channels} and image_size {image_size} must be at least 1")
    for key in options:
        if key in _OWN_ARGUMENTS:
            raise ValueError(f"encoder option {key!r} is not for options: {_OWN_ARGUMENTS[key]}")


def _timm_arguments(name: str, in_channels: int, image_size: int, options: Mapping[str, Any]) -> dict[str, Any]:
    import timm

    cfg = timm.get_pretrained_cfg(name)
    sized = {"img_size": image_size} if cfg is not None and cfg.fixed_input_size else {}
    # JSON and YAML have lists where timm's networks want tuples.
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return {"in_chans": in_channels, **sized, **plain}


def takes_small_stem(name: str) -> bool:
    """Whether a name is that of a ResNet, whose stem can be replaced; asked without building it."""
    import timm
    from timm.models import model_entrypoint
    from timm.models.resnet import ResNet

    if not timm.is_model(name):
        return False
    # timm's files that build ResNets (ResNeXt, SE-, SK-, Res2Net, ...) import the class, the others do not.
    return getattr(sys.modules[model_entrypoint(name).__module__], "ResNet", None) is ResNet


def _replace_stem(network: nn.Module, name: str, in_channels: int, stem: str) -> None:
    from timm.models.resnet import ResNet

    if not isinstance(network, ResNet):
        raise ValueError(
            f"stem {stem!r} is for ResNets; {name} is a {type(network).__name__}, which has as_is only"
            + (" (for small images give options patch_size)" if hasattr(network, "patch_embed") else "")
        )
    encoder: Any = network
    stride, pooled = STEMS[stem]  # type: ignore[misc]
    width = encoder.bn1.num_features
    encoder.conv1 = nn.Conv2d(in_channels, width, kernel_size=3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(encoder.conv1.weight, mode="fan_out", nonlinearity="relu")
    if not pooled:
        encoder.maxpool = nn.Identity()


def _check_patches(encoder: nn.Module, name: str, image_size: int) -> None:
    patch = getattr(getattr(encoder, "patch_embed", None), "patch_size", None)
    if patch is not None and any(image_size % side for side in patch):
        raise ValueError(
            f"{name} cuts images into patches of {patch[0]} pixels, which do not fill {image_size}: its border would "
            f"never be seen. Take an image size that is a multiple of {patch[0]}, or another patch_size in the options"
        )


def feature_width(encoder: nn.Module, in_channels: int, image_size: int) -> int:
    """Number of features an encoder returns, measured on one blank image: `num_features` means other things elsewhere.

    Raises:
        ValueError: it does not return (n, features).
    """
    modes = [(module, module.training) for module in encoder.modules()]
    like = next((p for p in encoder.parameters() if p.is_floating_point()), torch.empty(0))
    encoder.eval()  # batch norm must neither refuse the single image nor count it
    try:
        with torch.no_grad():
            features = encoder(
                torch.zeros(1, in_channels, image_size, image_size, device=like.device, dtype=like.dtype)
            )
    finally:
        for module, training in modes:
            module.training = training
    if not isinstance(features, Tensor) or features.ndim != 2:
        got = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(
            f"the encoder made {got} of one {image_size}-pixel image; it must return (n, features): "
            "pool over space, and flatten"
        )
    return features.shape[1]


# --- Starting from given weights ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class InitialisationReport:
    """What became of every tensor when an encoder was started from given weights."""

    source: str
    loaded: int
    """Tensors of the encoder that were taken from the source."""
    kept: tuple[str, ...] = ()
    """Tensors of the encoder that stay as they were built: only a replaced stem's."""
    unused: tuple[str, ...] = ()
    """Tensors of the source without a place here: classifier, replaced stem, what lies outside of `prefix`."""
    prefix: str = ""
    """What was taken off the source's names."""
    notes: tuple[str, ...] = ()
    """Tensors that were adapted to other channels."""

    def __str__(self) -> str:
        line = f"{self.loaded} tensors from {self.source}"
        if self.prefix:
            line += f" (names without {self.prefix!r})"
        for what, names in (("kept as built", self.kept), ("not used", self.unused)):
            if names:
                line += f"; {what}: {_some(names)}"
        return "; ".join([line, *self.notes])


_PREFIXES = ("", "encoder.", "backbone.", "model.", "module.", "module.encoder.", "module.backbone.", "method/encoder.")
"""What stands before an encoder's names in full checkpoints: of lightly and solo-learn (backbone), of data-parallel
runs (module), of Barlow Twins and VICReg (module.backbone), and of this package's checkpoints (method/encoder)."""

_CLASSIFIERS = ("fc", "head", "classifier")
"""Names of classifiers in timm and torchvision; a network's own are known from its timm configuration."""


def initialise(encoder: nn.Module, source: str | os.PathLike[str]) -> InitialisationReport:
    """Starts an encoder from given weights; every tensor is accounted for, on both sides.

    Allowed to differ, and named in the report: a classifier in the source; the stem, if the encoder was built with
    another one; for timm's weights, the number of input channels (the first convolution is summed or repeated, timm's
    way); and, if the source is a full checkpoint whose encoder's names begin with one of `encoder.`, `backbone.`,
    `model.`, `module.`, `module.encoder.`, `module.backbone.` or `method/encoder.`, everything outside of that prefix.

    Args:
        encoder: changed in place, or not at all.
        source: `timm:NAME` (downloaded, or from the cache), a run or encoder folder, or a `.safetensors` file.

    Raises:
        ValueError: the source cannot be had or does not fit; the message lists the first tensors that are missing,
            unexpected or of another shape.
    """
    text = os.fspath(source)
    notes: tuple[str, ...] = ()
    if text.startswith("timm:"):
        found, notes = _timm_weights(encoder, text.removeprefix("timm:"))
    else:
        found = storage.read_tensors(_weights_file(text))
    own = encoder.state_dict()
    counts = [sum(prefix + name in found for name in own) for prefix in _PREFIXES]
    prefix = _PREFIXES[counts.index(max(counts))]
    stem_replaced = getattr(getattr(encoder, "built_as", None), "stem", "as_is") != "as_is"
    taken: dict[str, Tensor] = {}
    kept, wrong, unused = [], [], [name for name in found if not name.startswith(prefix)]
    for name, value in own.items():
        other = found.get(prefix + name)
        if other is not None and other.shape == value.shape and other.is_floating_point() == value.is_floating_point():
            taken[name] = other
        elif stem_replaced and _of_stem(name):
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
            if inner.startswith(classifiers) or (stem_replaced and _of_stem(inner)):
                unused.append(name)
            else:
                wrong.append(f"{inner} is unexpected")
    if wrong or not taken:
        raise ValueError(
            f"the weights in {text} do not fit this {type(encoder).__name__}: {_some(wrong or ['no name in common'])}. "
            "Give the encoder, options and image size that the weights were made with"
        )
    if broken := [name for name, value in taken.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise ValueError(f"the weights in {text} are not finite: {_some(broken)}; take others")
    encoder.load_state_dict(own | taken, strict=True)
    return InitialisationReport(text, len(taken), tuple(kept), tuple(unused), prefix, notes)


def _of_stem(name: str) -> bool:
    return name.startswith(("conv1.", "maxpool."))  # timm's ResNets; their bn1 has the same width in every stem


def _classifier(encoder: nn.Module) -> tuple[str, ...]:
    names = (getattr(encoder, "pretrained_cfg", None) or {}).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _kind(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _some(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f", and {len(names) - limit} more" if len(names) > limit else "")


def _one_line(error: Exception, limit: int = 160) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keeps a library's warnings off the terminal: what they say is in our one line, if it comes to that."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _weights_file(source: str) -> Path:
    path = Path(source)
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ValueError(
                f"{source} is not a .safetensors file; pickled weights can run code when they are read, so they are "
                "not: convert them with safetensors.torch.save_file"
            )
        return path
    for candidate in (path / "encoder" / "model.safetensors", path / "model.safetensors"):
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise ValueError(
            f"no encoder/model.safetensors in {source}; give a finished run's folder or a .safetensors file"
        )
    raise ValueError(f"no weights at {source!r}; give timm:NAME, a run folder or a .safetensors file")


def _timm_weights(encoder: nn.Module, name: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Pretrained weights with the names of this encoder, classifier included."""
    import timm
    from timm.models import adapt_input_conv

    built_as: BuiltAs | None = getattr(encoder, "built_as", None)
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(pretrained=True), n=3)
        raise ValueError(f"timm has no network {architecture!r}" + (f"; nearest: {', '.join(near)}" if near else ""))
    tags = [*timm.list_pretrained(f"{architecture}.*"), architecture]
    if name not in tags or len(tags) == 1:
        there = f"there are: {_some(tags[:-1])}" if len(tags) > 1 else "there are none for this network"
        raise ValueError(f"timm has no pretrained weights {name!r}; {there}")
    if built_as is not None and built_as.name != architecture:
        raise ValueError(
            f"--init timm:{name} has weights of {architecture}; the encoder is {built_as.name}. Make them the same"
        )
    arguments: dict[str, Any] = {}
    if built_as is not None:
        arguments = _timm_arguments(architecture, 3, built_as.image_size, built_as.options)
        del arguments["in_chans"]  # timm would no longer check the other tensors where it adapts the channels
    try:
        with seeded(0, "donor"), _quiet("huggingface_hub"):
            donor: Any = timm.create_model(
                name, pretrained=True, **arguments
            )  # with its classifier: then timm is strict
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(f"timm's weights {name} do not fit options {arguments}: {_one_line(error)}") from error
    except Exception as error:
        raise ValueError(
            f"could not get timm's weights {name} ({type(error).__name__}: {_one_line(error)}); they come from the "
            "Hugging Face hub: check the network, or give --init a .safetensors file"
        ) from error
    found = dict(donor.state_dict())
    first = donor.pretrained_cfg.get("first_conv") or ()
    notes = []
    wanted = built_as.in_channels if built_as is not None else None
    for layer in (first,) if isinstance(first, str) else first:
        weight = found.get(f"{layer}.weight")
        if weight is not None and wanted is not None and weight.ndim == 4 and wanted != weight.shape[1] == 3:
            found[f"{layer}.weight"] = adapt_input_conv(wanted, weight)
            notes.append(f"{layer}.weight adapted from 3 to {wanted} channels")
    return found, tuple(notes)


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
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An encoder as the contents of `model.safetensors` and `config.json`: all that `load_encoder` needs.

    Args:
        name: a timm name, or `custom:CLASS` for a module that was given in Python.
        stem, zero_init_last, options, seed: as in `build_encoder`.
        preprocessing: gives the image size and channels, too.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in encoder.state_dict().items()}
    config = {
        "format": FORMAT,
        "barlow": __version__,
        "kind": "custom" if name.startswith("custom:") else "timm",
        "name": name,
        "in_channels": preprocessing.channels,
        "image_size": preprocessing.size,
        "stem": stem,
        "zero_init_last": zero_init_last,
        "options": dict(options),
        "seed": seed,
        "num_features": feature_width(encoder, preprocessing.channels, preprocessing.size),
        "preprocessing": preprocessing.as_dict(),
    }
    return tensors, config


def load_encoder(folder: str | os.PathLike[str], module: nn.Module | None = None) -> nn.Module:
    """The encoder of a run, on the CPU, in eval mode.

    It has `.num_features`, `.preprocessing` (what it expects of an image) and `.preprocess(image)`, which makes its
    input from a path, a Pillow image, an (h, w, c) uint8 array, or a list of them:

        encoder = barlow.load_encoder("runs/photos")
        features = encoder(encoder.preprocess("cat.jpg"))     # (1, num_features)

    Args:
        folder: a run folder, or the `encoder` folder inside it.
        module: for an encoder that was given in Python, a module of the same architecture; it is filled and returned.

    Raises:
        ValueError: no encoder there, a damaged one, one written by a newer barlow, or one that does not fit `module`.
    """
    home = _encoder_folder(Path(folder))
    config = storage.read_json(home / "config.json")
    form = config.get("format") if isinstance(config, dict) else None
    if not isinstance(form, int):
        raise ValueError(f"{home / 'config.json'} is not an encoder's description: it has no format number")
    if form > FORMAT:
        raise ValueError(
            f"{home} was written by barlow {config.get('barlow', '(unknown)')} in format {form}; this is barlow "
            f"{__version__}, which reads up to {FORMAT}: upgrade it"
        )
    try:
        preprocessing = Preprocessing(**config["preprocessing"])
        if config["kind"] == "custom":
            if module is None:
                raise ValueError(
                    f"{home} holds a {config['name'].removeprefix('custom:')} that was given in Python, which cannot "
                    "be rebuilt from its description: load_encoder(folder, module=...) fills a module of the same class"
                )
            encoder = module
        else:
            if module is not None:
                raise ValueError(f"{home} holds timm's {config['name']}, which is built here: leave out module")
            keys = ("in_channels", "image_size", "stem", "zero_init_last", "seed", "options")
            encoder = build_encoder(config["name"], **{key: config[key] for key in keys})
        width = config["num_features"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{home / 'config.json'} is incomplete or damaged: {_one_line(error)}") from error
    found = storage.read_tensors(home / "model.safetensors")
    own = encoder.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in found]
    wrong += [f"{name} is unexpected" for name in found if name not in own]
    wrong += [
        f"{name} is {list(found[name].shape)} there, {list(value.shape)} here"
        for name, value in own.items()
        if name in found and found[name].shape != value.shape
    ]
    if wrong:
        raise ValueError(f"the weights in {home} do not fit {config['name']}: {_some(wrong)}")
    encoder.load_state_dict(found, strict=True)
    encoder.num_features = width
    return with_preprocessing(encoder.eval(), preprocessing)


def with_preprocessing(encoder: nn.Module, preprocessing: Preprocessing) -> nn.Module:
    """The encoder itself, now with `.preprocessing` and `.preprocess`."""
    encoder.preprocessing = preprocessing  # type: ignore[assignment]
    encoder.preprocess = preprocessing  # type: ignore[assignment]
    return encoder


def _encoder_folder(folder: Path) -> Path:
    for home in (folder / "encoder", folder):
        if (home / "config.json").is_file() and (home / "model.safetensors").is_file():
            return home
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}; give a run folder, or the encoder folder inside it")
    if (folder / "checkpoints").is_dir():
        raise ValueError(
            f"no finished encoder in {folder}: the run was interrupted. Finish it with "
            f"`barlow pretrain --resume --out {folder}`"
        )
    raise ValueError(f"no encoder in {folder} (encoder/config.json and encoder/model.safetensors); give a run folder")
