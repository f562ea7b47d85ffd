"""Recipes are data: a complete description of a run, checked before anything starts.

A recipe is YAML with the sections of `Recipe`; the ones that ship lie in `barlow/recipes/`: the small ones, and in a
folder for each set of images the published ones. Values that depend on the user's data or machine may say `auto`, and
a rate may be a table by batch size; `barlow.resolve` replaces each by a value and a reason. Objectives, view ops and
schedules are the plain dataclasses that implement them, chosen by `kind`; they do not know pydantic.
Overrides (`objective.redundancy`) are applied before the check. Keys that came later have defaults with which an older
file means what it meant.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from barlow import objectives
from barlow.optim import schedules
from barlow.views import ops

Auto = Literal["auto"]
_AUTO_BRANCH = "literal['auto']"
"""What pydantic calls it in the place of an error."""


class RecipeError(ValueError):
    """Something in a recipe is not allowed; one line: what was given, what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Section):
    """Where the recipe comes from, and how it differs from there."""

    paper: str
    code: str
    differs: list[str]


class Data(_Section):
    """Which images, held how."""

    sources: list[str]
    split: str
    image_size: Annotated[int, Field(ge=4, le=2048)] | Auto
    channels: Annotated[int, Field(ge=1, le=16)] | Auto
    executor: Literal["in_memory", "streaming", "auto"]
    working_size: Annotated[int, Field(ge=4, le=4096)] | Auto
    mean: list[float] | Auto
    std: list[Annotated[float, Field(gt=0)]] | Auto
    max_bad: Annotated[float, Field(ge=0, le=1)]
    max_pixels: Annotated[int, Field(ge=1)]
    workers: Annotated[int, Field(ge=0)] | Auto


class Encoder(_Section):
    """The network whose output is kept: any timm name, or `custom:CLASS` for a module given in Python."""

    name: str
    stem: Literal["as_is", "small", "small_pooled", "strided", "auto"]
    zero_init_last: bool
    options: dict[str, Any]
    init: str | None


class Projector(_Section):
    """The head that training uses and the result does not keep."""

    widths: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    hidden_bias: bool
    last_bias: bool
    batch_norm: bool = True
    """Whether the hidden layers are normalised."""


class Method(_Section):
    """Which networks, and what batch norm sees: each view in a pass of its own, or all together in the projector."""

    kind: Literal["siamese"]
    projector: Projector
    batch_norm_sees: Literal["each_view", "all_views"]


_Rate = Annotated[float, Field(gt=0)]
_Rates = Annotated[dict[Annotated[int, Field(ge=2)], _Rate], Field(min_length=1)]
_NUMBER, _TABLE = "number", "table of rates by batch size"
_RateOrRates = Annotated[
    Annotated[_Rate, Tag(_NUMBER)] | Annotated[_Rates, Tag(_TABLE)],
    Discriminator(lambda given: _TABLE if isinstance(given, Mapping) else _NUMBER),
]


class Optim(_Section):
    """AdamW, Adam, SGD or LARS, and its rates, which are per 256 images: peak = lr_per_256 × batch_size / 256."""

    kind: Literal["adamw", "adam", "sgd", "lars"]
    lr_per_256: _RateOrRates
    """A number, or the rates that were tuned for some batch sizes: {256: 0.4, 512: 0.3}; see `rate_per_256`."""
    vectors_lr_per_256: _Rate | None = None
    """Of the parameters of one dimension (biases, scales and shifts of norms); null: the same as of the rest."""
    weight_decay: Annotated[float, Field(ge=0)]
    exclude_1d: bool
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    trust: Annotated[float, Field(gt=0)] = 0.001
    """LARS's trust coefficient."""
    clip: bool = False
    """Whether LARS's trust ratio is clipped."""
    loss_weight: Annotated[float, Field(gt=0)] = 1.0
    """The gradient's factor: for reference code that divides the gradient by the number of GPUs, 1/16 for 16."""

    def rate_per_256(self, batch_size: int) -> float:
        """The rate for 256 images at a batch size.

        Convention: that of the table at its batch sizes, between two of them linear in log₂ of the batch size, outside
        that of the nearest.
        """
        if not isinstance(self.lr_per_256, Mapping):
            return self.lr_per_256
        (below, low), (above, high) = self._neighbours(batch_size)
        if low == high:
            return low
        part = math.log2(batch_size / below) / math.log2(above / below)
        return round(low + (high - low) * part, 6)

    def why_rate(self, batch_size: int) -> str | None:
        """Where the rate for 256 images comes from, if neither the recipe nor its table has it as it is."""
        if not isinstance(self.lr_per_256, Mapping) or batch_size in self.lr_per_256:
            return None
        (below, low), (above, high) = self._neighbours(batch_size)
        if below == above:
            return f"that of batch {below}, the nearest for which the recipe has one"
        return f"between the recipe's {low:g} for batch {below} and {high:g} for {above}"

    def _neighbours(self, batch_size: int) -> list[tuple[int, float]]:
        assert isinstance(self.lr_per_256, Mapping)
        table = self.lr_per_256
        below = max((batch for batch in table if batch <= batch_size), default=min(table))
        above = min((batch for batch in table if batch >= batch_size), default=max(table))
        return [(below, table[below]), (above, table[above])]

    def peak(self, batch_size: int) -> float:
        """The peak rate of a run with this batch size."""
        return self.rate_per_256(batch_size) * batch_size / 256

    def vectors_peak(self, batch_size: int) -> float | None:
        """The peak rate of the parameters of one dimension; None: that of the rest."""
        return None if self.vectors_lr_per_256 is None else self.vectors_lr_per_256 * batch_size / 256


class Schedule(_Section):
    """The rate over the run: a linear warm-up, then a cosine to `floor` × peak, or drops. One unit of warm-up only."""

    kind: Literal["warmup_cosine", "step_drops"]
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] | None = None
    warmup_epochs: Annotated[float, Field(ge=0)] | None = None
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    warmup_from: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Rate of the first update as a part of the peak, of a warmup_cosine."""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    drops_at_fraction: list[Annotated[float, Field(gt=0, lt=1)]] | None = None
    drops_at_epochs: list[Annotated[float, Field(gt=0)]] | None = None
    drops_at_steps: list[Annotated[int, Field(gt=0)]] | None = None
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.2

    @model_validator(mode="after")
    def _one_unit(self) -> "Schedule":
        for group in _ONE_OF["schedule"]:
            units = [name for name in group if getattr(self, name) is not None]
            if len(units) > 1:
                raise ValueError(f"{' and '.join(units)} are given; keep one")
        if self.kind == "step_drops" and not (self.drops_at_fraction or self.drops_at_epochs or self.drops_at_steps):
            raise ValueError("step_drops needs one of drops_at_fraction, drops_at_epochs, drops_at_steps")
        return self

    def build(self, steps: int, steps_per_epoch: int) -> Callable[[int, int], float]:
        """The schedule as a function of (step, total), its units turned into steps.

        A warm-up that is longer than the run is cut to all of it but the last step.
        """
        warmup = min(self.warmup(steps, steps_per_epoch), max(steps - 1, 0))
        if self.kind == "warmup_cosine":
            return schedules.WarmupCosine(warmup_steps=warmup, floor=self.floor, start=self.warmup_from)
        drops = list(self.drops_at_steps or [])
        drops += [round(f * steps) for f in self.drops_at_fraction or []]
        drops += [round(e * steps_per_epoch) for e in self.drops_at_epochs or []]
        return schedules.StepDrops(warmup_steps=warmup, drops_at=tuple(drops), factor=self.factor)

    def warmup(self, steps: int, steps_per_epoch: int) -> int:
        """Steps of warm-up, as the recipe has it."""
        if self.warmup_fraction is not None:
            return round(self.warmup_fraction * steps)
        if self.warmup_epochs is not None:
            return round(self.warmup_epochs * steps_per_epoch)
        return self.warmup_steps or 0


class Train(_Section):
    """The budget (one of epochs, steps, minutes) and how it is spent."""

    batch_size: Annotated[int, Field(ge=2)] | Auto
    epochs: Annotated[float, Field(gt=0)] | None
    steps: Annotated[int, Field(ge=1)] | None
    minutes: Annotated[float, Field(gt=0)] | None
    device: str
    precision: Literal["bf16", "float32", "auto"]
    channels_last: bool
    checkpoint_minutes: Annotated[float, Field(gt=0)] | None
    checkpoint_steps: Annotated[int, Field(ge=1)] | None
    log_steps: Annotated[int, Field(ge=1)]
    rows_in_memory: Annotated[int, Field(ge=2)] | None = None
    """Images of the batch whose activations are kept at a time; null: all."""
    activation_checkpointing: bool = False
    """Whether activations are computed again for the backward pass, in place of being kept."""

    @model_validator(mode="after")
    def _one_budget(self) -> "Train":
        given = [name for name in ("epochs", "steps", "minutes") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of epochs, steps, minutes; given: {', '.join(given) or 'none'}")
        if self.rows_in_memory is not None and self.activation_checkpointing:
            raise ValueError(
                f"rows_in_memory {self.rows_in_memory} and activation_checkpointing are given, two ways to save "
                "the same memory; keep one (the other is null, or false)"
            )
        return self


class Recipe(_Section):
    """A complete description of a run."""

    source: Source
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    data: Data
    views: Annotated[list[Annotated[list[dict[str, Any]], Field(min_length=1)]], Field(min_length=1)]
    encoder: Encoder
    method: Method
    objective: dict[str, Any]
    optim: Optim
    schedule: Schedule
    train: Train

    @field_validator("objective")
    @classmethod
    def _known_objective(cls, content: dict[str, Any]) -> dict[str, Any]:
        if str(content.get("kind", "")).startswith("custom:"):
            return content
        return _plain(_build(content, {kind: objectives.load for kind in objectives.kinds()}, "objective"))

    @field_validator("views")
    @classmethod
    def _known_ops(cls, views: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        table = {kind: ops.OPS.__getitem__ for kind in ops.OPS}

        def whole(op: dict[str, Any], place: str) -> dict[str, Any]:
            if op.get("size") != "auto":
                return _plain(_build(op, table, place))
            return _plain(_build(op | {"size": 1}, table, place)) | {
                "size": "auto"
            }  # any side will do to check the rest

        return [[whole(op, f"views.{v}.{o}") for o, op in enumerate(view)] for v, view in enumerate(views)]

    def build_objective(self) -> Callable[..., Any]:
        """The objective as its dataclass."""
        return _build(self.objective, {kind: objectives.load for kind in objectives.kinds()}, "objective")[1]

    def build_views(self) -> list[list[ops.Op]]:
        """The ops of each view, in order. The crop's size must be resolved."""
        table = {kind: ops.OPS.__getitem__ for kind in ops.OPS}
        return [
            [_build(op, table, f"views.{v}.{o}")[1] for o, op in enumerate(view)] for v, view in enumerate(self.views)
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, in the order of the sections, ready for YAML."""
        content = self.model_dump(mode="json", exclude_none=False)
        if isinstance(rates := self.optim.lr_per_256, Mapping):
            content["optim"]["lr_per_256"] = dict(rates)  # JSON would make text of the batch sizes
        return content


def _build(content: Mapping[str, Any], table: Mapping[str, Callable[[str], type]], place: str) -> tuple[str, Any]:
    """(kind, instance) of a `{kind: ..., **parameters}` section, through pydantic's checks of the plain dataclass."""
    parameters = dict(content)
    kind = parameters.pop("kind", None)
    if kind not in table:
        raise ValueError(f"{place}.kind is {kind!r}; allowed: {', '.join(table)}{_nearest(str(kind), table)}")
    cls = table[kind](kind)
    names = [field.name for field in dataclasses.fields(cls)]
    for name in parameters:
        if name not in names:
            raise ValueError(
                f"unknown key {place}.{name}{_nearest(name, names)}; keys of {kind}: {', '.join(names) or 'none'}"
            )
    try:
        checked: Any = pydantic.TypeAdapter(cls).validate_python(parameters)
    except pydantic.ValidationError as error:
        raise ValueError(_first_problem(error, place)) from error
    return kind, checked


def _plain(built: tuple[str, Any]) -> dict[str, Any]:
    return {"kind": built[0], **dataclasses.asdict(built[1])}


def _nearest(name: str, allowed: Any) -> str:
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def names() -> list[str]:
    """The recipes that ship with the package: the small ones, then those in folders, as FOLDER/NAME."""
    found = []
    for entry in (resources.files("barlow") / "recipes").iterdir():
        files = {f"{entry.name}/{file.name}" for file in entry.iterdir()} if entry.is_dir() else {entry.name}
        found += [name.removesuffix(".yaml") for name in files if name.endswith(".yaml")]
    return sorted(found, key=lambda name: ("/" in name, name))


def read(name_or_path: str) -> dict[str, Any]:
    """The raw content of a shipped recipe or of a YAML file.

    Raises:
        RecipeError: neither exists, or the file is not YAML with sections.
    """
    if name_or_path in names():
        text = (resources.files("barlow") / "recipes" / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    elif Path(name_or_path).is_file():
        text = Path(name_or_path).read_text(encoding="utf-8")
    else:
        raise RecipeError(
            f"unknown recipe {name_or_path!r}{_nearest(name_or_path, names())}; "
            f"give one of the {len(names())} that `barlow list recipes` shows, or the path of a YAML file"
        )
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{name_or_path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{name_or_path} holds no recipe: expected sections such as data, views, objective")
    return content


def override(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The content with dotted keys replaced: `{"optim.kind": "sgd"}`. Numbers index lists: `views.0.1.p`.

    A changed `objective.kind` drops the parameters of the old kind. A budget replaces the other budgets, and a unit of
    warm-up or drops the other units. Setting a key to the same value changes nothing. The order of keys is of no
    matter.

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
        if dotted == "objective.kind" and place.get("kind") != value:
            place.clear()
        if value is not None:
            _drop_other_units(place, last, parts[0])
        place[int(last) if last.isdigit() else last] = value  # a batch size, in a table of rates
    return result


_ONE_OF = {
    "train": (("epochs", "steps", "minutes"), ("checkpoint_minutes", "checkpoint_steps")),
    "schedule": (
        ("warmup_fraction", "warmup_epochs", "warmup_steps"),
        ("drops_at_fraction", "drops_at_epochs", "drops_at_steps"),
    ),
}


def _check_units(changes: Mapping[str, Any]) -> None:
    for section, groups in _ONE_OF.items():
        for group in groups:
            given = [key for name in group if changes.get(key := f"{section}.{name}") is not None]
            if len(given) > 1:
                raise RecipeError(f"{' and '.join(given)} are given; keep one")


def _drop_other_units(section: dict[str, Any], key: str, section_name: str) -> None:
    for group in _ONE_OF.get(section_name, ()):
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
    if not part.isdigit() or int(part) >= len(place):
        raise RecipeError(f"unknown key {dotted}: expected a number from 0 to {len(place) - 1} in place of {part!r}")
    return int(part)


def _step_into(place: Any, part: str, dotted: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, part, dotted)]
    if not isinstance(place, dict):
        raise RecipeError(f"unknown key {dotted}: what stands before .{part} is a value, not a section")
    if part not in place:
        raise RecipeError(f"unknown key {dotted}{_nearest(part, place)}; allowed here: {', '.join(place)}")
    return place[part]


def check(content: Mapping[str, Any]) -> Recipe:
    """The recipe, or the first thing that is wrong with it.

    Raises:
        RecipeError: one line that names the key, what was given and what is allowed.
    """
    try:
        return Recipe.model_validate(content)
    except pydantic.ValidationError as error:
        raise RecipeError(_first_problem(error)) from error


def _first_problem(error: pydantic.ValidationError, within: str = "") -> str:
    problems = error.errors()
    problem = problems[0]
    if problem["type"] == "missing":  # a misspelt key is both missing and unknown; what was written is the better name
        unknown = [p for p in problems if p["type"] == "extra_forbidden" and p["loc"][:-1] == problem["loc"][:-1]]
        problem = (unknown or problems)[0]
    loc = [str(part) for part in problem["loc"]]
    # pydantic also lists which branch of a union it tried: int, list[float], constrained-int, literal['auto']
    tried = [
        part
        for part in loc
        if part in ("int", "float", _NUMBER, _TABLE) or "[" in part or part.startswith("constrained-")
    ]
    place = ".".join([*([within] if within else []), *(part for part in loc if part not in tried)])
    if problem["type"] == "extra_forbidden":
        allowed = _fields_at(problem["loc"][:-1])
        return f"unknown key {place}{_nearest(loc[-1], allowed)}; allowed here: {', '.join(sorted(allowed))}"
    if problem["type"] == "missing":
        return f"{place} is missing; a recipe is complete in itself"
    if problem["type"] == "value_error":
        message = str(problem["ctx"]["error"])
        return message if message.startswith((place, "unknown key")) else f"{place}: {message}"
    branches = {other["loc"] for other in problems}
    may_be_auto = any((*problem["loc"][:depth], _AUTO_BRANCH) in branches for depth in range(len(loc)))
    instead = f", or a {_TABLE}" if _NUMBER in tried else ", or auto" if may_be_auto else ""
    return f"{place} is {problem['input']!r}; {problem['msg'][0].lower() + problem['msg'][1:]}{instead}"


def _fields_at(loc: Sequence[Any]) -> list[str]:
    model: Any = Recipe
    for part in loc:
        field = model.model_fields.get(part) if isinstance(model, type) and issubclass(model, BaseModel) else None
        model = field.annotation if field else None
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def as_yaml(recipe: Recipe, header: str = "") -> str:
    """The recipe as YAML text below `header` (comment lines)."""
    return header + yaml.safe_dump(
        recipe.as_dict(), sort_keys=False, width=118, default_flow_style=None, allow_unicode=True
    )
