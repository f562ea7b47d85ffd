"""From a recipe to a plan: looks at the images and the machine, replaces each `auto` by a value, and says why.

What is resolved is written into the run's recipe.yaml, and a resumed run reads it from there.
"""

import copy
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from barlow import choices, facts, objectives, trial
from barlow.data import memory, statistics
from barlow.data.inventory import Inventory, scan
from barlow.data.loader import MemoryLoader, StreamingLoader
from barlow.data.preview import preview
from barlow.data.sources import ImageSource, open_source
from barlow.distributed import World
from barlow.nets.origin import Normalization, origin_of
from barlow.nets.preprocessing import Preprocessing
from barlow.nets.stems import takes_small_stem
from barlow.recipe import schema
from barlow.recipe.changes import override
from barlow.recipe.messages import RecipeError
from barlow.recipe.schema import CUSTOM, Recipe
from barlow.size import Size, size_of, words
from barlow.views.pipeline import ViewPipeline


@dataclass(frozen=True)
class Plan:
    """A recipe in which nothing is `auto` any more, and its resolved values as what they are."""

    recipe: Recipe
    channels: int
    image_size: Size
    working_size: Size
    executor: str
    workers: int
    mean: list[float]
    std: list[float]
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
        return Preprocessing(
            size=self.image_size,
            crop_ratio=1.0,
            interpolation="bicubic",
            mean=tuple(self.mean),
            std=tuple(self.std),
            channels=self.channels,
        )

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
            section, width=self.widths()[0][0], images=self.candidates, classes=self.classes, seed=self.recipe.seed
        )


@dataclass
class Prepared:
    """All that training needs to know about images."""

    plan: Plan
    reasons: list[str]
    """What was chosen and why, a line each."""
    loader: MemoryLoader | StreamingLoader
    report: dict[str, Any]
    """For data.json."""
    sheet: Callable[[], np.ndarray]
    """The picture of augmented views."""


def prepare(chosen: Recipe, world: World, objective: Any = None) -> Prepared:
    """Opens and inventories the images, resolves what is `auto`, and builds the loader of this process's rows.

    Args:
        chosen: the recipe.
        world: the processes that train together.
        objective: one that was given in Python; the recipe's if not given.

    Raises:
        ValueError: no such data, too few images, too many unreadable, or a batch that the objective cannot use or the
            processes cannot share.
    """
    machine = facts.machine(world)
    chosen, expected = _with_weights_network(chosen)
    data, (source, channels, found) = chosen.data, _opened(chosen, expected)
    size, why_size = choices.image_size(data.image_size, found, machine)
    working = choices.working_size(data.working_size, size, found)
    needed = memory.bytes_needed(source, working, channels)
    executor = choices.executor(data.executor, needed, machine)
    workers = choices.workers(data.workers, executor, machine)
    threads = max(1, min(workers, machine.cores))

    held = None
    if executor == "in_memory":
        inventory, held = memory.hold(source, working, max_bad=data.max_bad, workers=threads)
        working = size_of(tuple(held.pixels.shape[2:]))
        where = f"held in memory at {words(working)} px ({held.pixels.numel() / 1e6:.0f} MB)"
    else:
        inventory = scan(source, max_bad=data.max_bad, workers=threads, seed=chosen.seed)
        where = f"streamed by {workers} workers (in memory they would take {needed / 1e9:.1f} GB)"
    measured = None
    if expected is not None and expected.channels == channels:
        measured = list(expected.mean), list(expected.std)  # of the weights, which know no other images
    elif "auto" in (data.mean, data.std):
        measured = _mean_and_std(held, source, inventory.ids, seed=chosen.seed, workers=threads)
    plan = resolved(
        chosen,
        machine,
        usable=len(inventory.ids),
        candidates=found.count,
        channels=channels,
        image_size=size,
        working_size=working,
        executor=executor,
        workers=workers,
        mean_and_std=choices.mean_and_std(data.mean, data.std, measured),
    )
    own = world.block(plan.batch_size)
    pipeline = ViewPipeline(plan.recipe.build_views(), plan.mean, plan.std)
    if size not in pipeline.sizes:
        raise RecipeError(
            f"data.image_size is {words(size)} and the views are "
            f"{' and '.join(map(words, dict.fromkeys(pipeline.sizes)))} px; "
            "set both, or the crops' size to auto"
        )
    trial.check_sizes(plan.recipe, plan.batch_size, own, len(inventory.ids))
    plan, labels, tried = _with_labels(plan, objective, source)
    known = _known(plan, pipeline, labels)
    trial.check_asked(plan.recipe, tried, known, told=list(pipeline.told(torch.arange(1), chosen.seed, 0)))
    if objective is None:
        trial.try_objective(plan.recipe, tried, plan.widths(), plan.batch_size, known)
    loader: MemoryLoader | StreamingLoader
    options: dict[str, Any] = {
        "batch_size": plan.batch_size,
        "seed": chosen.seed,
        "device": machine.device,
        "block": own,
        "labels": labels,
    }
    if held is not None:
        loader = MemoryLoader(held.pixels, held.sizes, held.ids, pipeline, **options)
    else:
        loader = StreamingLoader(source, inventory.ids, pipeline, workers=workers, max_bad=data.max_bad, **options)
    return Prepared(
        plan,
        _reasons(chosen, plan, inventory, where, _sizing(size, why_size, found), loader.steps_per_epoch, own),
        loader,
        {"sources": data.sources, **inventory.as_dict(), "executor": executor, "working_size": working},
        lambda: preview(source, inventory.ids, pipeline, seed=chosen.seed, mean=plan.mean, std=plan.std),
    )


def _with_weights_network(chosen: Recipe) -> tuple[Recipe, Normalization | None]:
    """The recipe with the network of the weights that it starts from, and the images that these weights expect.

    Nothing is looked for where nothing is `auto`: a resumed run does not need the weights that it once started from.
    """
    encoder, data = chosen.encoder, chosen.data
    if encoder.init is None or "auto" not in (encoder.name, data.channels, data.mean, data.std):
        if encoder.name == "auto":
            raise RecipeError("encoder.name is auto, the network of given weights, and none are given: add --init")
        return chosen, None
    origin = origin_of(encoder.init)
    if encoder.name != "auto":
        return chosen, origin.normalization
    if origin.network is None:
        raise RecipeError(f"--init {encoder.init} does not say which network its weights are of: add --encoder NAME")
    changes = {f"encoder.{key}": value for key, value in asdict(origin.network).items()}
    return schema.check(override(chosen.as_dict(), changes)), origin.normalization


def _opened(chosen: Recipe, expected: Normalization | None) -> tuple[ImageSource, int, facts.ImageFacts]:
    """The source, with as many channels as it is trained with, and what a look at it shows."""

    def opened(channels: int) -> ImageSource:
        data = chosen.data
        return open_source(data.sources, split=data.split, channels=channels, max_pixels=data.max_pixels)

    given = chosen.data.channels
    first = 3 if given == "auto" else given
    source = opened(first)
    found = facts.images(source)
    channels = choices.channels(given, found, expected)
    return (source if channels == first else opened(channels)), channels, found


def _mean_and_std(
    held: memory.Held | None, source: ImageSource, ids: np.ndarray, *, seed: int, workers: int
) -> tuple[list[float], list[float]]:
    """Of each channel, over the images in memory or over a sample of those in the source."""
    if held is not None:
        return statistics.measure(held.pixels, seed=seed)
    return statistics.measure_source(source, ids, seed=seed, workers=workers)


def resolved(
    chosen: Recipe,
    machine: facts.Machine,
    *,
    usable: int,
    mean_and_std: tuple[list[float], list[float]],
    image_size: Size,
    **values: Any,
) -> Plan:
    """The recipe with every `auto` replaced, and the values beside it."""
    train, encoder = chosen.train, chosen.encoder
    batch = choices.batch_size(train.batch_size, usable)
    precision = choices.precision(train.precision, image_size, machine)
    stem = choices.stem(encoder.stem, image_size, takes_small_stem(encoder.name))
    mean, std = mean_and_std
    changes = {
        "data.channels": values["channels"],
        "data.image_size": image_size,
        "data.working_size": values["working_size"],
        "data.executor": values["executor"],
        "data.workers": values["workers"],
        "data.mean": mean,
        "data.std": std,
        "train.batch_size": batch,
        "train.device": choices.device(machine),
        "train.precision": precision,
        "encoder.stem": stem,
        "optim.lr_per_256": chosen.optim.rate_per_256(batch),
    }
    for v, view in enumerate(chosen.views):
        for o, op in enumerate(view):
            if op.get("size") == "auto":
                changes[f"views.{v}.{o}.size"] = image_size
    resolved = schema.check(override(chosen.as_dict(), changes))
    return Plan(
        resolved,
        image_size=image_size,
        mean=mean,
        std=std,
        batch_size=batch,
        precision=precision,
        stem=stem,
        **values,
    )


def _reasons(
    chosen: Recipe,
    plan: Plan,
    inventory: Inventory,
    where: str,
    sizing: list[str],
    steps_per_epoch: int,
    own: slice,
) -> list[str]:
    """What was chosen and why, a line each."""
    recipe, batch, optim = plan.recipe, plan.batch_size, plan.recipe.optim
    skipped = f", {len(inventory.skipped)} skipped (see data.json)" if inventory.skipped else ""
    height, width = inventory.median_size
    widths = "; ".join(
        f"{name} {'-'.join(map(str, head['widths']))}"
        for name, head in recipe.method.items()
        if isinstance(head, dict) and "widths" in head
    )
    sizes = [op["size"] for view in recipe.views for op in view if "size" in op]
    lines = [
        f"images   {len(inventory.ids)} usable of {inventory.candidates}{skipped}; "
        f"median {height}x{width} (height x width), "
        f"{'grey' if plan.channels == 1 else 'colour'}, {where}",
        *sizing,
        f"views    {', '.join(f'{count} of {_px(size)}' for size, count in Counter(sizes).items())}; "
        f"{recipe.encoder.name}, stem {plan.stem}; {widths}",
        f"batch    {batch} ({steps_per_epoch} steps an epoch), peak rate {plan.peak:.3g} "
        f"= {optim.rate_per_256(batch):.3g} × {batch}/256 ({optim.kind}), {recipe.train.device}, {plan.precision}",
    ]
    if (most := recipe.train.rows_in_memory) is not None and most < own.stop - own.start:
        lines.append(f"chunks   of {most} of {own.stop - own.start} images: the loss is of all, batch norm sees one")
    if optim.loss_weight != 1:
        lines.append(f"weight   of the loss in the gradient: {optim.loss_weight:g}")
    if (vectors := optim.vectors_peak(batch)) is not None:
        lines.append(f"rate     of biases and norms: {vectors:.3g}")
    if why := chosen.optim.why_rate(batch):
        lines.append(f"rate     {optim.rate_per_256(batch):.3g} for 256 images: {why}")
    return lines


def _sizing(size: Size, why: str | None, found: facts.ImageFacts) -> list[str]:
    """Why the views have their size, where it was `auto`, and which one would fit long images."""
    if why is None or not isinstance(size, int):
        return []
    lines = [f"size     {size} px: {why}"]
    if (fitting := choices.size_for_long_images(size, found)) is not None:
        longer, sides = (found.aspect, "wide as high") if found.aspect > 1 else (1 / found.aspect, "high as wide")
        lines.append(
            f"aspect   images are {longer:.3g} times as {sides} (median), and square views show little of one; "
            f"--image-size {words(fitting)} (height x width) fits them, with {math.prod(fitting) / size**2:.1f} times "
            "the pixels of a square view"
        )
    return lines


def _px(size: Size) -> str:
    return f"{words(size)} px" + ("" if isinstance(size, int) else " (height x width)")


def _with_labels(plan: Plan, objective: Any, source: ImageSource) -> tuple[Plan, Tensor | None, Any]:
    """The plan with the number of classes, the labels, and an objective to try; labels only where they are asked for.

    (A generated set draws all of its images for its labels.)
    """
    section, labels = plan.section_of(objective), None
    if objectives.has_state(section) and "classes" in objectives.asks(section.build):
        labels = _labels(source)
        plan = replace(plan, classes=None if labels is None else int(labels.max()) + 1)
    tried = plan.new_objective(objective)
    if labels is None and "labels" in objectives.asks(tried):
        labels = _labels(source)
    return plan, labels, tried


def _labels(source: ImageSource) -> Tensor | None:
    labels = source.labels
    if labels is None or labels.ndim != 1:
        return None
    return torch.from_numpy(np.asarray(labels, np.int64))


def _known(plan: Plan, pipeline: ViewPipeline, labels: Tensor | None) -> dict[str, Tensor]:
    """What is known of the rows of a batch, for a try."""
    rows = torch.arange(plan.batch_size)
    known = {"ids": rows % plan.candidates, **pipeline.told(rows, plan.recipe.seed, 0)}
    return known if labels is None else known | {"labels": labels[rows % len(labels)]}
