"""Turns `auto` into values: looks at the images and the machine, and says why in a few lines.

What is resolved is written into the run's recipe.yaml, and a resumed run reads it from there.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from barlow import recipe as recipes
from barlow.data import memory, statistics
from barlow.data.decoding import UnreadableImage
from barlow.data.inventory import Inventory, scan, without_library_noise
from barlow.data.loader import MemoryLoader, StreamingLoader
from barlow.data.sources import Source, open_source
from barlow.distributed import World, has_native_bf16
from barlow.machine import available_cores, available_memory
from barlow.methods.backward import chunks
from barlow.nets import encoders
from barlow.recipe import Recipe, RecipeError
from barlow.views.pipeline import ViewPipeline
from barlow.views.sheet import view_sheet

LARGEST_VIEW = {"cpu": 64, "mps": 96, "cuda": 128}
"""Side of the views that a small recipe takes from larger photos: what a step of about a second affords."""

TINY = 16
"""Side of views up to which a CPU computes in float32. Strides then leave some convolution one pixel, and torch 2.13's
bfloat16 kernels for strided convolutions of one pixel return whatever memory held as the gradient of its weights."""

VIEW_SHARE = 0.75
"""Side of the views over the images' own: the mean side of crops of 0.2 to 1 of the area, E[√U(0.2, 1)] = 0.76, so that
on average a crop is neither enlarged nor reduced; the step costs little more than half of one at full side."""

SMALLEST_VIEW = 16
"""Under this, crops of a tenth of the area have fewer than six pixels a side."""

WORKING_SCALE = 1.5
"""Images are held at this many times the view's side: a crop of half the area is then hardly enlarged."""

SHARE_OF_MEMORY = 0.25
"""Sets that need less than this share of the free memory are held decoded."""

USUAL_BATCH = 128
"""Better than 64 and 256 at equal time on two cores (docs/experiments.md)."""
BATCHES_AN_EPOCH = 4
"""Small sets get a smaller batch, so that an epoch still has this many different ones."""

PROBED = 32
"""Images read to learn size and colour before the set is decoded."""

SHEET_ROWS = 8
SHEET_DRAWS = 3


@dataclass
class Prepared:
    """All that training needs to know about images."""

    recipe: Recipe
    """Without `auto`."""
    reasons: list[str]
    """What was chosen and why, a line each."""
    loader: MemoryLoader | StreamingLoader
    report: dict[str, Any]
    """For data.json."""
    sheet: Callable[[], np.ndarray]
    """The picture of augmented views."""


def prepare(chosen: Recipe, world: World) -> Prepared:
    """Opens and inventories the images, resolves what is `auto`, and builds the loader of this process's rows.

    Raises:
        ValueError: no such data, too few images, too many unreadable, or a batch that the objective cannot use or the
            processes cannot share.
    """
    data, train, device = chosen.data, chosen.train, world.device
    source = _open(chosen, 3 if data.channels == "auto" else data.channels)
    probe = _probe(source)
    reasons: list[str] = []
    changes: dict[str, Any] = {}
    if data.channels == "auto":
        changes["data.channels"] = 1 if probe.grey else 3
        if probe.grey:
            source = _open(chosen, 1)
    if data.image_size == "auto":
        size = max(SMALLEST_VIEW, min(LARGEST_VIEW[device.type], int(VIEW_SHARE * probe.short_side) // 8 * 8))
    else:
        size = data.image_size
    changes["data.image_size"] = size
    working = data.working_size
    if working == "auto":
        working = max(int(np.ceil(WORKING_SCALE * size / 8)) * 8, size)
    needed = memory.bytes_needed(source, int(working), 3 if data.channels == "auto" else int(data.channels))
    executor = data.executor
    if executor == "auto":
        share = SHARE_OF_MEMORY / world.neighbours  # each holds the whole set
        executor = "in_memory" if needed <= share * available_memory() else "streaming"
    cores = max(1, available_cores() // world.neighbours)
    workers = data.workers
    if workers == "auto":
        workers = cores if executor == "in_memory" else max(1, min(8, cores - 1))
    threads = max(1, min(int(workers), cores))

    held = None
    if executor == "in_memory":
        inventory, held = memory.hold(source, int(working), max_bad=data.max_bad, workers=threads)
        working = held.pixels.shape[-1]
        where = f"held in memory at {working} px ({held.pixels.numel() / 1e6:.0f} MB)"
    else:
        inventory = scan(source, max_bad=data.max_bad, workers=threads, seed=chosen.seed)
        where = f"streamed by {workers} workers (in memory they would take {needed / 1e9:.1f} GB)"
    changes |= {"data.executor": executor, "data.working_size": int(working), "data.workers": int(workers)}
    mean, std = data.mean, data.std
    if mean == "auto" or std == "auto":
        measured = (
            statistics.measure(held.pixels, seed=chosen.seed)
            if held is not None
            else statistics.measure_source(source, inventory.ids, seed=chosen.seed, workers=threads)
        )
        mean, std = (
            [round(value, 6) for value in values] if given == "auto" else given
            for values, given in zip(measured, (mean, std), strict=True)
        )
        changes |= {"data.mean": mean, "data.std": std}
    batch = train.batch_size
    if batch == "auto":
        batch = _batch_for(len(inventory.ids))
    changes |= {"train.batch_size": batch, "train.device": device.type if world.size > 1 else str(device)}
    rate = chosen.optim.rate_per_256(batch)
    if rate != chosen.optim.lr_per_256:
        changes["optim.lr_per_256"] = rate
    if train.precision == "auto":
        half = has_native_bf16(device) and (device.type != "cpu" or size > TINY)
        changes["train.precision"] = "bf16" if half else "float32"
    if chosen.encoder.stem == "auto":
        small = encoders.takes_small_stem(chosen.encoder.name) and size <= max(LARGEST_VIEW["cpu"], 64)
        changes["encoder.stem"] = "strided" if small else "as_is"
    for v, view in enumerate(chosen.views):
        for o, op in enumerate(view):
            if op.get("size") == "auto":
                changes[f"views.{v}.{o}.size"] = size
    resolved = recipes.check(recipes.override(chosen.as_dict(), changes))
    _check_batch(resolved, len(inventory.ids), world)
    own = world.block(int(batch))

    pipeline = ViewPipeline(resolved.build_views(), list(mean), list(std))
    if size not in pipeline.sizes:
        raise RecipeError(
            f"data.image_size is {size} and the views are {' and '.join(map(str, dict.fromkeys(pipeline.sizes)))} px; "
            "set both, or the crops' size to auto"
        )
    loader: MemoryLoader | StreamingLoader
    if held is not None:
        loader = MemoryLoader(
            held.pixels,
            held.sizes,
            held.ids,
            pipeline,
            batch_size=int(batch),
            seed=chosen.seed,
            device=device,
            block=own,
        )
    else:
        loader = StreamingLoader(
            source,
            inventory.ids,
            pipeline,
            batch_size=int(batch),
            seed=chosen.seed,
            workers=int(workers),
            device=device,
            max_bad=data.max_bad,
            block=own,
        )
    skipped = f", {len(inventory.skipped)} skipped (see data.json)" if inventory.skipped else ""
    height, width = inventory.median_size
    reasons += [
        f"images   {len(inventory.ids)} usable of {inventory.candidates}{skipped}; median {width}×{height}, "
        f"{'grey' if changes.get('data.channels', data.channels) == 1 else 'colour'}, {where}",
        f"views    {', '.join(f'{count} of {side} px' for side, count in Counter(pipeline.sizes).items())}; "
        f"{resolved.encoder.name}, stem {resolved.encoder.stem}; "
        f"projector {'-'.join(str(w) for w in resolved.method.projector.widths)}",
        f"batch    {batch} ({loader.steps_per_epoch} steps an epoch), peak rate {resolved.optim.peak(batch):.3g} "
        f"= {resolved.optim.rate_per_256(batch):.3g} × {batch}/256 ({resolved.optim.kind}), {device}, "
        f"{resolved.train.precision}",
    ]
    if (most := resolved.train.rows_in_memory) is not None and most < own.stop - own.start:
        reasons.append(f"chunks   of {most} of {own.stop - own.start} images: the loss is of all, batch norm sees one")
    if resolved.optim.loss_weight != 1:
        reasons.append(f"weight   of the loss in the gradient: {resolved.optim.loss_weight:g}")
    if (vectors := resolved.optim.vectors_peak(batch)) is not None:
        reasons.append(f"rate     of biases and norms: {vectors:.3g}")
    if why := chosen.optim.why_rate(batch):
        reasons.append(f"rate     {rate:.3g} for 256 images: {why}")
    report = {"sources": resolved.data.sources, **inventory.as_dict(), "executor": executor, "working_size": working}

    def sheet() -> np.ndarray:
        return _sheet(source, inventory, pipeline, resolved)

    return Prepared(resolved, reasons, loader, report, sheet)


def _open(chosen: Recipe, channels: int) -> Source:
    return open_source(
        chosen.data.sources, split=chosen.data.split, channels=channels, max_pixels=chosen.data.max_pixels
    )


@dataclass(frozen=True)
class _Probe:
    short_side: int
    grey: bool


def _probe(source: Source) -> _Probe:
    """Median shorter side, and whether no colour is met, over a few images spread through the source."""
    with without_library_noise():
        return _probed(source)


def _probed(source: Source) -> _Probe:
    sides, grey = [], True
    for index in np.unique(np.linspace(0, len(source) - 1, PROBED).astype(int)):
        try:
            image = source.read(int(index), 0)
        except UnreadableImage:
            continue
        sides.append(min(image.shape[:2]))
        grey = grey and bool((image[..., :1] == image[..., 1:]).all())
    if not sides:  # too many bad files: the inventory says so with their reasons
        return _Probe(LARGEST_VIEW["cpu"], False)
    return _Probe(int(np.median(sides)), grey)


def _batch_for(images: int) -> int:
    batch = USUAL_BATCH
    while batch * BATCHES_AN_EPOCH > images and batch > 16:
        batch //= 2
    while batch > max(images, 2):
        batch //= 2
    return batch


def _check_batch(resolved: Recipe, images: int, world: World) -> None:
    """Tries the objective on the shape of a batch before any network is built."""
    batch, width = int(resolved.train.batch_size), resolved.method.projector.widths[-1]
    own = world.block(batch)
    most = resolved.train.rows_in_memory
    if most is not None and any(part.stop - part.start < 2 for part in chunks(own.stop - own.start, most)):
        raise ValueError(
            f"--rows-in-memory {most} leaves a chunk of one row of {own.stop - own.start}, and batch norm needs two; "
            f"use {most + 1}"
        )
    if images < 2:
        raise ValueError(
            f"{images} usable image in {', '.join(resolved.data.sources)}; training compares images with each other "
            "and needs at least 2 (hundreds, to learn anything)"
        )
    if str(resolved.objective["kind"]).startswith("custom:"):
        return
    trial = torch.randn(batch, width, generator=torch.Generator().manual_seed(0))
    try:
        resolved.build_objective()(trial, trial.flip(0))
    except ValueError as error:
        parameters = json.dumps({k: v for k, v in resolved.objective.items() if k != "kind"})
        raise ValueError(
            f"{resolved.objective['kind']} {parameters} cannot use --batch-size {batch} with a projector width of "
            f"{width}: {error}"
        ) from error


def _readable(source: Source, ids: np.ndarray) -> tuple[int, np.ndarray]:
    """The first of these images that can be read; of a large set not all have been tried by now."""
    for i in ids[:-1]:
        with contextlib.suppress(UnreadableImage):
            return int(i), source.read(int(i), 0)
    return int(ids[-1]), source.read(int(ids[-1]), 0)


def _sheet(source: Source, inventory: Inventory, pipeline: ViewPipeline, resolved: Recipe) -> np.ndarray:
    spread = np.unique(np.linspace(0, len(inventory.ids) - 1, SHEET_ROWS).astype(int))
    rows = {int(start): _readable(source, np.roll(inventory.ids, -start)) for start in spread}
    ids = np.array([i for i, _ in rows.values()])
    originals = [image for _, image in rows.values()]
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (resolved.data.mean, resolved.data.std))
    groups: list[list[torch.Tensor]] = [[] for _ in resolved.views]
    for epoch in range(SHEET_DRAWS):
        crops = [
            pipeline.crop_one(image.transpose(2, 0, 1), int(i), resolved.seed, epoch)
            for i, image in zip(ids, originals, strict=True)
        ]
        stacked = [torch.from_numpy(np.stack([crop[v] for crop in crops])) for v in range(len(resolved.views))]
        for group, view in zip(groups, pipeline.finish(stacked, ids, resolved.seed, epoch), strict=True):
            group.append(view * std + mean)
    return view_sheet(originals, groups)
