"""Folders of others that have a `config.json` beside their weights: timm's, as they lie on the Hugging Face hub, and
transformers'.

barlow's own folders have a `config.json`, too, and say in it of which `kind` their network is.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from barlow import limits, storage
from barlow.exits import UnusableData
from barlow.nets.expected import Centre, Normalization, centre_of, normalization_of
from barlow.nets.given import Network
from barlow.printable import one_line, printable
from barlow.size import Size, size_of
from barlow.tables import NUMBER, NUMBERS, TEXT, Kind

NAME = "config.json"

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""What the file of weights beside it is called, in the order in which timm and transformers look for it."""

NOT_OPTIONS = ("in_chans", "img_size", "num_classes", "zero_init_last")
"""Arguments of timm's that follow from the images, or that weights make no difference to."""


@dataclass(frozen=True)
class HubFolder:
    """What timm's `config.json` says.

    Args:
        network: with its arguments as options.
        channels: of the images.
        normalization: None where the numbers are not those of so many channels.
        centre: the view that it is measured on.
        assumed: what it says and is not done here, a phrase each.
    """

    network: Network
    channels: int
    normalization: Normalization | None
    centre: Centre
    assumed: tuple[str, ...]


def whose(folder: Path) -> Literal["barlow", "timm", "transformers"] | None:
    """Who has written the `config.json` of a folder; None where there is none.

    What is damaged is taken for barlow's, which says what is wrong with it.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        content = storage.read_json(path)
    except (OSError, ValueError):
        return "barlow"
    if not isinstance(content, dict) or "kind" in content or "format" in content:
        return "barlow"
    if "architecture" in content or "pretrained_cfg" in content:
        return "timm"
    return "transformers" if "model_type" in content or "architectures" in content else "barlow"


def weights_in(folder: Path) -> Path | None:
    """The file of weights of a folder of timm's or transformers'; None where it is neither, or has no such file."""
    if whose(folder) in (None, "barlow"):
        return None
    return next((path for name in WEIGHTS if (path := folder / name).is_file()), None)


def read(folder: Path) -> HubFolder:
    """What timm's `config.json` says of the weights beside it.

    Source: `save_for_hf` and `load_model_config_from_hf` of timm, and `TimmWrapperConfig` of transformers, whose file
    has the same keys. Files from before `pretrained_cfg` have its keys at the top.

    Raises:
        UnusableData: timm has no such network, or a value is not what it should be.
    """
    path = folder / NAME
    content = storage.read_json(path)
    cfg = _table(content, "pretrained_cfg", path) if "pretrained_cfg" in content else content
    arguments = _table(content, "model_args", path)
    name = _value(content, "architecture", TEXT, path) or _value(cfg, "architecture", TEXT, path)
    if name is None:
        raise UnusableData(f"{path} has the form of timm's, and does not say the architecture")
    name = str(name).partition(".")[0]
    _check_known(name, path)
    stock, usual = normalization_of(name), centre_of(name)
    sides = _sides(cfg, path)
    channels = _value(arguments, "in_chans", _POSITIVE, path) or (sides[0] if sides else stock.channels)
    size = _size(arguments, sides, usual.size, path)
    mean = _value(cfg, "mean", NUMBERS, path) or list(stock.mean)
    std = _value(cfg, "std", NUMBERS, path) or list(stock.std)
    mean, std = (tuple(map(float, values * channels if len(values) == 1 else values)) for values in (mean, std))
    fits = len(mean) == len(std) == channels
    ratio = _value(cfg, "crop_pct", NUMBER, path)
    options = {key: value for key, value in arguments.items() if key not in NOT_OPTIONS}
    filters = _value(cfg, "interpolation", TEXT, path)
    known = filters in ("nearest", "bilinear", "bicubic", "lanczos")
    return HubFolder(
        Network(name, options, "as_is", True),
        channels,
        Normalization(mean, std) if fits else None,
        Centre(
            size,
            usual.crop_ratio if ratio is None else float(ratio),
            str(filters) if known else usual.interpolation,
        ),
        _not_done(cfg, None if known else filters, usual.interpolation, path),
    )


_POSITIVE = Kind("a whole number from 1 on", lambda value: type(value) is int and 0 < value < 10**6)
_INPUT = Kind(
    "three whole numbers, channels, height and width",
    lambda value: isinstance(value, list) and len(value) == 3 and all(map(_POSITIVE.holds, value)),
)


def _value(content: dict[str, Any], key: str, kind: Kind, path: Path) -> Any:
    """A value, if it is of its kind; None where there is none."""
    value = content.get(key)
    if value is not None and not kind.holds(value):
        shown = printable(repr(value))[:60]
        raise UnusableData(f"{path} is of timm's form and damaged: {key} is {shown}, and should be {kind.words}")
    return value


def _table(content: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    found: dict[str, Any] = _value(content, key, Kind("a table", lambda value: isinstance(value, dict)), path) or {}
    return found


def _check_known(name: str, path: Path) -> None:
    import timm

    if not timm.is_model(name):
        raise UnusableData(
            f"{path} is of timm's network {printable(name)[:60]}, which timm {timm.__version__} does not have: upgrade "
            "timm, or copy the file of weights to a folder of its own and name a network by --encoder"
        )


def _sides(cfg: dict[str, Any], path: Path) -> tuple[int, ...]:
    """Channels, height and width of the images; nothing, where it does not say."""
    return tuple(_value(cfg, "input_size", _INPUT, path) or ())


def _size(arguments: dict[str, Any], sides: tuple[int, ...], usual: Size, path: Path) -> Size:
    """Of the images: what the network was built for, or is measured on."""
    asked = arguments.get("img_size") or sides[1:] or usual
    try:
        return size_of(list(asked) if isinstance(asked, tuple) else asked, "img_size", most=limits.SIDE)
    except ValueError as error:
        raise UnusableData(f"{path}: {one_line(error)}") from error


def _not_done(cfg: dict[str, Any], filters: str | None, used: str, path: Path) -> tuple[str, ...]:
    """What timm would do to an image, and barlow does not."""
    lines = []
    if (mode := _value(cfg, "crop_mode", TEXT, path)) not in (None, "center"):
        lines.append(f"the centre of an image is taken, where timm's crop mode is {printable(mode)[:30]}")
    if filters is not None:
        lines.append(f"images are resampled {used}, where timm's filter is {printable(filters)[:30]}")
    return tuple(lines)
