"""From a recipe to a plan: looks at the images and the machine, replaces each `auto` by a value, and says why."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from barlow import objectives, storage
from barlow.data import image_digests, memory, statistics
from barlow.data.counting import Counted, not_shown
from barlow.data.folder import FolderSource
from barlow.data.held_out import divided
from barlow.data.inventory import scan
from barlow.data.known import Known
from barlow.data.loader import MemoryLoader, StreamingLoader
from barlow.data.preview import preview
from barlow.data.sources import ImageSource, open_source, seen_with
from barlow.data.value_range import find_range
from barlow.data.vocabulary import Vocabulary
from barlow.distributed import World
from barlow.main_guard import check_main_guard
from barlow.nets.building import takes_one_size
from barlow.nets.expected import Normalization
from barlow.nets.origin import origin_of
from barlow.planning import captioning, choices, facts, reasons, trial
from barlow.planning.fitted_method import with_maps
from barlow.planning.plan import Plan, resolved
from barlow.recipe import schema
from barlow.recipe.changes import override
from barlow.recipe.messages import RecipeError
from barlow.recipe.schema import Recipe
from barlow.recipe.sections import DataSection
from barlow.size import Size, height_width, size_of, words
from barlow.views.pipeline import ViewPipeline
from barlow.views.sheet import png


@dataclass
class Prepared:
    """All that training needs to know about images."""

    plan: Plan
    reasons: list[str]
    """What was chosen and why, a line each."""
    loader: MemoryLoader | StreamingLoader
    pipeline: ViewPipeline
    """Makes the loader's views."""
    report: dict[str, Any]
    """For data.json."""
    sheet: Callable[[], np.ndarray]
    """The picture of augmented views."""
    source: ImageSource
    ids: np.ndarray
    """Of the usable images in the source."""
    digests: np.ndarray
    """Of the usable images, for images.json."""
    held_out: np.ndarray
    """Those of the ids that no step sees, as the monitor looks at them; none where the recipe holds none out."""
    vocabulary: Vocabulary | None = None
    """Of the images' captions, where the method reads them."""

    def write(self, folder: Path) -> None:
        """Writes what a run keeps of its images."""
        storage.write_sealed(folder / "data.json", self.report)
        storage.write_sealed(folder / "images.json", image_digests.as_json(self.digests))
        storage.write_bytes(folder / "views.png", png(self.sheet()))
        if self.vocabulary is not None:
            storage.write_sealed(folder / captioning.FILE, self.vocabulary.as_dict())


def prepare(chosen: Recipe, world: World, objective: Any = None, counted: Counted = not_shown) -> Prepared:
    """Opens and inventories the images, resolves what is `auto`, and builds the loader of this process's rows.

    Args:
        chosen: the recipe.
        world: the processes that train together.
        objective: one that was given in Python; the recipe's if not given.
        counted: told how many files have been listed, and images read.

    Raises:
        ValueError: no such data, too few images, too many unreadable, or a batch that the objective cannot use or the
            processes cannot share.
    """
    machine = facts.machine(world)
    images = opened(chosen, machine, counted)
    source, channels, found, values = images.source, images.channels, images.found, images.values
    chosen, spoken = captioning.with_words(_with_classes(images.recipe, source), source)
    expected, data = images.expected, chosen.data
    size, why_size = choices.image_size(data.image_size, found, machine)
    working = choices.working_size(data.working_size, size, found)
    needed = memory.bytes_needed(source, working, channels, wide=values.ends is not None)
    executor = choices.executor(data.executor, needed, machine)
    workers = choices.workers(data.workers, executor, machine)
    threads = max(1, min(workers, machine.cores))
    check_main_guard(executor, workers)

    held = None
    if executor == "in_memory":
        _check_fits(source, working, needed, machine)
        inventory, held = memory.hold(source, working, max_bad=data.max_bad, workers=threads, counted=counted)
        working = size_of(tuple(held.pixels.shape[2:]))
    else:
        inventory = scan(source, max_bad=data.max_bad, workers=threads, seed=chosen.seed, counted=counted)
    fitting = None if expected is None or not expected.fits(channels, values.ends) else expected
    measured = _mean_and_std(
        data, fitting, held, source, inventory.ids, seed=chosen.seed, workers=threads, counted=counted
    )
    chosen = with_maps(chosen, channels, size)
    trained, apart = divided(inventory.ids, chosen.seed, wanted=chosen.train.monitor_held_out)
    plan = resolved(
        chosen,
        machine,
        usable=len(trained),
        candidates=found.count,
        channels=channels,
        image_size=size,
        centre_size=choices.centre_size(data.centre_size, size, found, fixed=takes_one_size(chosen.encoder.name)),
        working_size=working,
        executor=executor,
        workers=workers,
        value_range=values.ends,
        mean_and_std=choices.mean_and_std(data.mean, data.std, measured),
    )
    own = world.block(plan.batch_size)
    pipeline = ViewPipeline(plan.recipe.build_views(), plan.mean, plan.std)
    _check_view_size(size, pipeline)
    trial.check_sizes(plan.recipe, plan.batch_size, own, len(trained))
    plan, labels = _tried(plan, pipeline, objective, source, len(trained))
    plan, fewer = _with_shared_memory(plan, pipeline, own.stop - own.start, machine)
    where = reasons.of_place(plan, needed, working, None if held is None else held.pixels.numel())
    options = {"batch_size": plan.batch_size, "seed": chosen.seed, "device": machine.device}
    loader = _loader(held, source, trained, pipeline, plan, **options, block=own, known=Known(labels, spoken.tokens))
    said = [*reasons.of_held_out(plan, len(apart), len(inventory.ids)), *spoken.lines, *fewer]
    said += [*reasons.of_values(plan, values, inventory), *reasons.of_size(plan, why_size, found)]
    return Prepared(
        plan,
        reasons.of(chosen, plan, inventory, where, said, loader.steps_per_epoch, own),
        loader,
        pipeline,
        {"sources": data.sources, **inventory.as_dict(), "executor": executor, "working_size": working}
        | {"held_out": len(apart), "copies": image_digests.copies(inventory.digests)[0]}
        | values.as_dict()
        | spoken.report,
        lambda: preview(source, inventory.ids, pipeline, seed=chosen.seed, mean=plan.mean, std=plan.std),
        source,
        inventory.ids,
        inventory.digests,
        apart,
        spoken.vocabulary,
    )


def prepare_alike(chosen: Recipe, world: World, objective: Any = None, counted: Counted = not_shown) -> Prepared:
    """What every process knows about the images. The first resolves what is `auto`; the others do as it did."""
    if world.main:
        prepared = prepare(chosen, world, objective, counted)
        world.share(json.dumps(prepared.plan.recipe.as_dict()))
        return prepared
    return prepare(schema.check(json.loads(world.share(None))), world, objective)


def _check_view_size(size: Size, pipeline: ViewPipeline) -> None:
    """Refuses a size of the images that no view has."""
    if size not in pipeline.crop_sizes:
        raise RecipeError(
            f"data.image_size is {words(size)} and the views are "
            f"{' and '.join(map(words, dict.fromkeys(pipeline.crop_sizes)))} px; "
            "set both, or the crops' size to auto"
        )


def _tried(
    plan: Plan, pipeline: ViewPipeline, objective: Any, source: ImageSource, usable: int
) -> tuple[Plan, Tensor | None]:
    """The plan and the labels that its objective asks for, once a batch of it has been tried."""
    plan, labels, tried = _with_labels(plan, objective, source)
    known = _known(plan, pipeline, labels, min(plan.batch_size, usable))
    trial.check_asked(plan.recipe, tried, known, told=list(pipeline.told(torch.arange(1), plan.recipe.seed, 0)))
    if objective is None:
        known_of = partial(_known, plan, pipeline, labels)
        trial.try_objective(plan.recipe, tried, plan.widths(), plan.batch_size, known_of, usable)
    return plan, labels


def _with_shared_memory(
    plan: Plan, pipeline: ViewPipeline, rows: int, machine: facts.Machine
) -> tuple[Plan, list[str]]:
    """The plan with as many processes that read as shared memory has room for, and a line where these are fewer.

    The recipe keeps the number that it has: the run may go on where there is more room, and gives the same numbers.
    """
    pixels = sum(math.prod(height_width(size)) for size in pipeline.crop_sizes)
    batch = rows * plan.channels * pixels * (1 if plan.value_range is None else 2)
    fitting = choices.workers_that_fit(plan.workers, batch, machine)
    if plan.executor != "streaming" or fitting == plan.workers:
        return plan, []
    return replace(plan, workers=fitting), [reasons.of_shared_memory(plan.workers, fitting, batch, machine.shared or 0)]


def _check_fits(source: ImageSource, working: Size, needed: int, machine: facts.Machine) -> None:
    """Refuses images that a recipe wants in memory, and that need more of it than there is."""
    if needed > machine.memory:
        raise RecipeError(
            f"data.executor is in_memory, and {len(source):,} images at {words(working)} px take "
            f"{needed / 1e9:.1f} GB, where {machine.memory / 1e9:.1f} GB are free: use --data.executor streaming, or a "
            "smaller --data.working_size"
        )


def _loader(
    held: memory.Held | None,
    source: ImageSource,
    ids: np.ndarray,
    pipeline: ViewPipeline,
    plan: Plan,
    **options: Any,
) -> MemoryLoader | StreamingLoader:
    """The loader of images in memory, or of those that are streamed."""
    if held is not None:
        held = held.only(ids)
        return MemoryLoader(held.pixels, held.sizes, held.ids, pipeline, **options)
    max_bad = plan.recipe.data.max_bad
    return StreamingLoader(source, ids, pipeline, workers=plan.workers, max_bad=max_bad, **options)


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
    network = origin.network
    if network is None and origin.stemless is not None and encoder.stem not in ("auto", "as_is"):
        network = replace(origin.stemless, stem=encoder.stem)
    if network is None:
        raise RecipeError(
            f"--init {encoder.init}: {origin.asks}"
            if origin.asks
            else f"--init {encoder.init} does not say which network its weights are of: add --encoder NAME"
        )
    changes = {f"encoder.{key}": value for key, value in asdict(network).items()}
    return schema.check(override(chosen.as_dict(), changes)), origin.normalization


def _with_classes(chosen: Recipe, source: ImageSource) -> Recipe:
    """The recipe with a classifier of as many outputs as the images have classes, where its head is `auto`."""
    if chosen.method.get("head") != "auto":
        return chosen
    labels = _labels(source)
    if labels is None:
        raise RecipeError(
            f"method.head is auto, a classifier of the images' classes, and {source.name} has no labels: put the "
            "images into one sub-folder for each class, or take a recipe that needs none"
        )
    resolved = asdict(chosen.build_method().resolved(int(labels.max()) + 1))
    return schema.check(override(chosen.as_dict(), {"method.head": resolved["head"]}))


@dataclass(frozen=True)
class OpenedImages:
    """The images of a recipe, as they are read for training."""

    recipe: Recipe
    """With the network of the weights that it starts from."""
    source: ImageSource
    """With as many channels and the range of values as it is trained with."""
    channels: int
    found: facts.ImageFacts
    """What a look at a few images shows."""
    values: reasons.Values
    expected: Normalization | None
    """What given weights expect of images."""


def opened(chosen: Recipe, machine: facts.Machine, counted: Counted = not_shown) -> OpenedImages:
    """Lists the images of a recipe, looks at a few, and opens them as they are read for training.

    Raises:
        ValueError: no such images; or the recipe's weights are not there.
    """
    chosen, expected = _with_weights_network(chosen)

    data = chosen.data
    given = data.channels
    first = 3 if given == "auto" else given
    source = open_source(data.sources, split=data.split, channels=first, max_pixels=data.max_pixels, counted=counted)
    found = facts.images(source, counted)
    channels = choices.channels(given, found, expected)
    values = _values(chosen, source, found, expected, machine, counted)
    if channels != first or values.ends is not None:
        source = seen_with(source, channels, values.ends)
    return OpenedImages(chosen, source, channels, found, values, expected)


def _values(
    chosen: Recipe,
    source: ImageSource,
    found: facts.ImageFacts,
    expected: Normalization | None,
    machine: facts.Machine,
    counted: Counted,
) -> reasons.Values:
    """The range of values: as given, that of given weights, or as found in the images."""
    given = chosen.data.value_range
    if given != "auto":
        return reasons.Values(given)
    if not found.deep or not isinstance(source, FolderSource):
        return reasons.Values(None)
    if expected is not None and expected.value_range is not None:
        return reasons.Values(expected.value_range, of_weights=True)
    looked = find_range(source, seed=chosen.seed, workers=machine.cores, counted=counted)
    return reasons.Values(None if looked is None else looked.ends, looked)


def _mean_and_std(
    data: DataSection,
    of_weights: Normalization | None,
    held: memory.Held | None,
    source: ImageSource,
    ids: np.ndarray,
    *,
    seed: int,
    workers: int,
    counted: Counted,
) -> tuple[list[float], list[float]] | None:
    """Of each channel; None if the recipe has both.

    Args:
        data: the recipe's section.
        of_weights: what given weights expect, which know no other images.
        held: the images in memory, if they are there; else a sample of those in the source is measured.
        source: of the images.
        ids: of the usable ones.
        seed: chooses the sample.
        workers: threads that decode.
        counted: told how many images of the sample have been read.
    """
    if of_weights is not None:
        return list(of_weights.mean), list(of_weights.std)
    if "auto" not in (data.mean, data.std):
        return None
    if held is not None:
        return statistics.measure(held.pixels, seed=seed)
    return statistics.measure_source(source, ids, seed=seed, workers=workers, counted=counted)


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


def _known(plan: Plan, pipeline: ViewPipeline, labels: Tensor | None, batch: int) -> dict[str, Tensor]:
    """What is known of the rows of a batch, for a try."""
    rows = torch.arange(batch)
    known = {"ids": rows % plan.candidates, **pipeline.told(rows, plan.recipe.seed, 0)}
    return known if labels is None else known | {"labels": labels[rows % len(labels)]}
