"""From what a user asks for (images, flags, dotted keys, objects given in Python) to a recipe."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from barlow import objectives
from barlow.data.sources import FoldersOrName
from barlow.recipe import files
from barlow.recipe.changes import flat, override
from barlow.recipe.flags import as_keys
from barlow.recipe.messages import INCOMPLETE, RecipeError, nearest
from barlow.recipe.schema import CUSTOM, Recipe, check

DEFAULT = "small_w_mse"
"""docs/choosing.md says by which numbers it was chosen."""

OF_NO_SMALL_RECIPE = "small_barlow_twins"
"""What an objective without a small recipe of its own is put into: unlike W-MSE's, its networks suit any objective."""

CONTINUED = "continue_barlow_twins"
"""What weights of ImageNet take in place of the default, unless an objective with such a recipe of its own was asked
for."""

OF_IMAGENET = ("packaged:", "timm:")
"""How sources of weights begin that were trained on photos, mostly ImageNet's, larger than a small recipe's views."""

FREE_ON_RESUME = (
    "data.sources",
    "data.workers",
    "train.device",
    "train.log_steps",
    "train.monitor_images",
    "train.stop_if_collapsed",
    "train.tensorboard",
    "train.checkpoint_minutes",
    "train.checkpoint_steps",
)
"""Keys whose change leaves the numbers of a run as they are. A folder of images may have moved: its fingerprint tells
whether it still holds the same images."""


LENGTH = ("train.epochs", "train.steps", "train.minutes", "schedule.steps")
"""Keys by which a run can be made longer."""


NOT_OF_A_RECIPE = (
    *FREE_ON_RESUME,
    "source",
    "seed",
    "data.split",
    "data.executor",
    "data.max_bad",
    "data.max_pixels",
    *LENGTH,
)
"""Keys by which a run differs from its recipe and still is a run of it: which images, how long, on what."""


def requested(
    data: FoldersOrName | None,
    *,
    objective: str | Callable[..., Any] | None = None,
    encoder: str | nn.Module | None = None,
    overrides: Mapping[str, Any] | None = None,
    **flags: Any,
) -> dict[str, Any]:
    """What was asked for as dotted keys of the recipe. Dotted keys that were given win over flags.

    Raises:
        TypeError: an argument that is no flag.
        RecipeError: two budgets.
    """
    names = {"objective": objective, "encoder": encoder}
    try:
        changes = as_keys(flags | {name: value for name, value in names.items() if isinstance(value, str)})
    except ValueError as error:
        raise RecipeError(str(error)) from error
    if isinstance(encoder, str):
        changes["encoder.options"] = {}
    elif encoder is not None:
        name = f"{CUSTOM}{type(encoder).__qualname__}"
        changes |= {"encoder.name": name, "encoder.stem": "as_is", "encoder.options": {}}
        changes |= {"encoder.stages": "last", "encoder.whiten": None}
    if objective is not None and not isinstance(objective, str):
        changes |= _objective_as_keys(objective)
    if data is not None:
        changes["data.sources"] = [os.fspath(d) for d in ([data] if isinstance(data, str | os.PathLike) else data)]
    return changes | dict(overrides or {})


def _objective_as_keys(objective: Callable[..., Any]) -> dict[str, Any]:
    for kind in objectives.kinds():
        if type(objective) is objectives.load(kind) and dataclasses.is_dataclass(objective):
            values = dataclasses.asdict(objective)
            return {"objective.kind": kind, **{f"objective.{name}": value for name, value in values.items()}}
    return {"objective.kind": f"{CUSTOM}{type(objective).__qualname__}"}


def new_recipe(name: str | None, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with its changes.

    Where no recipe was named, an objective's kind means that kind's small recipe, and weights of ImageNet mean the
    recipe that goes on from such. Weights then bring their network along, if they say which it is. With another
    objective than its own a recipe no longer is what its `source` says; the source is then rewritten to say what it is.
    """
    if name is None:
        kind, init = changes.get("objective.kind"), changes.get("encoder.init") or ""
        of_imagenet = init.startswith(OF_IMAGENET)
        name = _unnamed(kind, of_imagenet=of_imagenet)
        if init:
            changes = {"encoder.name": "auto", "encoder.options": {}, **changes}
    content = files.read(name)
    _check_whole(name, content)
    try:
        changed = override(content, changes)
    except RecipeError:
        _check_keys_there(content)
        raise
    for part in ("objective", "method"):
        before, after = (_kind(c, part) for c in (content, changed))
        if before is not None and before != after and "source" in content:
            changed["source"] = _honest_source(name, content, changed)
    return check(changed)


def _check_whole(name: str, content: Mapping[str, Any]) -> None:
    """Refuses a recipe that is a part of one, before its flags and keys are put into what is not there."""
    missing = [section for section in Recipe.model_fields if section not in content]
    if not missing:
        return
    unknown = [f"{key!r}{nearest(str(key), missing)}" for key in content if key not in Recipe.model_fields]
    has = f"has {unknown[0]} and no" if unknown else "has no"
    raise RecipeError(
        f"{name} {has} {', '.join(missing)}: a recipe is complete in itself. `barlow pretrain --print-recipe` prints a "
        "whole one to change; or take a shipped one and set keys as flags (--objective.KEY VALUE)"
    )


def _check_keys_there(content: Mapping[str, Any]) -> None:
    """Says which key a recipe lacks, if it lacks one: a flag that has found no place for its value knows no better."""
    try:
        check(content)
    except RecipeError as error:
        if str(error).endswith(INCOMPLETE):
            raise


def _unnamed(kind: str | None, *, of_imagenet: bool) -> str:
    """The recipe of an objective, or of none in particular, from scratch or from weights that ImageNet gave."""
    if of_imagenet and (kind is None or f"continue_{kind}" in files.names()):
        return CONTINUED if kind is None else f"continue_{kind}"
    return DEFAULT if kind is None else _small_recipe(kind) or OF_NO_SMALL_RECIPE


def _small_recipe(kind: str) -> str | None:
    """The small recipe of an objective: the one of its name, or the last version that has it, small_moco_v2 of moco."""
    small = [name for name in files.names() if name.startswith("small_")]
    named = f"small_{kind}"
    if named in small:
        return named
    return max((name for name in small if _kind(files.read(name), "objective") == kind), default=None)


def _kind(content: Mapping[str, Any], part: str) -> Any:
    section = content.get(part)
    return section.get("kind") if isinstance(section, Mapping) else None


def _honest_source(name: str, content: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe is whose objective or method was replaced: nobody's published one."""
    differs = [
        f"{part}: {_kind(changed, part)}, in place of {_kind(content, part)}"
        for part in ("objective", "method")
        if _kind(content, part) != _kind(changed, part)
    ]
    return {
        "paper": f"none: no paper describes this run; it is the recipe {name} with another "
        + " and ".join(line.partition(":")[0] for line in differs),
        "code": "none",
        "differs": [*differs, f"views, networks, optimizer and schedule: as {name} has them, not tuned for this run"],
    }


def chosen_recipe(data: FoldersOrName | None = None, *, recipe: str | None = None, **flags: Any) -> Recipe:
    """The recipe that `pretrain` would start from, given the same arguments; `auto` is not resolved."""
    return new_recipe(recipe, requested(data, **flags))


@dataclasses.dataclass(frozen=True)
class Resumed:
    """A run that is gone on with."""

    recipe: Recipe
    budget: dict[str, Any]
    """What was asked for that makes the run another length: one of epochs, steps and minutes, and perhaps
    `schedule.steps`. Empty if it stays as it is."""


def resumed_recipe(
    asked: Mapping[str, Any] | None, resolved: Mapping[str, Any], name: str | None, changes: Mapping[str, Any]
) -> Resumed:
    """The recipe of a run that is gone on with. The command that began it may simply be repeated.

    Args:
        asked: the recipe that the run was begun with, as it was asked for. None: that is not known, as of runs of the
            first release; then `auto` may have become any value.
        resolved: the one that it has: what was `auto` is a value.
        name: a recipe that was named together with --resume, if one was.
        changes: what else was asked for.

    Raises:
        RecipeError: a change that would make it another run.
    """
    known, asked = asked is not None, resolved if asked is None else asked
    wanted = new_recipe(name, changes) if name is not None else check(override(asked, changes))
    before, now, values = flat(check(asked).as_dict()), flat(check(resolved).as_dict()), flat(wanted.as_dict())
    # What was asked for first, then what follows from it, and of that the kinds before their parameters.
    for key in sorted(values, key=lambda key: (key not in changes, not key.endswith("kind"))):
        if key.startswith("source."):  # the words that say where a recipe comes from
            continue
        if not known and _may_become(values[key], now.get(key)):
            continue
        if key not in (*FREE_ON_RESUME, *LENGTH) and values[key] not in (before.get(key), now.get(key)):
            raise RecipeError(
                f"--resume goes on with the run as it was, where {key} is {now.get(key)!r}; you gave {values[key]!r}. "
                "Leave the flag out, or start a new run in another folder"
            )
    free = {key: values[key] for key in FREE_ON_RESUME if key in values and values[key] != before.get(key)}
    if not wanted.data.sources:
        free.pop("data.sources", None)
    budget = {key: values[key] for key in LENGTH if values.get(key) is not None and values[key] != before.get(key)}
    return Resumed(check(override(resolved, free)), budget)


def _may_become(asked: Any, resolved: Any) -> bool:
    """Whether a value of a recipe can have become this one when what is `auto` was resolved."""
    if isinstance(asked, list) and isinstance(resolved, list):
        return len(asked) == len(resolved) and all(map(_may_become, asked, resolved))
    if isinstance(asked, Mapping):
        if not isinstance(resolved, Mapping):  # rates by the size of the batch become the rate of one
            return isinstance(resolved, float)
        return asked.keys() == resolved.keys() and all(_may_become(asked[key], resolved[key]) for key in asked)
    return bool(asked == "auto" or asked == resolved)


def key_called(word: str) -> str | None:
    """The key of the small recipes whose last part is a word: `optim.weight_decay` for `weight-decay`; None if none."""
    last = word.lstrip("-").replace("-", "_")
    keys = {key for name in files.names() if name.startswith("small_") for key in flat(files.read(name))}
    return next((key for key in sorted(keys) if key.rpartition(".")[2] == last), None)


def shipped_name(stored: Mapping[str, Any]) -> str | None:
    """The small recipe that a run is of: as it is shipped, whatever the images and the machine made of each `auto`.

    Args:
        stored: what its recipe.yaml holds.

    Returns:
        None for any other recipe, and for one that is no recipe any more.
    """
    try:
        given = check(stored).as_dict()
    except RecipeError:
        return None
    kind = given["objective"]["kind"]  # checking a recipe takes a while, so those that cannot be it are left out first
    likely = [n for n in files.names() if "/" not in n and files.read(n)["objective"]["kind"] == kind]
    return next((name for name in likely if _is_of(_as_shipped(name), given)), None)


@functools.cache
def _as_shipped(name: str) -> dict[str, Any]:
    """A recipe that ships with the package, checked; not to be changed."""
    return check(files.read(name)).as_dict()


def _is_of(shipped: Any, given: Any, place: str = "") -> bool:
    if shipped == "auto" or place in NOT_OF_A_RECIPE:
        return True
    if isinstance(shipped, Mapping) and isinstance(given, Mapping):
        keys = set(shipped)
        if place == "encoder" and shipped["name"] == "auto":  # the weights say all that the network is
            keys = keys - {"stem", "zero_init_last", "options"}
            given = {key: given[key] for key in keys}
        inner = f"{place}." if place else ""
        return keys == set(given) and all(_is_of(shipped[key], given[key], f"{inner}{key}") for key in keys)
    if isinstance(shipped, list | tuple) and isinstance(given, list | tuple):
        return len(shipped) == len(given) and all(map(_is_of, shipped, given))
    return bool(shipped == given)
