"""`barlow check`: whether a set of images is fit for training, and what to expect of it, before anything is trained.

Nothing is written to the images' folders. What is told of unreadable files, of channels and of the range of values is
what a training run would tell, as both ask the same modules.
"""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barlow import storage
from barlow.advice import LONG, SHORT, before_training
from barlow.checks.alike import EXAMPLES, Alike, Overlap, finds, near
from barlow.checks.check_report import Budget, Check, Pace
from barlow.checks.set_report import Between, SetReport
from barlow.data import image_digests
from barlow.data.counting import Counted, NowAndThen
from barlow.data.decoding import UnreadableImage
from barlow.data.folder import EMPTY, SPLITS
from barlow.data.shift import class_shift, shifts
from barlow.data.sources import FoldersOrName, open_source
from barlow.data.survey import Survey, survey
from barlow.distributed import World, joined
from barlow.machine import available_cores
from barlow.output_file import checked_output
from barlow.planning import facts, fetching, preparation
from barlow.printable import one_line, printable
from barlow.recipe import files, schema
from barlow.recipe.changes import override
from barlow.recipe.request import DEFAULT, chosen_recipe, requested
from barlow.recipe.schema import Recipe
from barlow.runs.ran import Ran
from barlow.size import words
from barlow.stopping import Asked, Interrupted, listening
from barlow.telling import Say, unfailing
from barlow.training.assembly import Given, build_learner, seconds_per_step
from barlow.views.sheet import CELL, image_sheet, png
from barlow.wording import in_arguments

MINUTES = (SHORT, LONG, 4 * LONG)
"""Budgets that are told as steps and epochs: those of the runs that were measured, and an hour."""

SHEET_ROWS, SHEET_COLUMNS = 8, 8


@in_arguments
def check(
    data: FoldersOrName,
    test: FoldersOrName | None = None,
    *,
    recipe: str | None = None,
    fast: bool = False,
    sheet: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    device: str = "auto",
    tell: Callable[[str], None] | None = None,
) -> Check:
    """Looks at a whole set of images before anything is trained on it.

    Args:
        data: a folder of images, several, or the name of a set.
        test: other images, which an encoder is to be measured on: how much do they overlap, and do they differ?
        recipe: the one that the time of a step is measured with; `barlow pretrain`'s default by default.
        fast: leave the time of a step out.
        sheet: a file, `.png`, that gets a picture of samples and of near-duplicates. It may not lie in the images'
            folders.
        overwrite: whether a file that is there is replaced by it.
        device: cpu, cuda, mps or auto, for the time of a step.
        tell: receives one-line messages on how far it is.

    Returns:
        What was found; `text()` is for people, `as_dict()` for programs. An unreadable image is no error here.

    Raises:
        NoInput: there is no such folder or set, or no image in it.
        UnusableData: no image can be read.
        Interrupted: on Ctrl-C, SIGTERM and what else asks to stop.
    """
    say = unfailing(tell)
    with listening(say) as requests:
        requests.given_up = lambda: KEPT_NOTHING
        try:
            folders = [
                each for one in (data, test) for each in ([one] if isinstance(one, str | os.PathLike) else one or [])
            ]
            place = None
            if sheet is not None:
                place = checked_output(sheet, "--sheet", endings=[".png"], overwrite=overwrite, images=folders)
            return _check(data, test, recipe, fast=fast, sheet=place, device=device, say=say)
        except Asked as asked:
            raise Interrupted(f"stopped; {KEPT_NOTHING}") from asked


KEPT_NOTHING = "a check keeps nothing of what it has read: give the same command again"


def _check(
    data: FoldersOrName,
    test: FoldersOrName | None,
    recipe: str | None,
    *,
    fast: bool,
    sheet: Path | None,
    device: str,
    say: Say,
) -> Check:
    sources = [data] if isinstance(data, str | os.PathLike) else list(data)
    chosen = chosen_recipe(data, recipe=recipe, device=device)
    shipped = recipe is None or recipe in files.names()
    fetching.check_asked(chosen, requested(data), shipped=shipped, start_kept=False)
    chosen = schema.check(override(chosen.as_dict(), {"data.max_bad": 1.0}))  # what cannot be read is told here
    say(f"reading {', '.join(map(printable, sources))}")
    with joined(device) as world:
        images = preparation.opened(chosen, facts.machine(world), NowAndThen(say))
        seen = survey(images.source, workers=available_cores(), counted=NowAndThen(say))
        ends = images.values.ends
        alike = Alike.of(seen)
        found, others, overlap = Check(_report(seen, alike, ends)), None, None
        if test is not None:
            source = open_source(
                test,
                split="test",
                channels=images.channels,
                max_pixels=chosen.data.max_pixels,
                value_range=ends,
                counted=NowAndThen(say),
            )
            others = survey(source, workers=available_cores(), counted=NowAndThen(say))
            overlap = Overlap.of(seen, others)
            report = _report(others, Alike.of(others), ends)
            found = replace(found, test=report, between=_between(seen, others, overlap))
        if sheet is not None:
            pairs = [] if others is None or overlap is None else _pairs(seen, others, overlap)
            storage.write_bytes(sheet, png(_sheet(seen, alike.firsts, pairs)))
        return found if fast else _with_pace(found, chosen, recipe or DEFAULT, world, say)


# --- One set ----------------------------------------------------------------------------------------------------------


def _report(seen: Survey, alike: Alike, ends: tuple[float, float] | None) -> SetReport:
    inventory = seen.inventory
    notes = {name: value for name, value in inventory.notes.items() if name not in (EMPTY, SPLITS)}
    equal, certain = image_digests.copies(inventory.digests)
    described = inventory.as_dict()
    heights, widths = ([int(each.min()), int(np.median(each)), int(each.max())] for each in seen.sizes.T)
    return SetReport(
        name=printable(inventory.name),
        candidates=inventory.candidates,
        usable=len(seen),
        unreadable=inventory.reasons,
        skipped=[{"where": each["where"], "reason": each["reason"]} for each in described["skipped"]],
        formats=seen.formats,
        extensions=inventory.extensions,
        modes=seen.modes,
        grey=inventory.grey,
        more_than_8_bits=inventory.deep,
        value_range=None if ends is None else list(ends),
        transparent=inventory.transparent,
        several_frames=inventory.multiframe,
        heights=heights,
        widths=widths,
        one_size=bool((seen.sizes == seen.sizes[0]).all()),
        classes=described["classes"],
        several_labels=seen.labels is not None and seen.labels.ndim > 1,
        empty=_texts(inventory.notes.get(EMPTY)),
        splits=_texts(inventory.notes.get(SPLITS)),
        notes=notes,
        copies=equal,
        copies_certain=certain,
        near=near(seen, alike),
        brightness=float(seen.brightness.mean()),
        contrast=float(seen.contrast.mean()),
        colour=float(seen.colour.mean()),
    )


def _texts(found: Any) -> list[str]:
    return [printable(name) for name in found or []]


# --- Two sets ---------------------------------------------------------------------------------------------------------


def _between(train: Survey, test: Survey, overlap: Overlap) -> Between:
    equal, certain = image_digests.shared(test.inventory.digests, train.inventory.digests)
    several = any(each.labels is not None and each.labels.ndim > 1 for each in (train, test))
    found = overlap.found
    examples = (
        []
        if found is None
        else [
            {
                "test": printable(test.place(of_test)),
                "train": printable(train.place(of_train)),
                "similarity": float(found.similarity[place]),
                "mirrored": bool(found.mirrored[place]),
            }
            for place, of_test, of_train in overlap.pairs[:EXAMPLES]
        ]
    )
    return Between(
        images=len(test),
        copies=equal,
        copies_certain=certain,
        near=overlap.near,
        compared=overlap.compared,
        alike=None if found is None else found.threshold.value,
        found=finds(found),
        examples=examples,
        shifts=shifts(train, test),
        classes=None if several else class_shift(train.inventory.classes, test.inventory.classes),
    )


# --- Training here ----------------------------------------------------------------------------------------------------


def _with_pace(found: Check, chosen: Recipe, name: str, world: World, say: Say) -> Check:
    say("measuring the time of a step")
    try:
        return replace(found, pace=_pace(chosen, name, world, NowAndThen(say)))
    except (ValueError, RuntimeError, MemoryError) as error:  # the images are what was asked about
        return replace(found, pace_missing=one_line(error, limit=400))


def _pace(chosen: Recipe, name: str, world: World, counted: Counted) -> Pace:
    """The time of a step of the recipe on these images, measured as `barlow pretrain` measures it."""
    began = time.monotonic()
    prepared = preparation.prepare(chosen, world, counted=counted)
    reading = time.monotonic() - began
    plan, loader = prepared.plan, prepared.loader
    seconds = seconds_per_step(build_learner(plan, world, loader, Given()), loader)
    budgets = []
    for minutes in MINUTES:
        steps = max(1, int(60 * minutes / seconds))
        recipe = override(plan.recipe.as_dict(), {"train.steps": steps})
        ran = Ran.of(recipe, prepared.report)
        budgets.append(Budget(minutes, steps, ran.epochs, before_training(ran)))
    return Pace(
        recipe=name,
        views=words(plan.image_size),
        batch=plan.batch_size,
        device=f"{plan.recipe.train.device}, {plan.precision}",
        where=plan.executor,
        reading_seconds=reading,
        step_seconds=seconds,
        epoch_steps=loader.steps_per_epoch,
        budgets=budgets,
        choices=prepared.reasons,
    )


# --- The picture ------------------------------------------------------------------------------------------------------


def _sheet(seen: Survey, firsts: NDArray[np.int64] | None, pairs: list[list[np.ndarray]]) -> np.ndarray:
    """Samples that are spread over the set, then a row for each of the largest groups of near-duplicates, and then
    pairs of test and training images."""
    spread = np.unique(np.linspace(0, len(seen) - 1, SHEET_ROWS * SHEET_COLUMNS).astype(int)).tolist()
    rows = [spread[at : at + SHEET_COLUMNS] for at in range(0, len(spread), SHEET_COLUMNS)]
    groups: list[list[int]] = []
    if firsts is not None:
        numbers, members = np.unique(firsts, return_counts=True)
        largest = numbers[np.argsort(-members, kind="stable")][: int((members > 1).sum())]
        groups = [np.flatnonzero(firsts == first)[:SHEET_COLUMNS].tolist() for first in largest[:SHEET_ROWS]]
    return image_sheet([*([[_image(seen, row) for row in line] for line in part] for part in (rows, groups)), pairs])


def _pairs(train: Survey, test: Survey, overlap: Overlap) -> list[list[np.ndarray]]:
    """Rows of test images, each with the training image that it is like."""
    shown = overlap.pairs[: SHEET_ROWS * SHEET_COLUMNS // 2]
    images = [_image(of, row) for _, *pair in shown for of, row in zip((test, train), pair, strict=True)]
    return [images[at : at + SHEET_COLUMNS] for at in range(0, len(images), SHEET_COLUMNS)]


def _image(seen: Survey, row: int) -> np.ndarray:
    try:
        return seen.source.read(int(seen.inventory.ids[row]), CELL)
    except UnreadableImage as error:
        where = printable(seen.place(row))
        raise UnreadableImage(f"{where} could be read a while ago, and cannot be read any more") from error
