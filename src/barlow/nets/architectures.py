"""Which network weights are of, as far as the shapes of its tensors show it.

Names are timm's (`barlow.nets.layouts` renames others). What no shape shows is either asked for (`asks`), where guesses
would often be wrong, or assumed and said (`assumed`): the heads of a ViT's attention, of which nearly all networks have
one for each 64 features.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from barlow.limits import Entry
from barlow.nets.given import Network, Question

Shapes = Mapping[str, Entry]


@dataclass(frozen=True)
class Shown:
    """What the shapes show.

    Args:
        network: None where they do not show one. If something is asked for, it is the network but for its stem.
        about: the network in words.
        channels: of the images.
        image_size: for which the network was trained, or is trained mostly; a side in pixels.
        assumed: what is not shown and taken to be so, a phrase each.
        asks: why there is no network, and what to say in its place.
    """

    network: Network | None = None
    about: str = ""
    channels: int | None = None
    image_size: int | None = None
    assumed: tuple[str, ...] = ()
    asks: Question | None = None


UNKNOWN = Shown(asks=Question("its shapes are those of no ResNet, ViT or ConvNeXt that is known", "--encoder NAME"))


def shown_by(shapes: Shapes, arch: str | None = None) -> Shown:
    """The network of these tensors.

    Args:
        shapes: by timm's names.
        arch: what the file calls its network. It is believed only where the shapes show none; a name that is wrong
            does not fit then.
    """
    if "conv1.weight" in shapes and "layer1.0.conv1.weight" in shapes:
        found = _resnet(shapes)
    elif "patch_embed.proj.weight" in shapes and "blocks.0.attn.qkv.weight" in shapes:
        found = _vit(shapes)
    elif "stem.0.weight" in shapes and "stages.0.blocks.0.conv_dw.weight" in shapes:
        found = _convnext(shapes)
    else:
        found = UNKNOWN
    if found is UNKNOWN and arch is not None and _known(arch):
        return Shown(Network(arch, {}, "as_is", True), f"{arch}, as the file says")
    return found


def _known(name: str) -> bool:
    import timm

    return bool(re.fullmatch(r"\w{1,80}", name)) and bool(timm.is_model(name))


def _sides(shapes: Shapes, name: str, count: int) -> tuple[int, ...]:
    """A tensor's shape, if it has so many sides, none of them 0; else none at all."""
    entry = shapes.get(name)
    return entry.shape if entry is not None and len(entry.shape) == count and min(entry.shape) > 0 else ()


def _counted(shapes: Shapes, pattern: str) -> int:
    """How many numbers there are at the place of the group in a pattern, from 0 on without a gap."""
    there = {int(found[1]) for name in shapes if (found := re.match(pattern, name)) and len(found[1]) < 5}
    count = 0
    while count in there:
        count += 1
    return count


# --- ResNets ------------------------------------------------------------------------------------------------------

_RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18", (False, (3, 4, 6, 3)): "resnet34", (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101", (True, (3, 8, 36, 3)): "resnet152", (True, (3, 24, 36, 3)): "resnet200",
}  # fmt: skip
_WIDE = {(name, 1, 128): f"wide_{name}_2" for name in ("resnet50", "resnet101")}
"""By name, groups and width per group."""

CHANNELS = (64, 128, 256, 512)
STEM_CHANNELS = 64
"""Of timm's ResNets with a plain stem, which have no argument for another number."""


def _resnet(shapes: Shapes) -> Shown:
    stem = _sides(shapes, "conv1.weight", 4)
    bottleneck = "layer1.0.conv3.weight" in shapes
    last = "conv3" if bottleneck else "conv2"
    blocks = tuple(_counted(shapes, rf"layer{n}\.(\d+)\.conv1\.weight$") for n in (1, 2, 3, 4))
    ends = [_sides(shapes, f"layer{n}.0.{last}.weight", 4) for n in (1, 2, 3, 4)]
    inner, first = _sides(shapes, "layer1.0.conv2.weight", 4), _sides(shapes, "layer1.0.conv1.weight", 4)
    odd = any(re.match(r"layer\d\.\d+\.(se|conv4|downsample\.2)\b", name) for name in shapes)
    if odd or not stem or not all(blocks) or not all(ends) or not inner or not first or "bn1.weight" not in shapes:
        return UNKNOWN
    channels = tuple(end[0] // (4 if bottleneck else 1) for end in ends)
    groups = first[0] // inner[1]
    per_group = first[0] * 64 // (channels[0] * groups) if channels[0] * groups else 0
    name = _RESNETS.get((bottleneck, blocks), "resnet50" if bottleneck else "resnet18")
    options: dict[str, Any] = {}
    if (bottleneck, blocks) not in _RESNETS:
        options["layers"] = list(blocks)
    if channels != CHANNELS:
        options["channels"] = list(channels)
    if (name, groups, per_group) in _WIDE and not options:
        name = _WIDE[name, groups, per_group]
    elif (groups, per_group) != (1, 64):
        if not bottleneck:
            return UNKNOWN
        options |= {"cardinality": groups, "base_width": per_group}
    kind = "bottleneck" if bottleneck else "basic"
    about = f"a ResNet of {', '.join(map(str, blocks))} {kind} blocks of {channels[0]} to {channels[-1]} channels"
    usual = "as_is"
    if stem[0] != STEM_CHANNELS:  # only a deep stem of timm's can have others, and is replaced
        if stem[0] % 2:
            return UNKNOWN
        options, usual = options | {"stem_type": "deep", "stem_width": stem[0] // 2}, "plain"
    if stem[2:] == (7, 7):
        return Shown(Network(name, options, usual, True), about, stem[1], 224)
    if stem[2:] != (3, 3):
        return UNKNOWN
    return Shown(
        Network(name, options, "small", True),
        f"{about} with a 3×3 stem",
        stem[1],
        32,
        asks=Question(
            "weights do not show how its first convolution, of 3×3, moves and pads, nor whether a max-pool follows",
            "--encoder.stem small",
            " (stride 1, padding 1, no pool: most code for CIFAR), small_padded (padding 2: solo-learn's), "
            "small_pooled or strided",
        ),
    )


# --- ViTs ---------------------------------------------------------------------------------------------------------

_VITS = {192: ("tiny", 12, 3), 384: ("small", 12, 6), 768: ("base", 12, 12), 1024: ("large", 24, 16)}
"""By width: the name, the number of blocks, and of heads."""


def _vit(shapes: Shapes) -> Shown:
    patches = _sides(shapes, "patch_embed.proj.weight", 4)
    positions, hidden = _sides(shapes, "pos_embed", 3), _sides(shapes, "blocks.0.mlp.fc1.weight", 2)
    depth = _counted(shapes, r"blocks\.(\d+)\.attn\.qkv\.weight$")
    odd = any(
        re.match(r"reg_token|fc_norm|norm_pre|dist_token|rel_pos|blocks\.0\.attn\.(?!qkv|proj)", n) for n in shapes
    )
    if odd or not patches or not positions or not hidden or patches[2] != patches[3] or "cls_token" not in shapes:
        return UNKNOWN
    width, channels, patch = patches[:3]
    side = math.isqrt(positions[1] - 1)
    if side * side != positions[1] - 1 or side == 0 or "norm.weight" not in shapes:
        return UNKNOWN
    size, usual_depth, heads = _VITS.get(width, ("small", 12, max(1, width // 64)))
    if width % heads:
        return UNKNOWN
    options: dict[str, Any] = {}
    name = f"vit_{size}_patch{patch}_224"
    if not _known(name):
        name, options = f"vit_{size}_patch16_224", {"patch_size": patch}
    if width not in _VITS:
        options |= {"embed_dim": width, "num_heads": heads}
    if depth != usual_depth:
        options["depth"] = depth
    if hidden[0] != 4 * width:
        options["mlp_ratio"] = hidden[0] / width
    if "blocks.0.attn.qkv.bias" not in shapes:
        options["qkv_bias"] = False
    if "blocks.0.ls1.gamma" in shapes:
        options["init_values"] = 1e-5  # any number: the weights bring their own
    about = f"a ViT of {depth} blocks of width {width}, patches of {patch} pixels"
    assumed = (f"{heads} heads of {width // heads} features in each block, which no shape shows",)
    return Shown(Network(name, options, "as_is", True), about, channels, side * patch, assumed)


# --- ConvNeXts ----------------------------------------------------------------------------------------------------

_CONVNEXTS: dict[tuple[str, tuple[int, ...], int], str] = {
    ("convnext", (3, 3, 9, 3), 96): "convnext_tiny", ("convnext", (3, 3, 27, 3), 96): "convnext_small",
    ("convnext", (3, 3, 27, 3), 128): "convnext_base", ("convnext", (3, 3, 27, 3), 192): "convnext_large",
    ("convnextv2", (3, 3, 9, 3), 96): "convnextv2_tiny", ("convnextv2", (3, 3, 27, 3), 128): "convnextv2_base",
    ("convnextv2", (3, 3, 27, 3), 192): "convnextv2_large",
}  # fmt: skip


def _convnext(shapes: Shapes) -> Shown:
    stem, deep = _sides(shapes, "stem.0.weight", 4), _sides(shapes, "stages.0.blocks.0.conv_dw.weight", 4)
    depths = tuple(_counted(shapes, rf"stages\.{n}\.blocks\.(\d+)\.conv_dw\.weight$") for n in (0, 1, 2, 3))
    wide = [_sides(shapes, f"stages.{n}.blocks.0.conv_dw.weight", 4) for n in (0, 1, 2, 3)]
    second = "stages.0.blocks.0.mlp.grn.weight" in shapes
    plain = second or "stages.0.blocks.0.gamma" in shapes
    linear = _sides(shapes, "stages.0.blocks.0.mlp.fc1.weight", 2)
    if not stem or not all(depths) or not all(wide) or not plain or not linear or "head.norm.weight" not in shapes:
        return UNKNOWN
    if stem[2:] != (4, 4) or deep[2:] != (7, 7):
        return UNKNOWN
    dims, kind = tuple(side[0] for side in wide), "convnextv2" if second else "convnext"
    options: dict[str, Any] = {}
    doubled = tuple(dims[0] * 2**n for n in range(4))
    name = _CONVNEXTS.get((kind, depths, dims[0])) if dims == doubled else None
    if name is None:
        name, options = f"{kind}_tiny", {"depths": list(depths), "dims": list(dims)}
    title = "ConvNeXt V2" if second else "ConvNeXt"
    about = f"a {title} of {', '.join(map(str, depths))} blocks of {dims[0]} to {dims[-1]} channels"
    return Shown(Network(name, options, "as_is", True), about, stem[1], 224)
