"""What a recipe may say, and the check of all of it before anything starts.

Values that depend on the user's images or machine may say `auto`, and a learning rate may be a table by batch size;
`barlow.planning.plan` replaces each by a value and a reason. Objectives, methods, view ops and groups of parameters are
the plain dataclasses that implement them, chosen by `kind`; they do not know pydantic.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import pydantic
from pydantic import Field, field_validator

from barlow import methods, objectives
from barlow.recipe.messages import RecipeError, check_keys, first_problem, nearest
from barlow.recipe.sections import (
    DataSection,
    EncoderSection,
    OptimSection,
    ScheduleSection,
    Section,
    SourceSection,
    TrainSection,
)
from barlow.size import size_of
from barlow.views import ops
from barlow.views.each_tile import EachTile

RELATIVE_SIZES = {"auto": 1.0, "half": 0.5}
"""Words for the size of a crop, and what part of data.image_size each means. Small crops beside large ones are half."""

EACH_TILE = "each_tile"
"""Key beside those of any op: whether it works on each tile of a view by itself."""

CUSTOM = "custom:"
"""How the kind of an objective, or the name of an encoder, begins that was given in Python."""


class Recipe(Section):
    """A complete description of a run."""

    source: SourceSection
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    data: DataSection
    views: Annotated[list[Annotated[list[dict[str, Any]], Field(min_length=1)]], Field(min_length=1)]
    encoder: EncoderSection
    method: dict[str, Any]
    objective: dict[str, Any]
    optim: OptimSection
    schedule: ScheduleSection
    train: TrainSection

    @field_validator("method")
    @classmethod
    def _known_method(cls, content: dict[str, Any]) -> dict[str, Any]:
        return _plain(content, _instance(content, _table(methods), "method"))

    @field_validator("objective")
    @classmethod
    def _known_objective(cls, content: dict[str, Any]) -> dict[str, Any]:
        if str(content.get("kind", "")).startswith(CUSTOM):
            return content
        return _plain(content, _instance(content, _table(objectives), "objective"))

    @field_validator("views")
    @classmethod
    def _known_ops(cls, views: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        return [[op for op, _ in _view(view, f"views.{v}")] for v, view in enumerate(views)]

    def build_objective(self) -> Any:
        """The objective's dataclass. What has state is built from it: `barlow.objectives.built`."""
        return _instance(self.objective, _table(objectives), "objective")

    def build_method(self) -> Any:
        """The method's dataclass; its `build` makes the networks."""
        return _instance(self.method, _table(methods), "method")

    @property
    def kept(self) -> str | None:
        """Which of several encoders the run keeps, in words; None where there is one."""
        says = getattr(self.build_method(), "kept", None)
        return None if says is None else str(says(self.encoder.name))

    def build_views(self) -> list[list[ops.Op]]:
        """The ops of each view, in order. The crop's size must be resolved."""
        return [[op for _, op in _view(view, f"views.{v}")] for v, view in enumerate(self.views)]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, in the order of the sections, ready for YAML."""
        content = self.model_dump(mode="json", exclude_none=False)
        for key in ("lr_per_256", "vectors_lr_per_256"):
            if isinstance(rates := getattr(self.optim, key), Mapping):
                content["optim"][key] = dict(rates)  # JSON would make text of the batch sizes
        return content


def check(content: Mapping[str, Any]) -> Recipe:
    """The recipe, or the first thing that is wrong with it.

    Raises:
        RecipeError: one line that names the key, what was given and what is allowed.
    """
    try:
        return Recipe.model_validate(content)
    except pydantic.ValidationError as error:
        raise RecipeError(first_problem(error, Recipe)) from error


_Table = Mapping[str, Callable[[str], type]]


def _table(package: Any) -> _Table:
    return {kind: package.load for kind in package.kinds()}


def _instance(content: Mapping[str, Any], table: _Table, place: str) -> Any:
    """The dataclass of a `{kind: ..., **parameters}` section, through pydantic's checks of its fields."""
    parameters = dict(content)
    kind = parameters.pop("kind", None)
    if "kind" not in content:
        misspelt = next((name for name in content if nearest(str(name), ["kind"])), None)
        if misspelt is not None:
            raise ValueError(f"unknown key {place}.{misspelt} (did you mean 'kind'?); allowed: {', '.join(table)}")
    if kind not in table:
        raise ValueError(f"{place}.kind is {kind!r}; allowed: {', '.join(table)}{nearest(str(kind), table)}")
    cls = table[kind](kind)

    def owners(name: str) -> str:
        others = [other for other in table if name in {field.name for field in dataclasses.fields(table[other](other))}]
        instead = f", --objective {others[0]}" if others and place == "objective" else ""
        return f" ({name} is one of {', '.join(others)}{instead})" if others else ""

    check_keys(cls, parameters, place, kind, owners)
    try:
        return _checker(cls).validate_python(parameters)
    except pydantic.ValidationError as error:
        raise ValueError(first_problem(error, within=place)) from error


@functools.cache
def _checker(cls: type) -> "pydantic.TypeAdapter[Any]":
    """What checks a dataclass's fields. To build one takes far longer than to check with it, and a command checks a
    recipe several times."""
    return pydantic.TypeAdapter(cls)


def _view(view: list[dict[str, Any]], place: str) -> list[tuple[dict[str, Any], ops.Op]]:
    """The ops of a view: each as plain data with all its keys, and as what it is.

    `each_tile: true`, beside the keys of an op, has it work on every tile that an op before it laid.
    """
    found: list[tuple[dict[str, Any], ops.Op]] = []
    tiling = None
    for o, content in enumerate(view):
        of_op = {key: value for key, value in content.items() if key != EACH_TILE}
        plain, op = _op(of_op, f"{place}.{o}")
        if not isinstance(each := content.get(EACH_TILE, False), bool):
            raise ValueError(f"{place}.{o}.{EACH_TILE} is {each!r}: give true or false")
        if each:
            if tiling is None:
                raise ValueError(
                    f"{place}.{o}.{EACH_TILE}: no op before it lays tiles; put tiles before it, or leave it out"
                )
            try:
                plain, op = plain | {EACH_TILE: True}, EachTile(op, tiling)
            except ValueError as error:
                raise ValueError(f"{place}.{o}: {error}") from None
        tiling = op.tiling() or tiling
        found.append((plain, op))
    return found


def _op(content: dict[str, Any], place: str) -> tuple[dict[str, Any], ops.Op]:
    """An op as plain data with all its keys, and as what it is."""
    table = {kind: ops.OPS.__getitem__ for kind in ops.OPS}
    if isinstance(size := content.get("size"), str) and size in RELATIVE_SIZES:
        op = _instance(content | {"size": 1}, table, place)  # any side will do to check the rest
        return _plain(content, op) | {"size": size}, op
    if "size" in content:
        content = content | {"size": size_of(size, f"{place}.size", otherwise=", or auto, or half (of auto)")}
    op = _instance(content, table, place)
    return _plain(content, op), op


def _plain(content: Mapping[str, Any], instance: Any) -> dict[str, Any]:
    return {"kind": content["kind"], **dataclasses.asdict(instance)}
