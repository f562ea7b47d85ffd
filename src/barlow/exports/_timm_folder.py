"""The folder that timm and transformers both read: weights under timm's names, and a description of the network."""

from typing import Any

from barlow import storage
from barlow.exports._protocol import Material, Use
from barlow.nets.stems import LAB
from barlow.size import height_width

_TIMM = """\
import timm

network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def features(images):
    return network(images)
"""

_ASKS = """\
from timm.data import resolve_model_data_config

found = resolve_model_data_config(network)
says = {key: found[key] for key in ("input_size", "mean", "std", "crop_pct", "interpolation")}
"""


def refuses(material: Material) -> str | None:
    """Why timm would build another network from this encoder's name, or none."""
    if material.is_custom:
        return f"{material.name} was given in Python, and timm has no such network"
    if material.name.startswith(LAB):
        return f"{material.name} is a network of barlow's own, and timm has none of this name"
    if (stem := material.replaced_stem) is not None:
        return (
            f"its stem is {stem}; timm's {material.name} has another, and would be another network under this name "
            "(small images get it; a run with --encoder.stem as_is has timm's own)"
        )
    return None


def files(material: Material) -> dict[str, bytes]:
    """`model.safetensors` and `config.json`."""
    return {
        "model.safetensors": storage.tensors_bytes(material.tensors(handed_out=False)),
        "config.json": storage.json_bytes(
            {
                "architecture": material.name,
                "num_classes": 0,
                "num_features": int(material.network.num_features),  # type: ignore[arg-type]
                # Without num_classes: transformers passes its own beside these, and Python allows no second.
                "model_args": material.arguments,
                "pretrained_cfg": _pretrained_cfg(material),
            }
        ),
    }


def _pretrained_cfg(material: Material) -> dict[str, Any]:
    """timm's record of the network's weights, with what is true of these in place of what is true of timm's own."""
    import timm

    stock: Any = timm.get_pretrained_cfg(material.name)
    kept = ("fixed_input_size", "first_conv", "classifier", "pool_size")
    about = {key: value for key, value in stock.to_dict(remove_source=True, remove_null=True).items() if key in kept}
    return {**about, **says(material), "crop_mode": "center", "num_classes": 0, "custom_load": False}


def says(material: Material) -> dict[str, Any]:
    """What timm has to say of the images that the network expects."""
    seen = material.preprocessing
    return {
        "input_size": [seen.channels, *height_width(seen.size)],
        "mean": list(seen.mean),
        "std": list(seen.std),
        "crop_pct": seen.crop_ratio,
        "interpolation": seen.interpolation,
    }


def use(material: Material) -> Use:
    """How timm reads it."""
    return Use("timm", _TIMM, not material.hands_out_more, "timm", asks=_ASKS, says=says(material))


def notes(material: Material) -> list[str]:
    """What is different there."""
    lines = [
        "Load it by its folder, as above. By the plain name of the network timm knows neither its options nor its "
        "images' size, mean and standard deviation.",
        "timm's own transform resizes to whole pixels and then crops; barlow resamples the crop once from its exact "
        "place. Features of one image differ by a little between the two.",
    ]
    return lines
