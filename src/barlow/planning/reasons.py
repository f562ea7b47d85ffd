"""What a run tells before its first step: what was chosen, and why, a line each."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from barlow.data import held_out, oddities
from barlow.data.decoding import ValueRange
from barlow.data.inventory import Inventory, counts
from barlow.data.value_range import FoundRange
from barlow.planning import choices, facts
from barlow.planning.plan import Plan
from barlow.recipe.schema import Recipe
from barlow.size import Size, words
from barlow.views.ops import OPS
from barlow.wording import many, percent


def of(
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
    skipped = (
        f", {len(inventory.skipped)} skipped ({counts(inventory.reasons)}; data.json)" if inventory.skipped else ""
    )
    height, width = inventory.median_size
    widths = "".join(
        f"; {name} {'-'.join(map(str, head['widths']))}"
        for name, head in recipe.method.items()
        if isinstance(head, dict) and "widths" in head
    )
    sizes = [op["size"] for view in recipe.views for op in view if "size" in op]
    lines = [
        f"images   {len(inventory.ids)} usable of {inventory.candidates}{skipped}; "
        f"median {height}x{width} (height x width), "
        f"{_channels(plan.channels)}, {where}",
        *oddities.lines(inventory, batch),
        *sizing,
        f"views    {', '.join(f'{count} of {_px(size)}' for size, count in Counter(sizes).items())}; "
        f"{_network(recipe)}, stem {plan.stem}{widths}",
        f"batch    {batch} ({steps_per_epoch} steps an epoch), peak rate {plan.peak:.3g} "
        f"= {optim.rate_per_256(batch):.3g} × {batch}/256 ({optim.kind}), {recipe.train.device}, {plan.precision}",
    ]
    if (most := recipe.train.rows_in_memory) is not None and most < own.stop - own.start:
        lines.append(f"chunks   of {most} of {own.stop - own.start} images: the loss is of all, batch norm sees one")
    if (kept := recipe.kept) is not None:
        lines.append(f"branch   the run keeps the {kept}")
    if optim.loss_weight != 1:
        lines.append(f"weight   of the loss in the gradient: {optim.loss_weight:g}")
    if (vectors := optim.vectors_peak(batch)) is not None:
        lines.append(f"rate     of biases and norms: {vectors:.3g}")
    if why := chosen.optim.why_rate(batch):
        lines.append(f"rate     {optim.rate_per_256(batch):.3g} for 256 images: {why}")
    return lines


def of_place(plan: Plan, needed: int, working: Size, numbers: int | None) -> str:
    """Where the images are while a run trains.

    Args:
        plan: of the run.
        needed: bytes that they take in memory.
        working: their size there.
        numbers: that are held there; None where the images are streamed.
    """
    if numbers is None:
        return f"streamed by {plan.workers} workers (in memory they would take {needed / 1e9:.1f} GB)"
    return f"held in memory at {words(working)} px ({numbers / 1e6:.0f} MB)"


def of_held_out(plan: Plan, apart: int, usable: int) -> list[str]:
    """What became of the wish that images are kept from training for the monitor."""
    if not plan.recipe.train.monitor_held_out:
        return []
    if not apart:
        return [
            f"held out none of {usable:,} images for the monitor, which looks at training images: from "
            f"{math.ceil(held_out.FEWEST / held_out.SHARE):,} on, {held_out.SHARE:.0%} are held out"
        ]
    return [f"held out {apart:,} of {usable:,} images for the monitor: no step sees them"]


def of_shared_memory(wanted: int, taken: int, batch_bytes: int, free: int) -> str:
    """Why fewer processes read than were to."""
    each = choices.READ_AHEAD * batch_bytes
    return (
        f"workers  {taken} in place of {wanted}: /dev/shm has {free / 1e6:.0f} MB free for this process, and each takes"
        f" {each / 1e6:.3g} MB of it; a container gets more by --shm-size"
    )


@dataclass(frozen=True)
class Values:
    """The range of values of a set, and where it comes from."""

    ends: ValueRange | None
    found: FoundRange | None = None
    """By which images, where it was looked for."""
    of_weights: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For data.json."""
        if self.found is None:
            return {}
        found = {"images": self.found.images, "types": list(self.found.kinds), "clipped_share": self.found.clipped}
        return {"value_range": {"ends": list(self.found.ends), **found}}


def of_values(plan: Plan, values: Values, inventory: Inventory) -> list[str]:
    """What becomes of images with more than 8 bits, of transparent ones, and of the ops of colour."""
    lines = []
    if values.ends is not None:
        low, high = values.ends
        why = ""
        if values.found is not None:
            why = (
                f" ({', '.join(values.found.kinds)}; found over {values.found.images} images; "
                f"{percent(values.found.clipped)} of their values lie outside, and are clipped)"
            )
        elif values.of_weights:
            why = " (of the weights that the run starts from)"
        lines.append(f"values   {low:g} is black and {high:g} is white, in 16 bits{why}")
        if narrow := len(inventory.ids) - inventory.deep:
            lines.append(f"values   {many(narrow, 'image has', 'images have')} 8 bits: of these 255 is white")
    elif inventory.deep:
        lines.append(
            f"values   {many(inventory.deep, 'image has', 'images have')} more than 8 bits, read with 8 and scaled by "
            "the bits of each file; --data.value_range '[LOW, HIGH]' says what is black and white"
        )
    if inventory.transparent:
        words = many(inventory.transparent, "image has transparency: it is", "images have transparency: they are")
        lines.append(f"alpha    {words} put on mid-grey")
    if plan.channels not in (1, 3) and not all(
        OPS[op["kind"]].channelwise for view in plan.recipe.views for op in view
    ):
        lines.append(
            f"views    of {plan.channels} channels: each channel is changed by itself, in place of hue, saturation and "
            "grey (see recipe.yaml)"
        )
    return lines


def _channels(count: int) -> str:
    return {1: "grey", 3: "colour"}.get(count, f"{count} bands")


def of_size(plan: Plan, why: str | None, found: facts.ImageFacts) -> list[str]:
    """Why the views have their size, where it was `auto`, which one would fit long images, and that of centre views."""
    lines, size = [], plan.image_size
    if why is not None:
        lines.append(f"size     {words(size)} px: {why}")
    if plan.centre_size != size:
        lines.append(
            f"encoder  takes whole images at {words(plan.centre_size)} px: larger than the views, as a crop shows "
            "things larger than its image does"
        )
    if why is None or not isinstance(size, int):
        return lines
    if (fitting := choices.size_for_long_images(size, found)) is not None:
        longer, sides = (found.aspect, "wide as high") if found.aspect > 1 else (1 / found.aspect, "high as wide")
        lines.append(
            f"aspect   images are {longer:.3g} times as {sides} (median), and square views show little of one; "
            f"--image-size {words(fitting)} (height x width) fits them, with {math.prod(fitting) / size**2:.1f} times "
            "the pixels of a square view"
        )
    return lines


def _network(recipe: Recipe) -> str:
    """The encoder's name, and what of it was changed: a resnet18 of one block a stage is no resnet18."""
    options = (
        f"{name} {'-'.join(map(str, value))}" if isinstance(value, list) else f"{name} {value}"
        for name, value in recipe.encoder.options.items()
    )
    changed = ", ".join(options)
    return recipe.encoder.name + (f" ({changed})" if changed else "")


def _px(size: Size) -> str:
    return f"{words(size)} px" + ("" if isinstance(size, int) else " (height x width)")
