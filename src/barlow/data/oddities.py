"""What is odd about a set of images, a line each: nothing of it is an error, and all of it is worth knowing."""

from collections.abc import Iterator
from typing import Any

from barlow.data import image_digests
from barlow.data.folder import EMPTY, SPLITS, printable
from barlow.data.inventory import Inventory

FEW_ROWS = 16
"""A batch of fewer images is called small: correlations and spreads over it are mostly chance."""

NAMED = 3
"""So many names are given in a line."""


def lines(inventory: Inventory, batch_size: int) -> Iterator[str]:
    """What a run says of its images and its batch before the first step."""
    if splits := inventory.notes.get(SPLITS):
        yield (
            f"splits   {inventory.name} holds {names(splits)}, and all are trained on: give one of them to keep the "
            "others for evaluation"
        )
    if empty := inventory.notes.get(EMPTY):
        yield of_empty(empty)
    repeated, certain = image_digests.copies(inventory.digests)
    if repeated:
        yield of_copies(repeated, len(inventory.ids), certain)
    if batch_size < FEW_ROWS:
        yield f"batch    {batch_size} images are few to take correlations or spreads of: 64 and more are usual"


def of_empty(folders: Any) -> str:
    """A line on sub-folders without images."""
    return f"empty    no images in {names(folders)}"


def of_copies(repeated: int, images: int, certain: bool) -> str:
    """A line on images that are copies of others; see `image_digests.copies`."""
    how = "are copies of others," if certain else "may be copies of others: they agree"
    return f"copies   {repeated:,} of {images:,} images {how} {image_digests.words(certain)}"


def names(found: Any) -> str:
    """A few names of many."""
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(map(printable, found[:NAMED])) + more
