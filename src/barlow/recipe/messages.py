"""One line for each thing that can be wrong with a recipe: the key, what was given, what is allowed."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pydantic
from pydantic import BaseModel

NUMBER, TABLE = "number", "table of rates by batch size"
"""The two forms of a learning rate in a recipe, as messages call them."""

INCOMPLETE = "is missing; a recipe is complete in itself"

_AUTO_BRANCH = "literal['auto']"
"""What pydantic calls this branch of a union in the place of an error."""


class RecipeError(ValueError):
    """Something in a recipe is not allowed. The message is one line: what was given, what is allowed."""


def nearest(name: str, allowed: Iterable[Any]) -> str:
    """` (did you mean 'x'?)`, or nothing where no allowed name is near."""
    close = difflib.get_close_matches(name, [str(other) for other in allowed], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def first_problem(error: pydantic.ValidationError, model: type[BaseModel] | None = None, within: str = "") -> str:
    """The first thing that pydantic found, in our words.

    Args:
        error: what pydantic raised.
        model: the recipe's class, which knows the keys allowed beside an unknown one.
        within: dotted place of what was checked, if that was a part of a recipe.
    """
    problems = error.errors()
    problem = problems[0]
    if problem["type"] == "missing":  # a misspelt key is both missing and unknown; what was written is the better name
        unknown = [p for p in problems if p["type"] == "extra_forbidden" and p["loc"][:-1] == problem["loc"][:-1]]
        problem = (unknown or problems)[0]
    loc = [str(part) for part in problem["loc"]]
    tried = [part for part in loc if _names_a_branch(part)]
    place = ".".join([*([within] if within else []), *(part for part in loc if part not in tried)])
    if problem["type"] == "extra_forbidden":
        allowed = _fields_at(model, problem["loc"][:-1])
        return f"unknown key {place}{nearest(loc[-1], allowed)}; allowed here: {', '.join(sorted(allowed))}"
    if problem["type"] == "missing":
        return f"{place} {INCOMPLETE}"
    if problem["type"] == "value_error":
        message = str(problem["ctx"]["error"])
        return message if message.startswith((place, "unknown key")) else f"{place}: {message}"
    branches = {other["loc"] for other in problems}
    may_be_auto = any((*problem["loc"][:depth], _AUTO_BRANCH) in branches for depth in range(len(loc)))
    instead = f", or a {TABLE}" if NUMBER in tried else ", or auto" if may_be_auto else ""
    return f"{place} is {problem['input']!r}; {problem['msg'][0].lower() + problem['msg'][1:]}{instead}"


def _names_a_branch(part: str) -> bool:
    """Whether a part of an error's place is no key but the branch of a union that pydantic tried, such as int."""
    return part in ("int", "float", NUMBER, TABLE) or "[" in part or part.startswith("constrained-")


def _fields_at(model: Any, loc: Sequence[Any]) -> list[str]:
    for part in loc:
        field = model.model_fields.get(part) if isinstance(model, type) and issubclass(model, BaseModel) else None
        model = field.annotation if field else None
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def check_keys(
    cls: type, content: Mapping[str, Any], place: str, kind: str, owners: Callable[[str], str] = lambda name: ""
) -> None:
    """Refuses an unknown key of a dataclass, or of one inside it. (pydantic would let them pass.)

    Args:
        cls: the dataclass.
        content: what is given for it.
        place: dotted place of the content in the recipe.
        kind: what messages call the dataclass.
        owners: says of a key which other kinds have it.
    """
    fields = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    for name, value in content.items():
        if name not in names:
            meant = nearest(str(name), [*names, "kind"])
            raise ValueError(
                f"unknown key {place}.{name}{meant}; keys of {kind}: {', '.join(names) or 'none'}"
                + ("" if meant else owners(str(name)))
            )
        inner = next((t for t in _alternatives(fields[name]) if dataclasses.is_dataclass(t)), None)
        if isinstance(inner, type) and isinstance(value, Mapping):
            check_keys(inner, value, f"{place}.{name}", name)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
