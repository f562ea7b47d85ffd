"""What `barlow list` shows: for each kind of thing, its names with a line on each. Nothing heavy is imported for it."""

import ast
from importlib import resources
from typing import Any

from barlow import exports, methods, objectives, protocols


def _recipe_entries() -> dict[str, str]:
    """The first line of each recipe's file, the small ones first, without importing what checks them."""
    entries = {}
    for entry in (resources.files("barlow") / "recipes").iterdir():
        for file in entry.iterdir() if entry.is_dir() else [entry]:
            name = f"{entry.name}/{file.name}" if entry.is_dir() else file.name
            if name.endswith(".yaml"):
                first = file.read_text(encoding="utf-8").split("\n")[0]
                entries[name.removesuffix(".yaml")] = first.lstrip("# ")
    return dict(sorted(entries.items(), key=lambda item: ("/" in item[0], item[0])))


def _kinds_of(package: Any) -> dict[str, str]:
    """The first line of each file of `objectives`, `methods` or `protocols`, without importing it: it imports torch."""
    return {kind: _first_line(package, kind) for kind in package.kinds()}


def _first_line(package: Any, kind: str) -> str:
    text = (resources.files(package.__name__) / f"{kind}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text, f"{kind}.py")) or "").split("\n")[0]


def _published_methods() -> dict[str, str]:
    """The published methods, each by its small recipe: which objective on which topology, and its page.

    A method as papers know it is an objective on a topology, with its views; a recipe names all of these.
    """
    import yaml

    entries = {}
    for file in sorted((resources.files("barlow") / "recipes").iterdir(), key=lambda entry: entry.name):
        if file.name.startswith("small_") and file.name.endswith(".yaml"):
            text = file.read_text(encoding="utf-8")
            title = text.split("\n")[0].lstrip("# ").partition(" on one CPU")[0].rstrip(",")
            recipe = yaml.safe_load(text)
            objective, topology = recipe["objective"]["kind"], recipe["method"]["kind"]
            entries[file.name.removesuffix(".yaml")] = (
                f"{title}: objective {objective} on {topology} (docs/objectives.md#{objective})"
            )
    return entries


def _export_entries() -> dict[str, str]:
    """The targets of `barlow export`."""
    return {name: _first_line(exports, name.replace("-", "_")) for name in exports.names()}


def _encoder_entries() -> dict[str, str]:
    from barlow.nets.encoder_table import TESTED

    return dict(TESTED)


def _dataset_entries() -> dict[str, str]:
    from barlow.data.names import NAMED

    return {"FOLDER": "a folder of images, nested or flat; several may be given", **NAMED, "shapes_boxes": SHAPES_BOXES}


SHAPES_BOXES = "generated scenes of one to four objects, with boxes and masks, for `--protocol detect`; needs no file"
"""Not among the named sets of images: `barlow.detection.generated` makes it, and nothing but detection takes it."""


DETECT = "Detection and masks: Faster or Mask R-CNN trained on boxes, with the encoder as backbone; goes by itself"
"""It is no file of `protocols`, as it does not read features of labelled images (`barlow.detection`)."""

CAPTIONS = "Image-text retrieval: recall at 1, 5 and 10 of a run that was trained on captions; goes by itself"
"""No file of `protocols` either: `barlow.caption_retrieval`."""

ENTRIES = {
    "recipes": _recipe_entries,
    "objectives": lambda: _kinds_of(objectives),
    "methods": lambda: {**_kinds_of(methods), **_published_methods()},
    "protocols": lambda: {**_kinds_of(protocols), "captions": CAPTIONS, "detect": DETECT},
    "exports": _export_entries,
    "encoders": _encoder_entries,
    "datasets": _dataset_entries,
}
