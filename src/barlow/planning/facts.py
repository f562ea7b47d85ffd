"""What a run's choices depend on: facts of the machine, and of the images, read before anything is decoded."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from barlow.data.counting import LOOKED_AT, Counted, not_shown, over
from barlow.data.decoded import colourless
from barlow.data.decoding import UnreadableImage
from barlow.data.folder import FolderSource
from barlow.data.last_words import kept_from_the_screen
from barlow.data.sources import ImageSource
from barlow.distributed import World, has_native_bf16
from barlow.machine import available_cores, available_memory, free_shared_memory

PROBED = 32
"""Images that are read to learn size and colour."""


@dataclass(frozen=True)
class Machine:
    """What this process can use."""

    device: torch.device
    processes: int
    """That train together."""
    cores: int
    """Processor cores for this process: those of the machine, shared by its processes."""
    memory: int
    """Bytes of free memory for this process."""
    half: bool
    """Whether the processor multiplies bfloat16 itself."""
    shared: int | None = None
    """Bytes of shared memory for this process (`/dev/shm`), through which processes that read hand on their batches;
    None where it has no limit of its own."""


def machine(world: World) -> Machine:
    """The machine as it is now."""
    return Machine(
        device=world.device,
        processes=world.size,
        cores=max(1, available_cores() // world.neighbours),
        memory=available_memory() // world.neighbours,
        half=has_native_bf16(world.device),
        shared=None if (free := free_shared_memory()) is None else free // world.neighbours,
    )


@dataclass(frozen=True)
class ImageFacts:
    """What a few images, spread through the source, show of all."""

    count: int
    """Files or entries, readable or not."""
    short_side: int | None
    """Median of the shorter sides; None if none of the probed images could be read."""
    grey: bool
    """Whether no colour was met."""
    aspect: float = 1.0
    """Median of width / height; 1 if none of the probed images could be read."""
    bands: int | None = None
    """How many bands most images have, where that is neither one (grey) nor three (colour)."""
    deep: bool = False
    """Whether an image with more than 8 bits, signs or fractions was met."""


def images(source: ImageSource, counted: Counted = not_shown) -> ImageFacts:
    """Looks at a few images of a source.

    Args:
        source: of the images.
        counted: told how many of the few have been looked at.
    """
    with kept_from_the_screen():
        return _looked_at(source, counted)


@dataclass(frozen=True)
class _Look:
    height: int
    width: int
    bands: int
    grey: bool
    deep: bool


def _looked_at(source: ImageSource, counted: Counted) -> ImageFacts:
    looks = []
    chosen = np.unique(np.linspace(0, len(source) - 1, PROBED).astype(int))
    for index in over(chosen, LOOKED_AT, len(chosen), counted):
        try:
            looks.append(_look(source, int(index)))
        except UnreadableImage:
            continue
    # Too many bad files are no matter here: the inventory refuses them, with their reasons.
    if not looks:
        return ImageFacts(len(source), None, grey=False)
    heights, widths = np.array([(look.height, look.width) for look in looks]).T
    short_side = int(np.median(np.minimum(heights, widths)))
    bands, _ = Counter(None if look.bands in (1, 3) else look.bands for look in looks).most_common(1)[0]
    return ImageFacts(
        len(source),
        short_side,
        grey=bands is None and all(look.grey for look in looks if look.bands in (1, 3)),
        aspect=float(np.median(widths / heights)),
        bands=bands,
        deep=any(look.deep for look in looks),
    )


def _look(source: ImageSource, index: int) -> _Look:
    stored = source.stored(index) if isinstance(source, FolderSource) else None
    image = source.read(index, 0) if stored is None else stored.measured()
    height, width, bands = image.shape
    grey = bands in (1, 3) and colourless(image)
    return _Look(height, width, bands, grey, stored is not None and stored.deep)
