"""Recipes as files: the ones that ship with the package, and a user's own."""

import copy
import functools
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from barlow.limits import read_yaml
from barlow.recipe.messages import RecipeError, nearest


def names() -> list[str]:
    """The recipes that ship with the package: the small ones, then those in folders, as FOLDER/NAME."""
    return list(_names())


@functools.cache
def _names() -> tuple[str, ...]:
    found = []
    for entry in (resources.files("barlow") / "recipes").iterdir():
        files = {f"{entry.name}/{file.name}" for file in entry.iterdir()} if entry.is_dir() else {entry.name}
        found += [name.removesuffix(".yaml") for name in files if name.endswith(".yaml")]
    return tuple(sorted(found, key=lambda name: ("/" in name, name)))


def read(name_or_path: str) -> dict[str, Any]:
    """The content of a shipped recipe or of a YAML file, not yet checked.

    Raises:
        RecipeError: neither exists, or the file is not YAML with sections.
    """
    if name_or_path in names():
        content = copy.deepcopy(_shipped(name_or_path))
    elif Path(name_or_path).is_file():
        try:
            content = read_yaml(Path(name_or_path))
        except ValueError as error:
            raise RecipeError(str(error)) from error
    else:
        raise RecipeError(
            f"unknown recipe {name_or_path!r}{nearest(name_or_path, names())}; "
            f"give one of the {len(names())} that `barlow list recipes` shows, or the path of a YAML file"
        )
    if not isinstance(content, dict):
        raise RecipeError(f"{name_or_path} holds no recipe: expected sections such as data, views, objective")
    return content


@functools.cache
def _shipped(name: str) -> Any:
    """The content of a shipped recipe, read once: what a run is of is found among all of them.

    These files are ours, so they may be read by libyaml, which takes a tenth of the time.
    """
    text = (resources.files("barlow") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def as_yaml(content: Mapping[str, Any], header: str = "") -> str:
    """A recipe's content (`Recipe.as_dict`) as YAML text below `header`, which is comment lines."""
    return header + yaml.safe_dump(
        dict(content), sort_keys=False, width=118, default_flow_style=None, allow_unicode=True
    )
