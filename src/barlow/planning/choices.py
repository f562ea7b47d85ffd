"""What `auto` becomes: pure functions from a recipe's value and the facts to the value of the run.

Each takes what the recipe says, which may be `auto`, and gives what the run does. What is not `auto` is left as it is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from barlow.nets.expected import Normalization
from barlow.planning.facts import ImageFacts, Machine
from barlow.recipe.messages import RecipeError
from barlow.recipe.sections import LARGEST, Auto
from barlow.size import HeightWidth, Size, aspect, height_width, largest_inside, size_of
from barlow.views.ops import OPS, kind_of

LARGEST_VIEW = {"cpu": 32, "mps": 96, "cuda": 128}
"""Side of the views that a small recipe takes from larger photos.

On a CPU small views are better in the same time, by far: they make three times as many steps as views of 64 pixels, and
the finished encoder takes larger images all the same (docs/choosing.md).
"""

LEAST_CENTRE = 96
"""Side of the centre views that a finished encoder takes at least, of images that have so many pixels."""

SMALL_STEM_UP_TO = 64
"""Shorter side of views up to which an encoder gets the stem for small images."""

TINY = 16
"""Shorter side of views up to which a CPU computes in float32. Strides then leave some convolution one pixel, and torch
2.13's bfloat16 kernels for strided convolutions of one pixel return whatever memory held as the gradient of its
weights."""

VIEW_SHARE = 0.75
"""Side of the views over the images' own. Crops of 0.2 to 1 of the area have a mean side of E[√U(0.2, 1)] = 0.76 of the
image's, so that on average a crop is neither enlarged nor reduced. The step costs little more than half of one at full
side."""

SMALLEST_REDUCED = 24
"""Where three quarters of the images' side would be fewer pixels than this, the images are small already, and views
keep their side. So 28-pixel digits get 28-pixel views. The 32-pixel images of CIFAR-10 get 24: there it was measured
that more steps are worth more than more pixels (docs/experiments.md)."""

LONG = 2.0
"""Of images that are longer than this, as a ratio of their sides, a square view shows less than half."""

SMALLEST_VIEW = 16
"""With smaller views, crops of a tenth of the area have fewer than six pixels a side."""

WORKING_SCALE = 1.5
"""Images are held at this many times the view's side: a crop of half the area is then hardly enlarged."""

SHARE_OF_MEMORY = 0.25
"""Sets that need less than this share of the free memory are held decoded."""

READINGS, LEAST_SPACING = 15, 10
"""So many lines a log has at least, where they are so many steps apart or more. The doctor's thresholds were chosen on
lines that are ten steps apart (results/doctor.jsonl)."""

USUAL_BATCH = 128
"""Better than 64 and 256 at equal time on two cores (docs/experiments.md)."""

SMALLEST_BATCH = 16
"""Smaller batches are taken of fewer images only."""

BATCHES_AN_EPOCH = 4
"""Small sets get a smaller batch, so that an epoch still has this many different ones."""


def channels(given: int | Auto, images: ImageFacts, weights: Normalization | None = None) -> int:
    """As many as the images have bands; one for images without colour, else three, and of these two, where a run starts
    from given weights, those of their images."""
    if given != "auto":
        return given
    if images.bands is not None:
        return images.bands
    if weights is not None and weights.channels in (1, 3):
        return weights.channels
    return 1 if images.grey else 3


def image_size(given: Size | Auto, images: ImageFacts, machine: Machine) -> tuple[Size, str | None]:
    """Size of the views, a square if not given, and in words the rule that chose it.

    There is no rule where the size was given, or where no image could be read.
    """
    if given != "auto":
        return given, None
    own, most = images.short_side, LARGEST_VIEW[machine.device.type]
    if own is None:
        return most, None
    reduced = int(VIEW_SHARE * own) // 8 * 8
    if reduced > most:
        return most, f"the largest that a small run takes on this device; the images' shorter side is {own}"
    if reduced >= SMALLEST_REDUCED:
        return reduced, f"three quarters of the images' shorter side of {own}, down to a multiple of 8"
    if own >= SMALLEST_VIEW:
        return own, f"the images' own shorter side: three quarters of it would be less than {SMALLEST_REDUCED}"
    return SMALLEST_VIEW, f"the smallest that auto takes; the images' shorter side is {own}"


def size_for_long_images(square: int, images: ImageFacts) -> HeightWidth | None:
    """Height and width of views that fit long images; None for other images.

    Both are multiples of 8, as long as the images are, and together about as many pixels as a square view has. The
    shorter one is no less than `SMALLEST_VIEW`, and this can make them more. For example, images 40 pixels high and 600
    wide have square views of 24 × 24. As many pixels of their shape would be 6 × 93, so the answer is 16 × 240.
    """
    longer = max(images.aspect, 1 / images.aspect)
    if longer <= LONG:
        return None
    short_side = max(round(square / math.sqrt(longer) / 8) * 8, SMALLEST_VIEW)
    long_side = min(round(short_side * longer / 8) * 8, LARGEST["image_size"])
    return (short_side, long_side) if images.aspect > 1 else (long_side, short_side)


def centre_size(given: Size | Auto | None, view: Size, images: ImageFacts, *, fixed: bool) -> Size:
    """Size of the centre views that the finished encoder takes.

    A crop of half the area that is resized to the views' size shows things larger than the whole image does at that
    size. So an encoder meets things at the size that it knows in a centre view of `WORKING_SCALE` times the views.
    Where views are small to save time, still larger centre views are better, up to `LEAST_CENTRE`: the encoder's early
    stages see more. Images are not enlarged for it. On 96-pixel images this is worth three points of kNN and more
    (docs/choosing.md).

    Args:
        given: the recipe's; null stands for the views' size.
        view: size of the views.
        images: what is known of the images.
        fixed: whether the network takes images of one size only, as ViTs do.
    """
    if given is None or (given == "auto" and (fixed or images.short_side is None)):
        return view
    if given != "auto":
        return given
    assert images.short_side is not None
    own = images.short_side * max(1 / images.aspect, 1), images.short_side * max(images.aspect, 1)
    high, wide = height_width(view)
    wanted = max(WORKING_SCALE, LEAST_CENTRE / min(high, wide))
    scale = max(1.0, min(wanted, largest_inside((round(own[0]), round(own[1])), (high, wide))[0] / high))
    return size_of((round(scale * high), round(scale * wide)))


def working_size(given: Size | Auto, view: Size, images: ImageFacts) -> Size:
    """Size at which images are held in memory: a square for square views, and for others the shape that images have.

    A view is cut from the largest box of its own aspect ratio, or from less, so that box is what is held at
    `WORKING_SCALE` times the view. For example, a view of 32 × 128 takes a quarter of the width of an image of
    40 × 640. The quarter is held at 48 × 192, and the image at 48 × 768 (less, where it has fewer pixels itself).
    """
    if given != "auto":
        return given
    high, wide = (max(math.ceil(WORKING_SCALE * side / 8) * 8, side) for side in height_width(view))
    if isinstance(view, int):
        return high
    times = images.aspect / aspect(view)
    most = LARGEST["working_size"]
    return size_of((min(round(high * max(1 / times, 1)), most), min(round(wide * max(times, 1)), most)))


def executor(given: Literal["in_memory", "streaming", "auto"], bytes_needed: int, machine: Machine) -> str:
    """In memory where the whole set, decoded, takes little of it. Each process holds the whole set."""
    if given != "auto":
        return given
    return "in_memory" if bytes_needed <= SHARE_OF_MEMORY * machine.memory else "streaming"


def workers(given: int | Auto, executor: str, machine: Machine) -> int:
    """Threads that decode a set into memory, or processes that stream it and leave a core to the network."""
    if given != "auto":
        return given
    return machine.cores if executor == "in_memory" else max(1, min(8, machine.cores - 1))


READ_AHEAD = 2
"""Batches that each process that reads has ready or in the making: DataLoader's own number."""


def workers_that_fit(wanted: int, batch_bytes: int, machine: Machine) -> int:
    """As many of the processes that stream as shared memory has room for; 0 reads in the training process itself.

    Beside what they read ahead, there is the batch of the step that is under way, and the one before it.

    Args:
        wanted: how many are asked for.
        batch_bytes: of the crops of all views of this process's part of a batch.
        machine: has the shared memory.
    """
    if machine.shared is None:
        return wanted
    room = machine.shared // max(1, batch_bytes) - 2
    return max(0, min(wanted, room // READ_AHEAD))


def mean_and_std(
    mean: Sequence[float] | Auto, std: Sequence[float] | Auto, measured: tuple[Sequence[float], Sequence[float]] | None
) -> tuple[list[float], list[float]]:
    """Of each channel, as given, or as measured on the images."""
    chosen = []
    for given, found in zip((mean, std), measured or ((), ()), strict=True):
        chosen.append([round(value, 6) for value in found] if isinstance(given, str) else list(given))
    return chosen[0], chosen[1]


def of_channels(views: Sequence[Sequence[Mapping[str, Any]]], channels: int) -> dict[str, dict[str, Any]]:
    """The ops that mean nothing for so many channels, by their keys, and what stands in their places.

    What that is, an op says itself (`Op.for_channels`).

    Raises:
        RecipeError: nothing can stand in the place of one.
    """
    replaced = {}
    for v, view in enumerate(views):
        for o, content in enumerate(view):
            if OPS[content["kind"]].channelwise:
                continue
            of_tiles = {name: content[name] for name in ("each_tile",) if name in content}
            op = OPS[content["kind"]](**{name: content[name] for name in content.keys() - {"kind", *of_tiles}})
            try:
                stands_in: Any = op.for_channels(channels)
            except ValueError as error:
                raise RecipeError(f"views.{v}.{o}: {error}") from None
            if stands_in != op:
                replaced[f"views.{v}.{o}"] = {"kind": kind_of(type(stands_in)), **asdict(stands_in), **of_tiles}
    return replaced


def log_steps(usual: int, steps: int) -> int:
    """After how many steps the log has a line: the usual number, and fewer in a short run, so that it has curves.

    Example:
        >>> [log_steps(50, steps) for steps in (58, 300, 1_000)]
        [10, 20, 50]
    """
    return min(usual, max(LEAST_SPACING, steps // READINGS))


def batch_size(given: int | Auto, usable: int, least: int = SMALLEST_BATCH) -> int:
    """The usual batch, halved until an epoch has enough different ones.

    Args:
        given: the recipe's.
        usable: number of images.
        least: where the objective asks for so many rows, it is not halved further, as long as there are so many images;
            where there are fewer, all are one batch. W-MSE of 32 dimensions, for example, asks for 64.
    """
    if given != "auto":
        return given
    batch = USUAL_BATCH
    while batch * BATCHES_AN_EPOCH > usable and batch > max(SMALLEST_BATCH, least):
        batch //= 2
    if SMALLEST_BATCH < usable < least:
        return usable  # what there is comes nearest to what the objective needs
    while batch > max(usable, 2):
        batch //= 2
    return batch


def precision(given: Literal["bf16", "float32", "auto"], view: Size, machine: Machine) -> str:
    """bfloat16 where the processor multiplies it itself; elsewhere it would be slower than float32."""
    if given != "auto":
        return given
    return "bf16" if machine.half and (machine.device.type != "cpu" or min(height_width(view)) > TINY) else "float32"


def stem(given: str, view: Size, has_small_stem: bool) -> str:
    """The stem for small images where the encoder has one and the views are small."""
    if given != "auto":
        return given
    return "strided" if has_small_stem and min(height_width(view)) <= SMALL_STEM_UP_TO else "as_is"


def device(machine: Machine) -> str:
    """As the recipe of the run names it: of several GPUs each process takes its own."""
    return machine.device.type if machine.processes > 1 else str(machine.device)
