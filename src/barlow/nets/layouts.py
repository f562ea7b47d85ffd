"""Layouts of other projects' files of weights: where the encoder is in them, under which names, and what is beside it.

Rules are data. A layout says where in a file the tensors are, what their names begin with if they are the encoder's,
and what all others are. A name is looked at from its start only: a rule that is searched for anywhere would also take
`momentum_backbone.` for `backbone.`. Every tensor is the encoder's, or dropped by a rule that says what it is, or an
error that names it.

Source: the loading code of each project, as docs/weights.md says it; where MoCo v3, DINOv2 and pytorch-cifar are read,
the names are those of their published code.
"""

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from barlow.exits import UnusableData
from barlow.limits import Entry
from barlow.nets.weight_file import Other, Stored, Tree
from barlow.printable import printable

HEADS = {
    r"(module\.)?(momentum_|key_|teacher_|student_)?(projector|projection_head|projection|projections)(_momentum)?\.":
        "the projector",
    r"(module\.)?(momentum_)?(predictor|prediction_head)(_momentum)?\.": "the predictor",
    r"(module\.)?(momentum_)?prototypes": "the prototypes",
    r"(module\.)?(momentum_|online_)?(classifier|linear_classifier|linear)\.": "the classifier",
    r"(module\.)?(queue|queue_y|queue_ptr)$": "the queue",
}  # fmt: skip
"""What stands beside an encoder in many projects, by how it is called."""


ANYWHERE = ("state_dict", "model", "model_state_dict", "")
"""Where tensors are in files of no project in particular; "" is the file itself."""


@dataclass(frozen=True)
class Layout:
    """How a project lays out its files. Patterns are regular expressions, matched at the start of a name.

    Args:
        name: of the project, for people.
        at: where the tensors are: entries of the file, one inside the other, joined by dots; "" is the file itself. The
            first that is there counts.
        keep: what the names of the encoder's tensors begin with. It is cut off.
        marks: each of them some name must match; with `keep`, what the layout is recognised by.
        beside: entries that the file must also have.
        drop: what the other tensors are. It comes before `keep`: a head may have a name inside the encoder.
        refused: why such a file cannot be used, if it cannot.
        loose: whether a file with names of no rule is taken for one of another layout. The name of a part, `encoder.`,
            is no sign of a project.
    """

    name: str
    at: tuple[str, ...]
    keep: str
    marks: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    drop: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""
    loose: bool = False


LAYOUTS = (
    Layout("VISSL", ("classy_state_dict.base_model.model.trunk",), r"(base_model\.)?_feature_blocks\."),
    Layout(
        "DINO", ("teacher", "student"), r"(module\.)?backbone\.",
        drop={r"(module\.)?(head|dino_head|ibot_head)\.": "the projection head"},
    ),
    Layout(
        "MoCo", ("state_dict",), r"module\.encoder_q\.",
        drop={
            r"module\.encoder_q\.fc\.": "the projection head",
            r"module\.encoder_k\.": "the key encoder",
            r"module\.(queue|queue_ptr)$": "the queue",
        },
    ),
    Layout(
        "MoCo v3", ("state_dict",), r"module\.base_encoder\.",
        drop={
            r"module\.base_encoder\.(fc|head)\.": "the projection head",
            r"module\.momentum_encoder\.": "the momentum encoder",
            r"module\.predictor\.": "the predictor",
        },
    ),
    Layout(
        "SimSiam", ("state_dict",), r"module\.encoder\.",
        drop={r"module\.encoder\.fc\.": "the projection head", **HEADS},
    ),
    Layout(
        "Barlow Twins", ("model",), r"module\.backbone\.", marks=(r"module\.bn\.",),
        drop={r"module\.projector\.": "the projector", r"module\.bn\.": "the last batch norm"},
    ),
    Layout("VICReg", ("model", "state_dict", ""), r"module\.backbone\.", drop=HEADS),
    Layout(
        "SwAV or DeepCluster v2", ("state_dict", ""), r"module\.",
        marks=(r"module\.(prototypes|projection_head)", r"module\.conv1\."),
        drop={r"module\.projection_head\.": "the projection head", r"module\.prototypes": "the prototypes"},
    ),
    Layout(
        "mmselfsup", ("state_dict",), r"backbone\.", beside=("meta",),
        drop={
            r"neck\.|target_neck\.|projector(_momentum)?\.": "the neck",
            r"(head|target_head|predictor)\.": "the head",
            r"target_|momentum_|encoder_k\.|teacher\.": "the momentum copy",
            r"encoder_q\.|online_net\.|student\.": "a second name of backbone and neck",
            r"queue|data_preprocessor\.|prototypes": "what the method keeps",
        },
    ),
    Layout(
        "an older lightly", ("state_dict",), r"(model\.)?(backbone|features)\.",
        marks=(r"(model\.)?(backbone|features)\.2\.\d+\.conv1\.", r"(model\.)?(backbone|features)\.5\.\d+\.conv1\."),
        refused="its network is lightly's own ResNet without the ReLU after the first norm, which no other library has",
    ),
    Layout(
        "solo-learn", ("state_dict",), r"(backbone|encoder)\.", beside=("pytorch-lightning_version",),
        marks=(r"(classifier|projector|predictor|head|momentum_\w+)\.",),
        drop={
            r"momentum_(backbone|encoder)\.": "the momentum copy",
            r"(momentum_)?(head|decoder)\.": "the head",
            r"(dino_loss_func|local_memory_\w+|embeddings)(\.|$)": "what the method keeps",
            **HEADS,
        },
    ),
    Layout(
        "lightly", ("state_dict",), r"(model\.)?teacher_backbone\.",
        drop={
            r"(model\.)?student_\w+\.": "the student",
            r"(model\.)?(\w*head|criterion)\.": "heads and loss",
            **HEADS,
        },
    ),
    Layout(
        "lightly", ("state_dict",), r"(model\.)?(backbone|features)\.", beside=("pytorch-lightning_version",),
        drop={
            r"(model\.)?(backbone_momentum|student_backbone|momentum_backbone)\.": "the momentum copy or the student",
            r"(model\.)?(student_|teacher_|online_)?\w*(head|classifier)(_momentum)?\.": "the heads",
            r"(model\.)?(criterion|loss|memory_bank|prototypes|queue)\w*(\.|$)": "what the loss keeps",
        },
    ),
    Layout(
        "barlow", ("",), r"method/encoder\.",
        drop={
            r"method/(?!encoder\.)": "heads and targets",
            r"optimizer/": "the optimizer's state",
            r"objective/|sha256$": "the objective's state",
            **HEADS,
        },
    ),
    Layout("barlow", ("",), r"network\.", drop={r"whiten\.": "the whitening"}),
    Layout("transformers' timm wrapper", ("",), r"timm_model\."),
    Layout("timm's training", ("state_dict",), r"(module\.)?", beside=("arch",)),
    Layout("torchvision's training", ("model",), r"(module\.)?", beside=("lr_scheduler",)),
    *(
        Layout(f"names after {prefix}", ANYWHERE, re.escape(prefix), drop=HEADS, loose=True)
        for prefix in ("module.", "backbone.", "encoder.", "model.")
    ),
)  # fmt: skip
"""In the order in which they are tried. `PLAIN` is what all others are taken for."""

PLAIN = Layout("plain names", ANYWHERE, "")


@dataclass(frozen=True)
class Naming:
    """Other names of a network than timm's.

    Args:
        name: whose.
        marks: names that begin with each of these must be there.
        change: pattern to replacement, at the start of a name. Each is applied once, in this order.
        flat: what the names of tensors end with that have further sides of one, which timm's have not.
    """

    name: str
    marks: tuple[str, ...]
    change: Mapping[str, str]
    flat: tuple[str, ...] = ()


NAMINGS = (
    Naming(
        "the children of a torchvision ResNet in a Sequential",
        (r"0\.weight$", r"1\.running_mean$", r"4\.0\.conv1\."),
        {r"0\.": "conv1.", r"1\.": "bn1.", r"4\.": "layer1.", r"5\.": "layer2.", r"6\.": "layer3.", r"7\.": "layer4."},
    ),
    Naming(
        "pytorch-cifar's ResNet",
        (r"conv1\.weight$", r"layer2\.0\.shortcut\."),
        {r"(layer\d\.\d+)\.shortcut\.": r"\1.downsample.", r"linear\.": "fc."},
    ),
    Naming(
        "mmselfsup's ViT",
        (r"patch_embed\.projection\.", r"layers\.0\.ln1\."),
        {
            r"patch_embed\.projection\.": "patch_embed.proj.",
            r"layers\.(\d+)\.ln([12])\.": r"blocks.\1.norm\2.",
            r"layers\.(\d+)\.ffn\.layers\.0\.0\.": r"blocks.\1.mlp.fc1.",
            r"layers\.(\d+)\.ffn\.layers\.1\.": r"blocks.\1.mlp.fc2.",
            r"layers\.(\d+)\.": r"blocks.\1.",
            r"ln1\.": "norm.",
        },
    ),
    Naming(
        "torchvision's ViT",
        (r"class_token$", r"conv_proj\.", r"encoder\.layers\.encoder_layer_0\."),
        {
            r"class_token$": "cls_token",
            r"conv_proj\.": "patch_embed.proj.",
            r"encoder\.pos_embedding$": "pos_embed",
            r"encoder\.ln\.": "norm.",
            r"encoder\.layers\.encoder_layer_(\d+)\.": r"blocks.\1.",
            r"(blocks\.\d+)\.ln_([12])\.": r"\1.norm\2.",
            r"(blocks\.\d+)\.self_attention\.in_proj_": r"\1.attn.qkv.",
            r"(blocks\.\d+)\.self_attention\.out_proj\.": r"\1.attn.proj.",
            r"(blocks\.\d+)\.mlp\.(linear_1|0)\.": r"\1.mlp.fc1.",
            r"(blocks\.\d+)\.mlp\.(linear_2|3)\.": r"\1.mlp.fc2.",
            r"heads\.head\.": "head.",
        },
    ),
    Naming(
        "torchvision's ConvNeXt",
        (r"features\.0\.0\.weight$", r"features\.1\.0\.block\.0\.", r"features\.1\.0\.layer_scale$"),
        {
            r"features\.0\.": "stem.",
            **{rf"features\.{2 * i}\.": f"stages.{i}.downsample." for i in (1, 2, 3)},
            **{rf"features\.{2 * i + 1}\.": f"stages.{i}.blocks." for i in (0, 1, 2, 3)},
            r"(stages\.\d\.blocks\.\d+)\.block\.0\.": r"\1.conv_dw.",
            r"(stages\.\d\.blocks\.\d+)\.block\.2\.": r"\1.norm.",
            r"(stages\.\d\.blocks\.\d+)\.block\.3\.": r"\1.mlp.fc1.",
            r"(stages\.\d\.blocks\.\d+)\.block\.5\.": r"\1.mlp.fc2.",
            r"(stages\.\d\.blocks\.\d+)\.layer_scale$": r"\1.gamma",
            r"classifier\.0\.": "head.norm.",
            r"classifier\.2\.": "head.fc.",
        },
        flat=(".gamma",),
    ),
    Naming(
        "ConvNeXt's own",
        (r"downsample_layers\.0\.0\.weight$", r"stages\.0\.0\.dwconv\."),
        {
            r"downsample_layers\.0\.": "stem.",
            r"downsample_layers\.(\d)\.": r"stages.\1.downsample.",
            r"stages\.(\d)\.(\d+)\.dwconv\.": r"stages.\1.blocks.\2.conv_dw.",
            r"stages\.(\d)\.(\d+)\.pwconv([12])\.": r"stages.\1.blocks.\2.mlp.fc\3.",
            r"stages\.(\d)\.(\d+)\.grn\.gamma$": r"stages.\1.blocks.\2.mlp.grn.weight",
            r"stages\.(\d)\.(\d+)\.grn\.beta$": r"stages.\1.blocks.\2.mlp.grn.bias",
            r"stages\.(\d)\.(\d+)\.": r"stages.\1.blocks.\2.",
            r"norm\.": "head.norm.",
            r"head\.(?!norm|fc)": "head.fc.",
        },
        flat=(".grn.weight", ".grn.bias"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Recognised:
    """The encoder in a file.

    Args:
        layout: its name, and where and under which names the encoder is.
        tensors: by timm's names where they are known, else by the file's own without what they begin with.
        dropped: names in the file, by what they are.
        flat: those of the tensors that lose their sides of one.
        arch: what the file calls its network, if it does.
    """

    layout: str
    tensors: dict[str, Stored]
    dropped: dict[str, tuple[str, ...]]
    flat: frozenset[str] = frozenset()
    arch: str | None = None


class NoRule(UnusableData):
    """A tensor that no rule of a layout names."""


def recognise(path: Path, tree: Tree, own: Collection[str] = ()) -> Recognised:
    """Finds the encoder in a file.

    Args:
        path: of the file, for messages.
        tree: what is in it.
        own: the names of the tensors that are wanted, where the encoder is known. If the file has all of them as they
            are, nothing is cut off and nothing renamed: a user's own network may call a part of itself `backbone`.

    Raises:
        UnusableData: there are no tensors in it; or it is of a layout that cannot be used; or there are tensors that no
            rule of its layout names.
    """
    if own:
        for where, table in _tables(tree, PLAIN):
            if all(isinstance(table.get(name), Stored) for name in own):
                return _sorted_out(path, PLAIN, where, table, tree)
    for layout in LAYOUTS:
        if not all(entry in tree for entry in layout.beside):
            continue
        for where, table in _tables(tree, layout):
            names = list(table)
            keep = [layout.keep] if layout.keep != r"(module\.)?" else []
            if all(any(re.match(mark, name) for name in names) for mark in (*keep, *layout.marks)):
                with contextlib.suppress(*[NoRule] * layout.loose):
                    return _sorted_out(path, layout, where, table, tree)
    for where, table in _tables(tree, PLAIN):
        return _sorted_out(path, PLAIN, where, table, tree)
    inside = ", ".join(list(tree)[:6]) or "nothing"
    raise UnusableData(
        f"{path} has no tensors where the weights of a network are looked for; it has: {printable(inside)}"
    )


def _tables(tree: Tree, layout: Layout) -> Iterator[tuple[str, Tree]]:
    """Where a layout's tensors may be, and what is there."""
    for where in layout.at:
        table = tree
        for entry in where.split(".") if where else []:
            inner = table.get(entry)
            table = inner if isinstance(inner, dict) else {}
        if any(isinstance(value, Stored) for value in table.values()):
            yield where, table


def _sorted_out(path: Path, layout: Layout, where: str, table: Tree, tree: Tree) -> Recognised:
    """Every tensor of a file, used or dropped."""
    if layout.refused:
        raise UnusableData(f"{path} is of {layout.name}, and cannot be used: {layout.refused}")
    kept: dict[str, Stored] = {}
    dropped: dict[str, list[str]] = {}
    unknown, cut = [], set()
    for name, value in table.items():
        rule = next((what for pattern, what in layout.drop.items() if re.match(pattern, name)), None)
        start = re.match(layout.keep, name)
        if rule is not None:
            dropped.setdefault(rule, []).append(name)
        elif start is None or not isinstance(value, Stored) or (inner := name[start.end() :]) in kept:
            unknown.append(name if isinstance(value, Stored) else f"{name} ({_what(value)})")
        else:
            kept[inner] = value
            cut.add(start[0])
    if unknown:
        raise NoRule(
            f"{path} looks like a file of {layout.name}, and there is no rule for {_some(unknown)} in it: "
            "docs/weights.md says what is read"
        )
    for entry in tree if where else []:
        if entry != where.split(".")[0]:
            dropped.setdefault("other entries", []).append(entry)
    prefixes = " or ".join(sorted(filter(None, cut)))
    words = (
        layout.name if layout.name.startswith("names") else layout.name + f": names after {prefixes}" * bool(prefixes)
    )
    naming = next((n for n in NAMINGS if all(any(re.match(m, name) for name in kept) for m in n.marks)), None)
    flat: frozenset[str] = frozenset()
    if naming is not None:
        kept = {_renamed(name, naming): value for name, value in kept.items()}
        flat = frozenset(name for name in kept if name.endswith(naming.flat))
        words += f", of {naming.name}"
    words += f", in {where}" * bool(where)
    arch = tree.get("arch")
    return Recognised(
        words,
        kept,
        {what: tuple(names) for what, names in dropped.items()},
        flat,
        arch if isinstance(arch, str) else None,
    )


def _renamed(name: str, naming: Naming) -> str:
    for pattern, replacement in naming.change.items():
        name = re.sub(rf"\A(?:{pattern})", replacement, name, count=1)
    return name


def _what(value: object) -> str:
    if isinstance(value, Other):
        return f"a {value.what}"
    return "a text" if isinstance(value, str) else "a table"


def _some(names: list[str], limit: int = 3) -> str:
    return printable(", ".join(names[:limit])) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def shapes_of(recognised: Recognised) -> dict[str, Entry]:
    """What the shapes of an encoder's tensors are, those of one side flat."""
    return {
        name: Entry((entry.items,), entry.dtype) if name in recognised.flat else entry
        for name, entry in recognised.tensors.items()
    }
