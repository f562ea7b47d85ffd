"""Dotted keys put into a recipe: `{"optim.kind": "sgd"}`, and numbers for the items of lists: `views.0.1.p`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from barlow import methods
from barlow.recipe.messages import RecipeError, nearest
from barlow.recipe.sections import ONE_OF


def override(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The content with dotted keys replaced: `{"optim.kind": "sgd"}`. Numbers index lists: `views.0.1.p`.

    Another `objective.kind` drops the parameters of the old kind. Another `method.kind` drops those that the new kind
    does not have: a projector stays. A budget replaces the other budgets: with `train.steps`, `train.minutes` becomes
    null. So does a unit of warm-up or of drops. Setting a key to the value that it has changes nothing. The order of
    the keys does not matter.

    Raises:
        RecipeError: no such place, or two keys of which one excludes the other.
    """
    _check_units(changes)
    result = _copied(content)
    for dotted, value in sorted(changes.items(), key=lambda item: not item[0].endswith("kind")):
        parts = dotted.split(".")
        place: Any = result
        for part in parts[:-1]:
            place = _step_into(place, part, dotted)
        last: Any = parts[-1]
        if isinstance(place, list):
            place[_index(place, last, dotted)] = value
            continue
        if not isinstance(place, dict):
            raise RecipeError(f"unknown key {dotted}: {'.'.join(parts[:-1])} is a value, not a section")
        if dotted in ("objective.kind", "method.kind") and place.get("kind") != value:
            _drop_parameters(place, parts[0], value)
        if value is not None:
            _drop_other_units(place, last, parts[0])
        place[int(last) if last.isdecimal() else last] = value  # a batch size, in a table of rates
    return result


def _drop_parameters(section: dict[str, Any], part: str, kind: Any) -> None:
    """What a section held for its old kind, where the new kind has no such parameter."""
    kept: set[str] = set()
    if part == "method" and kind in methods.kinds():
        kept = {field.name for field in dataclasses.fields(methods.load(kind))}
    for name in section.keys() - kept:
        del section[name]


def _check_units(changes: Mapping[str, Any]) -> None:
    for section, groups in ONE_OF.items():
        for group in groups:
            given = [key for name in group if changes.get(key := f"{section}.{name}") is not None]
            if len(given) > 1:
                raise RecipeError(f"{' and '.join(given)} are given; keep one")


def _drop_other_units(section: dict[str, Any], key: str, section_name: str) -> None:
    for group in ONE_OF.get(section_name, ()):
        if key in group:
            for other in group:
                if other in section:
                    section[other] = None


def _copied(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _copied(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_copied(value) for value in content]
    return content


def _index(place: Sequence[Any], part: str, dotted: str) -> int:
    if not place:
        raise RecipeError(f"unknown key {dotted}: the list is empty; give it whole")
    if not part.isdecimal() or int(part) >= len(place):
        raise RecipeError(f"unknown key {dotted}: expected a number from 0 to {len(place) - 1} in place of {part!r}")
    return int(part)


def _step_into(place: Any, part: str, dotted: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, part, dotted)]
    if not isinstance(place, dict):
        raise RecipeError(f"unknown key {dotted}: what stands before .{part} is a value, not a section")
    if part not in place:
        raise RecipeError(f"unknown key {dotted}{nearest(part, place)}; allowed here: {', '.join(place)}")
    return place[part]


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A table of tables as one of dotted keys. Lists stay as they are."""
    values: dict[str, Any] = {}
    for key, value in content.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return values
