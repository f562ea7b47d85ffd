"""Building encoders: any timm network without its classifier, from images to features."""

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from barlow import exits
from barlow.limits import SIDE, TooLarge
from barlow.machine import available_memory
from barlow.nets.bounded import bounded, items_of
from barlow.nets.seeding import seeded
from barlow.nets.stems import LAB, STEMS, networks, replace_stem
from barlow.printable import one_line
from barlow.size import Size, height_width, size_of, words

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
"""Arguments of timm's that a user may not give among the options, and why."""

LARGEST_OPTION = 1_000_000
"""Of the numbers in an encoder's options: timm makes lists of so many entries before it builds a layer."""


@dataclass(frozen=True)
class BuiltAs:
    """The arguments that an encoder was built with. The encoder keeps them as `encoder.built_as`."""

    name: str
    in_channels: int
    image_size: Size
    stem: str
    zero_init_last: bool
    seed: int
    options: dict[str, Any]


def list_encoders(pattern: str = "") -> list[str]:
    """Names of timm's networks. The pattern is a shell pattern (`resnet*`) or a part of the name (`net50`)."""
    timm = networks()

    if pattern and not any(mark in pattern for mark in "*?["):
        pattern = f"*{pattern}*"
    return list(timm.list_models(pattern))


def build_encoder(
    name: str,
    *,
    in_channels: int = 3,
    image_size: Size,
    stem: str = "as_is",
    zero_init_last: bool = True,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    most: tuple[int, str] | None = None,
) -> nn.Module:
    """A timm network without its classifier: it maps images to features, pooled over space.

    The number of features is its `.num_features`.

    Source: the small stem is that of W-MSE's released code (3×3 convolution, stride 1, padding 1, no bias; without the
    max-pool on CIFAR, with it on STL-10 and Tiny ImageNet). Convolutions of ResNets and RegNets start Kaiming-normal
    over fan-out, as torchvision's do in Barlow Twins and VICReg.

    Deviation: the stem `strided` (stride 2, no max-pool) is ours. It is four times cheaper than `small`, for CPUs. A
    replaced stem starts Kaiming-normal like the other convolutions; W-MSE's code leaves it at torch's default
    (Kaiming-uniform over fan-in).

    Args:
        name: as `list_encoders` gives it.
        in_channels: of the images.
        image_size: of the views: the side of a square, or (height, width). Networks with positions or windows (ViT,
            Swin) are built for one size.
        stem: `as_is`, or for ResNets one of `barlow.nets.stems.STEMS`.
        zero_init_last: whether the last batch norm of each residual branch of ResNets and RegNets starts with scale
            zero, which is timm's default for them, or with scale one. Other families start as timm starts them.
        seed: the same arguments and seed give the same weights.
        options: further arguments of the network: `{"patch_size": 4}`, `{"layers": [1, 1, 1, 1]}`.
        most: how many parameters it may have, and what that number is, in words; by default as many as fit into the
            memory that is free.

    Raises:
        ValueError: an unknown name, stem or option, or a combination that does not work at this size; or a network that
            is too large (`TooLarge`), before it takes any memory.
    """
    timm = networks()

    chosen, image_size = dict(options or {}), size_of(image_size, "image_size", most=SIDE)
    _check_arguments(name, in_channels, stem, chosen)
    arguments = timm_arguments(name, in_channels, image_size, chosen)
    number, why = most or (available_memory() // 4, "which is more than the free memory holds")
    limit = f"{name} with options {chosen}" if chosen else name, number, why
    _measured(limit, name, arguments)  # or it is refused
    with bounded(*limit), seeded(seed, "encoder"):
        try:
            encoder: Any = timm.create_model(name, num_classes=0, **arguments)
        except TooLarge:
            raise
        except (TypeError, ValueError, AssertionError, RuntimeError, AttributeError) as error:
            if exits.out_of_memory(error):
                raise
            raise ValueError(
                f"timm cannot build {name} for {words(image_size)}-pixel images with options {chosen}: "
                f"{one_line(error)}"
            ) from error
        if stem != "as_is":
            replace_stem(encoder, name, in_channels, stem)
    if not zero_init_last:
        for module in encoder.modules():
            if isinstance(module, _BatchNorm) and module.affine and not module.weight.any():
                nn.init.ones_(module.weight)
    _check_patches(encoder, name, image_size)
    encoder.built_as = BuiltAs(name, in_channels, image_size, stem, zero_init_last, seed, chosen)
    try:
        encoder.num_features = feature_width(encoder, in_channels, image_size)
    except (RuntimeError, AssertionError) as error:
        if exits.out_of_memory(error):
            raise
        raise ValueError(
            f"{name} cannot take {words(image_size)}-pixel images: {one_line(error)}. Take larger images or another "
            "encoder"
        ) from error
    return encoder


def parameters_of(name: str, in_channels: int, image_size: Size, options: Mapping[str, Any]) -> int | None:
    """How many numbers a network has, before it is built; None where only building it would tell.

    Raises:
        ValueError: an unknown name or option.
    """
    chosen = dict(options)
    _check_arguments(name, in_channels, "as_is", chosen)
    arguments = timm_arguments(name, in_channels, size_of(image_size, "image_size", most=SIDE), chosen)
    measured = _measured((name, math.inf, ""), name, arguments)
    return None if measured is None else items_of(measured)


def _measured(limit: tuple[str, float, str], name: str, arguments: Mapping[str, Any]) -> nn.Module | None:
    """A network on torch's meta device, which has no memory; None if it cannot be built there.

    Raises:
        TooLarge: it is larger than the limit.
    """
    timm = networks()

    try:
        with bounded(*limit), seeded(0, "measured"), torch.device("meta"):
            measured: nn.Module = timm.create_model(name, num_classes=0, **arguments)
            return measured
    except TooLarge:
        raise
    except Exception:  # what cannot be built there is built in memory next, and what is wrong with it is said then
        return None


def _check_arguments(name: str, in_channels: int, stem: str, options: Mapping[str, Any]) -> None:
    timm = networks()

    if not timm.is_model(name) or "." in name:
        architecture = name.split(".")[0]
        if timm.is_model(architecture):
            raise ValueError(f"{name!r} names pretrained weights; give encoder {architecture!r} and init timm:{name}")
        near = difflib.get_close_matches(name, timm.list_models(), n=3) or timm.list_models(f"*{name[:6]}*")[:3]
        nearest = f"nearest: {', '.join(near)}; " if near else ""
        raise ValueError(f"unknown encoder {name!r}; {nearest}`barlow list encoders` lists all")
    if stem not in STEMS:
        raise ValueError(f"unknown stem {stem!r}; allowed: {', '.join(STEMS)}")
    if in_channels < 1:
        raise ValueError(f"in_channels {in_channels} must be at least 1")
    for key, value in options.items():
        if key in _OWN_ARGUMENTS:
            raise ValueError(f"encoder option {key!r} is not for options: {_OWN_ARGUMENTS[key]}")
        if not all(abs(number) <= LARGEST_OPTION for number in _numbers(value)):
            raise TooLarge(f"encoder option {key!r} has a number above {LARGEST_OPTION:,}: no network takes such")


def _numbers(value: Any) -> Iterator[float]:
    """The numbers in an option's value, at any depth."""
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _numbers(inner)


def takes_one_size(name: str) -> bool:
    """Whether a network is built for images of one size: ViTs and others with positions or windows.

    Of a network that is given in Python nobody knows, so it is taken to be one.
    """
    timm = networks()

    if name.startswith(LAB):  # of two ResNets
        return False
    return not timm.is_model(name) or bool(getattr(timm.get_pretrained_cfg(name), "fixed_input_size", True))


def timm_arguments(name: str, in_channels: int, image_size: Size, options: Mapping[str, Any]) -> dict[str, Any]:
    """What timm's `create_model` takes for these arguments of ours."""
    timm = networks()

    cfg = timm.get_pretrained_cfg(name)
    sized = {"img_size": image_size} if cfg is not None and cfg.fixed_input_size else {}
    # Options come from JSON or YAML, which have lists where timm's networks want tuples.
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return {"in_chans": in_channels, **sized, **plain}


def _check_patches(encoder: nn.Module, name: str, image_size: Size) -> None:
    patch = getattr(getattr(encoder, "patch_embed", None), "patch_size", None)
    if patch is None:
        return
    whole = tuple(max(1, round(side / of)) * of for side, of in zip(height_width(image_size), patch, strict=True))
    if whole != height_width(image_size):
        raise ValueError(
            f"{name} cuts images into patches of {words(size_of(patch))} pixels, which do not fill "
            f"{words(image_size)}: its border would never be seen. Take an image size of {words(size_of(whole))}, or "
            "another patch_size in the options"
        )


def feature_width(encoder: nn.Module, in_channels: int, image_size: Size) -> int:
    """The number of features that an encoder returns, measured on one blank image.

    It is measured because `num_features` means other things elsewhere: timm's MobileNetV3 says 288 and returns 1024.

    Raises:
        ValueError: the encoder does not return (n, features).
    """
    modes = [(module, module.training) for module in encoder.modules()]
    like = next((p for p in encoder.parameters() if p.is_floating_point()), torch.empty(0))
    # In train mode batch norm would refuse a single image, or count it in its running statistics.
    encoder.eval()
    try:
        with torch.no_grad():
            features = encoder(
                torch.zeros(1, in_channels, *height_width(image_size), device=like.device, dtype=like.dtype)
            )
    finally:
        for module, training in modes:
            module.training = training
    if not isinstance(features, Tensor) or features.ndim != 2:
        got = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(
            f"the encoder made {got} of one {words(image_size)}-pixel image; it must return (n, features): "
            "pool over space, and flatten"
        )
    return features.shape[1]
