"""Anything that is an encoder, by its name: a run, a checkpoint, a folder, a file of weights, a network that is known.

Whatever takes an encoder by name (to evaluate it, to embed images, to hand it on) calls `find_encoder`, so that a name
means the same everywhere. Reading is left to those who know each form: `runs/finishing.py` and `nets/weights.py` for
what barlow has written, `nets/origin.py` for what others have.
"""

import copy
import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from torch import nn

from barlow import checkpoints, exits
from barlow.checkpoints import split_step
from barlow.limits import SIDE
from barlow.nets import hub_folder, python_file, stored_size
from barlow.nets.building import build_encoder
from barlow.nets.expected import IMAGENET, Centre, Normalization, centre_of, normalization_of
from barlow.nets.files import described
from barlow.nets.given import Network, Origin, Question
from barlow.nets.origin import origin_of
from barlow.nets.preprocessing import Preprocessing
from barlow.nets.weights import InitialisationReport, encoder_folder, initialise, with_description
from barlow.printable import printable
from barlow.probes.features import network_identity, weights_hash
from barlow.probes.given_networks import is_as_described
from barlow.recipe.schema import CUSTOM
from barlow.runs.finishing import encoder_at
from barlow.runs.run import Run, load_recipe_text
from barlow.size import Size, size_of, words
from barlow.telling import Say, silent

Named = str | os.PathLike[str] | nn.Module
"""How a user says which encoder: a name, or a module."""

Kind = Literal["run", "folder", "weights", "untrained", "module"]

Taken = Literal["all", "size", "nothing"]
"""What a user may say of an encoder beside its name: all that `find_encoder` takes, the size of the images, nothing."""

NAMES = (
    "a run folder, RUN@STEP, a folder with config.json and model.safetensors, a file of weights, "
    "timm:NAME, packaged:NAME, random:NAME or FILE.py:NAME"
)
"""All that a name can be, for messages."""

UNTRAINED = "random:"

PREFIXES = ("timm:", "packaged:", UNTRAINED)


@dataclass(frozen=True)
class FoundEncoder:
    """A network that turns images into features, and where it comes from.

    Args:
        name: what a person calls it, fit to be printed: as it was named, and a module by its class.
        kind: what the name turned out to be. A checkpoint is of the kind `run`.
        network: on the CPU and in eval mode, with `.num_features`, `.preprocessing` (what it expects of an image),
            `.preprocess` and a description (`nets.weights.description_of`). It maps (n, c, h, w) to (n, features).
        run: the run folder that it comes from, if it comes from one.
        step: of its checkpoint; None for a finished encoder, and for what is no run's.
        report: what became of the tensors of foreign weights.
    """

    name: str
    kind: Kind
    network: nn.Module
    run: Path | None = None
    step: int | None = None
    report: InitialisationReport | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """What it expects of an image."""
        found: Preprocessing = self.network.preprocessing  # type: ignore[assignment]
        return found

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its tensors: two names with one digest are one encoder, if their networks are alike."""
        return weights_hash(self.network)

    @cached_property
    def identity(self) -> str:
        """What its vectors follow from, beside the images and how these are prepared (`network_identity`). Files of
        features keep it, and an encoder is held against it."""
        return network_identity(self.network)


def find_encoder(
    given: Named,
    *,
    encoder: str | nn.Module | None = None,
    options: Mapping[str, Any] | None = None,
    stem: str = "as_is",
    image_size: object = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    taken: Taken = "all",
    say: Say = silent,
) -> FoundEncoder:
    """The encoder that a user means.

    | given | what it is |
    |---|---|
    | `RUN` | a run's encoder; of a run that is not finished, that of its newest checkpoint |
    | `RUN@STEP` | that of one of its checkpoints |
    | `RUN/encoder`, any folder | with `config.json` and `model.safetensors`, as barlow writes them |
    | a folder of timm's | as it lies on the Hugging Face hub; its `config.json` says which network and images |
    | `FILE` | a file of weights (docs/weights.md); its network is `encoder`, or that of its shapes |
    | `timm:NAME` | timm's pretrained weights, downloaded where they are not in the cache |
    | `packaged:NAME` | weights that come as a Python package |
    | `random:NAME` | timm's network of that name, untrained; `random:NAME@SEED` with another seed than 0 |
    | `FILE.py:NAME` | a module of that name in a Python file that is run, or what a function of that name returns |
    | a module | as it is; it says what images it takes (`.preprocessing`, a `Preprocessing`), or is timm's |

    A run's encoder gets images as the run says. Foreign weights get them as those weights say: their size, crop, mean
    and standard deviation. Where they do not say, timm's for the network of that name are taken, and `say` is told.

    Args:
        given: the name, or a module, which is not changed.
        encoder: the network of weights that do not say it: a timm name. None or `auto`: what their shapes show. For
            weights of a network that was given in Python, a module of the same class; it is copied, and the copy is
            filled.
        options, stem: of that network, and of `random:NAME`, as in `build_encoder`.
        image_size: for foreign weights and untrained networks: another size than theirs; as `size_of` takes it.
        mean, std: for files of weights, which do not say them: of each channel, for pixels in [0, 1]. Their number is
            that of the channels.
        taken: what of these a command takes from its user; messages advise nothing else, but `barlow import`.
        say: told what was assumed, a line each.

    Raises:
        ValueError: there is no such encoder, or it is damaged, or what is asked for does not fit it. One line says what
            was given, what is allowed and what to do. `NoInput` where nothing of that name exists.
    """
    if isinstance(given, nn.Module):
        return _of_module(given, say)
    text = os.fspath(given)
    asked = _Asked(
        None if encoder == "auto" else encoder,
        dict(options or {}),
        stem,
        image_size,
        _normalization(mean, std),
        taken,
        say,
    )
    if text.startswith(UNTRAINED):
        return _untrained(text, asked)
    if text.startswith(PREFIXES):
        return _foreign(text, asked)
    if python_file.is_named(text):
        own = python_file.module_in(text)
        return _of_module(own.module, say, printable(text), {"file_sha256": own.sha256, "name": own.name})
    path, step = split_step(text)
    if not text:
        raise exits.NoInput(_unknown(text))
    if path.is_file() and step is None:
        if path.name == "model.safetensors" and (home := encoder_folder(path.parent)) == path.parent:
            return _of_folder(home, text, asked)
        return _foreign(text, asked)
    if path.is_dir():
        return _of_folder(path, text, asked, step)
    raise exits.NoInput(_unknown(text))


def _normalization(mean: Sequence[float] | None, std: Sequence[float] | None) -> Normalization | None:
    """What a user says of it; None if nothing."""
    if mean is None and std is None:
        return None
    if mean is None or std is None or len(mean) != len(std) or not mean:
        raise ValueError("--mean and --std go together: one number of each for every channel")
    if not all(0 <= each <= 1 for each in mean) or not all(0 < each <= 1 for each in std):  # not so of nan
        given = f"--mean {' '.join(f'{each:g}' for each in mean)} --std {' '.join(f'{each:g}' for each in std)}"
        raise ValueError(
            f"{given}: they are of pixels in [0, 1], so means are from 0 to 1, and deviations above 0 and at most 1; "
            "divide what is of pixels up to 255 by 255"
        )
    return Normalization(tuple(map(float, mean)), tuple(map(float, std)))


@dataclass(frozen=True)
class _Asked:
    """What was asked for beside the name."""

    encoder: str | nn.Module | None
    options: dict[str, Any]
    stem: str
    image_size: object
    normalization: Normalization | None
    taken: Taken
    say: Say

    @property
    def module(self) -> nn.Module | None:
        """A copy of the module, if one was given, to be filled."""
        return copy.deepcopy(self.encoder) if isinstance(self.encoder, nn.Module) else None

    def preprocessing(self, name: str, normalization: Normalization, centre: Centre) -> tuple[Preprocessing, list[str]]:
        """What foreign weights expect of an image, at the size that was asked for; and a line, if none was."""
        if self.image_size is not None:
            size = size_of(self.image_size, "--image-size", most=SIDE)
            return _preprocessing(normalization, centre, size), []
        others = "--image-size" if self.taken != "nothing" else "`barlow import` with --image-size"
        others = "" if self.taken == "nothing" and name.startswith(UNTRAINED) else f"; {others} gives others"
        line = f"{name} gets images of {words(centre.size)} pixels, as its network is used{others}"
        return _preprocessing(normalization, centre, centre.size), [line]


def _preprocessing(normalization: Normalization, centre: Centre, size: Size) -> Preprocessing:
    return Preprocessing(
        size=size,
        crop_ratio=centre.crop_ratio,
        interpolation=centre.interpolation,
        mean=normalization.mean,
        std=normalization.std,
        channels=normalization.channels,
        value_range=normalization.value_range,
    )


# --- What barlow has written ------------------------------------------------------------------------------------------


def _of_folder(path: Path, text: str, asked: _Asked, step: int | None = None) -> FoundEncoder:
    """A run, one of its checkpoints, or a folder with an encoder."""
    home, name = encoder_folder(path), printable(text)
    if home is None and step is None and not Run(path).exists() and hub_folder.weights_in(path) is not None:
        return _foreign(text, asked)
    if Run(path).exists():
        module = asked.module if _given_in_python(path, home) else None
        if step is None and home is None:
            if (newest := checkpoints.whole(path, look=stored_size.look(module))) is None:
                raise exits.NoInput(f"{name} has no encoder and no whole checkpoint yet; go on with the run first")
            step = checkpoints.step_of(newest)
            asked.say(f"{name} is not finished: its encoder at step {step} is taken")
        return FoundEncoder(name, "run", encoder_at(path, step, module), path, step)
    if home is None or step is not None:
        raise exits.NoInput(f"{name} has no recipe.yaml, and no config.json and model.safetensors; give {NAMES}")
    run = home.parent if home.name == "encoder" and Run(home.parent).exists() else None
    module = asked.module if _given_in_python(path, home) else None
    return FoundEncoder(name, "folder", encoder_at(home, None, module), run)


def _given_in_python(path: Path, home: Path | None) -> bool:
    """Whether a run, or a folder with an encoder, is of a network that was given in Python."""
    if home is not None:
        return str(described(home).get("kind")) == "custom"
    section = load_recipe_text(path / "recipe.yaml").get("encoder")
    return isinstance(section, dict) and str(section.get("name")).startswith(CUSTOM)


# --- What others have made --------------------------------------------------------------------------------------------


def _foreign(text: str, asked: _Asked) -> FoundEncoder:
    """Weights of others: timm's, a package's, those of a file."""
    name, origin = printable(text), origin_of(text)
    if (module := asked.module) is not None and (origin.network is None or origin.recognised):
        filled, notes = _of_module(module, silent).network, list[str]()
    else:
        network = _network_of(name, origin, asked)
        normalization, lines = _normalization_of(name, origin, network, asked)
        preprocessing, notes = asked.preprocessing(name, normalization, origin.centre or centre_of(network.name))
        notes += lines
        filled = _built(network, preprocessing, 0, origin.most)
    report = initialise(filled, text, origin)
    for line in (str(report), *notes):
        asked.say(line)
    return FoundEncoder(name, "weights", filled, report=report)


_WHICH = Question("it does not say which network its weights are of", "--encoder NAME", " (barlow list encoders)")


def _network_of(name: str, origin: Origin, asked: _Asked) -> Network:
    """The network that weights are of: as their source says, or their shapes show, or the user says. What was only seen
    in shapes, the user may correct."""
    if isinstance(asked.encoder, str) and (origin.network is None or origin.recognised):
        return Network(asked.encoder, asked.options, asked.stem, True)
    if origin.network is not None:
        return replace(origin.network, options={**origin.network.options, **asked.options})
    if origin.stemless is not None and asked.stem != "as_is":
        return replace(origin.stemless, options={**origin.stemless.options, **asked.options}, stem=asked.stem)
    asks = origin.asks or _WHICH
    raise ValueError(f"{name}: {asks if asked.taken == 'all' else asks.for_import(name)}")


def _normalization_of(name: str, origin: Origin, network: Network, asked: _Asked) -> tuple[Normalization, list[str]]:
    """How images are normalised: as the user says, or the source; and a line, where neither says it."""
    if asked.normalization is not None:
        return asked.normalization, []
    if origin.normalization is not None and not origin.recognised:
        return origin.normalization, []
    found = origin.normalization or normalization_of(network.name)
    if origin.channels not in (None, found.channels):
        raise ValueError(
            f"{name} is of images of {origin.channels} channels, and does not say how they were normalised: let "
            f"`barlow import` say it, by --mean and --std with {origin.channels} numbers each (with 3, its first "
            "convolution is adapted)"
        )
    which = "ImageNet's" if found == IMAGENET else f"timm's of {network.name}"
    return found, [f"{name} does not say how images were normalised: {which} mean and deviation are taken"]


def _untrained(text: str, asked: _Asked) -> FoundEncoder:
    """A network as it is built, before any training."""
    name, (of, at, seed) = printable(text), text.removeprefix(UNTRAINED).partition("@")
    if not of or (at and not (seed.isascii() and seed.isdigit() and len(seed) < 10)):
        raise ValueError(f"{name}: give random:NAME or random:NAME@SEED, as in random:resnet18@1")
    network = Network(of, asked.options, asked.stem, True)
    normalization, centre = normalization_of(network.name), centre_of(network.name)
    preprocessing, notes = asked.preprocessing(name, normalization, centre)
    built = _built(network, preprocessing, int(seed or 0))
    for line in notes:
        asked.say(line)
    return FoundEncoder(name, "untrained", built)


def _built(network: Network, preprocessing: Preprocessing, seed: int, most: tuple[int, str] | None = None) -> nn.Module:
    built = build_encoder(
        network.name,
        in_channels=preprocessing.channels,
        image_size=preprocessing.size,
        stem=network.stem,
        zero_init_last=network.zero_init_last,
        seed=seed,
        options=network.options,
        most=most,
    )
    return with_description(built, network, preprocessing, seed)


# --- Modules ----------------------------------------------------------------------------------------------------------


def _of_module(
    module: nn.Module, say: Say, name: str = "", options: Mapping[str, Any] = MappingProxyType({})
) -> FoundEncoder:
    """A module that was given. One that lacks what an encoder has is copied, and the copy gets it.

    Args:
        say: told what is assumed of its images, where it says nothing of them itself.
        name: what it was called; by default its class.
        options: what else tells it from others of its class.
    """
    kind = type(module).__name__
    preprocessing = getattr(module, "preprocessing", None)
    if not isinstance(preprocessing, Preprocessing):
        preprocessing = _as_timm_says(module)
        say(
            f"{name or kind} gets images of {words(preprocessing.size)} pixels, with the mean and deviation that timm "
            "has for it; a .preprocessing of its own gives others"
        )
    elif hasattr(module, "description") and is_as_described(module):
        return FoundEncoder(name or kind, "module", module)
    network = Network(f"custom:{kind}", dict(options), "as_is", True)
    return FoundEncoder(name or kind, "module", with_description(copy.deepcopy(module), network, preprocessing, 0))


def _as_timm_says(module: nn.Module) -> Preprocessing:
    """What a module that timm has made expects of an image."""
    cfg = getattr(module, "pretrained_cfg", None)
    if not isinstance(cfg, Mapping) or not cfg.get("architecture"):
        given = getattr(module, "preprocessing", None)
        says = "does not say what it expects of an image"
        if given is not None:
            says = f"says what it expects of an image in a {type(given).__name__}"
        raise ValueError(
            f"a {type(module).__name__} {says}: set its .preprocessing to a "
            "barlow.nets.preprocessing.Preprocessing(size, crop_ratio, interpolation, mean, std, channels)"
        )
    name = ".".join(filter(None, (cfg["architecture"], cfg.get("tag"))))
    normalization, centre = normalization_of(name), centre_of(name)
    return _preprocessing(normalization, centre, centre.size)


def _unknown(text: str) -> str:
    """One line for a name that is nothing's."""
    import timm

    name, near = printable(text), difflib.get_close_matches(text.partition(":")[0] + ":", PREFIXES, 1)
    if ":" in text and near:
        return f"no encoder {name!r}; did you mean {near[0]}{printable(text.partition(':')[2])}?"
    if timm.is_model(text.partition(".")[0]):
        return f"{name!r} is the name of a network, and says nothing of its weights: give random:{name} or timm:{name}"
    return f"no encoder {name!r}; give {NAMES}"
