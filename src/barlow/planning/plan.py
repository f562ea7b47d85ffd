"""A plan: a recipe in which nothing is `auto` any more.

It is written into the run's recipe.yaml, and a resumed run reads it from there.
"""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from barlow import objectives
from barlow.data.decoding import ValueRange
from barlow.nets.preprocessing import Preprocessing
from barlow.nets.stems import sees_lightness, takes_small_stem
from barlow.planning import choices, facts
from barlow.recipe import schema
from barlow.recipe.changes import override
from barlow.recipe.messages import RecipeError
from barlow.recipe.schema import CUSTOM, Recipe
from barlow.size import Size, scaled


@dataclass(frozen=True)
class Plan:
    """A recipe in which nothing is `auto` any more, and its resolved values as what they are."""

    recipe: Recipe
    channels: int
    image_size: Size
    centre_size: Size
    working_size: Size
    executor: str
    workers: int
    mean: list[float]
    std: list[float]
    value_range: ValueRange | None
    batch_size: int
    precision: str
    stem: str
    candidates: int
    """Images of the source, readable or not: ids are below it."""
    classes: int | None = None
    """Of the images' labels, where the objective is built for so many."""

    @property
    def peak(self) -> float:
        """The peak learning rate."""
        return self.recipe.optim.peak(self.batch_size)

    @property
    def preprocessing(self) -> Preprocessing:
        """How the encoder wants its images."""
        return preprocessing_of(self.recipe)

    def widths(self) -> list[tuple[int, ...]]:
        """Widths of the tensors of each group that the objective compares.

        Raises:
            RecipeError: the recipe has too few views for its method.
        """
        groups: list[tuple[int, ...]] = self.recipe.build_method().widths(len(self.recipe.views))
        if not groups:
            raise RecipeError(
                f"the method {self.recipe.method['kind']} needs two views or more, and the recipe has "
                f"{len(self.recipe.views)}: add one to its views"
            )
        return groups

    def section_of(self, given: Any = None) -> Any:
        """The objective's dataclass: the recipe's, or what was given in Python.

        Raises:
            RecipeError: the recipe's was given in Python, and has to be given again.
        """
        if given is not None:
            return given
        if (kind := self.recipe.objective["kind"]).startswith(CUSTOM):
            raise RecipeError(f"the objective is {kind}: pass the object in Python, pretrain(objective=...)")
        return self.recipe.build_objective()

    def expected(self, given: Any = None) -> Callable[[int, int, int], tuple[float | None, float | None]]:
        """What is known beforehand of the loss of an objective that was given in Python, or of the recipe's."""
        return partial(objectives.expected, self.section_of(given), images=self.candidates)

    def new_objective(self, given: Any = None) -> Any:
        """The objective as a step calls it, with first state of its own where it has some.

        Args:
            given: an objective that was given in Python. A module is copied, so that the caller's stays as it is.
        """
        section = self.section_of(given)
        if isinstance(section, torch.nn.Module):
            return copy.deepcopy(section)
        if not objectives.has_state(section):
            return section
        return objectives.built(
            section,
            width=self.widths()[0][0],
            images=self.candidates,
            classes=self.classes,
            seed=self.recipe.seed,
            maps=getattr(self.recipe.build_method(), "maps", None),
        )


def preprocessing_of(recipe: Recipe) -> Preprocessing:
    """How the encoder of a resolved recipe wants its images."""
    data: Any = recipe.data  # in which nothing is `auto`
    return Preprocessing(
        size=data.image_size if data.centre_size is None else data.centre_size,
        crop_ratio=1.0,
        interpolation="bicubic",
        mean=tuple(data.mean),
        std=tuple(data.std),
        channels=data.channels,
        value_range=data.value_range,
    )


def resolved(
    chosen: Recipe,
    machine: facts.Machine,
    *,
    usable: int,
    mean_and_std: tuple[list[float], list[float]],
    image_size: Size,
    value_range: ValueRange | None = None,
    **values: Any,
) -> Plan:
    """The recipe with every `auto` replaced, and the values beside it."""
    chosen = _with_method_for(chosen, image_size)
    train, encoder = chosen.train, chosen.encoder
    batch = choices.batch_size(train.batch_size, usable, _least_rows(chosen))
    precision = choices.precision(train.precision, image_size, machine)
    stem = choices.stem(encoder.stem, image_size, takes_small_stem(encoder.name))
    mean, std = _of_pixels(chosen, stem, *mean_and_std)
    changes = {
        "data.channels": values["channels"],
        "data.image_size": image_size,
        "data.centre_size": None if chosen.data.centre_size is None else values["centre_size"],
        "data.working_size": values["working_size"],
        "data.executor": values["executor"],
        "data.workers": values["workers"],
        "data.mean": mean,
        "data.std": std,
        "data.value_range": value_range,
        "train.batch_size": batch,
        "train.device": choices.device(machine),
        "train.precision": precision,
        "encoder.stem": stem,
        "optim.lr_per_256": chosen.optim.rate_per_256(batch),
        "optim.vectors_lr_per_256": chosen.optim.vectors_rate_per_256(batch),
    }
    for v, view in enumerate(chosen.views):
        for o, op in enumerate(view):
            if (part := schema.RELATIVE_SIZES.get(str(op.get("size")))) is not None:
                changes[f"views.{v}.{o}.size"] = scaled(image_size, part)
    changes |= choices.of_channels(chosen.views, values["channels"])
    resolved = schema.check(override(chosen.as_dict(), changes))
    return Plan(
        resolved,
        image_size=image_size,
        mean=mean,
        std=std,
        value_range=value_range,
        batch_size=batch,
        precision=precision,
        stem=stem,
        **values,
    )


def _with_method_for(chosen: Recipe, view: Size) -> Recipe:
    """The recipe with what of its method follows from the size of the views, where the method says so."""
    method = chosen.build_method()
    if not hasattr(method, "resolved_for"):
        return chosen
    resolved = asdict(method.resolved_for(view))
    changes = {f"method.{key}": value for key, value in resolved.items() if chosen.method[key] == "auto"}
    return schema.check(override(chosen.as_dict(), changes))


def _of_pixels(chosen: Recipe, stem: str, mean: list[float], std: list[float]) -> tuple[list[float], list[float]]:
    """Mean and deviation, which are 0 and 1 where colours are read from the images.

    Raises:
        RecipeError: the recipe has others.
    """
    reads = f"the stem {stem}" if sees_lightness(stem) else f"the method {chosen.method['kind']}"
    if not sees_lightness(stem) and not getattr(chosen.build_method(), "takes_pixels", False):
        return mean, std
    plain = [0.0] * len(mean), [1.0] * len(std)
    given = [
        ours if asked == "auto" else asked
        for ours, asked in zip(plain, (chosen.data.mean, chosen.data.std), strict=True)
    ]
    if given != [*plain]:
        raise RecipeError(
            f"{reads} reads colours from images between 0 and 1, and data.mean is {given[0]} and data.std {given[1]}: "
            "give --data.mean '[0, 0, 0]' --data.std '[1, 1, 1]', or auto for both"
        )
    return plain


def _least_rows(chosen: Recipe) -> int:
    """The rows that the objective cannot do without, where its dataclass says so (`least_rows`)."""
    groups = chosen.build_method().widths(len(chosen.views))
    if chosen.objective["kind"].startswith(CUSTOM) or not groups:
        return choices.SMALLEST_BATCH
    least = getattr(chosen.build_objective(), "least_rows", None)
    return choices.SMALLEST_BATCH if least is None else int(least(groups[0][0]))
