"""What a run's choices depend on: facts of the machine, and of the images, read before anything is decoded."""

from dataclasses import dataclass

import numpy as np
import torch

from barlow.data.decoded import colourless
from barlow.data.decoding import UnreadableImage
from barlow.data.last_words import kept_from_the_screen
from barlow.data.sources import ImageSource
from barlow.distributed import World, has_native_bf16
from barlow.machine import available_cores, available_memory

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


def machine(world: World) -> Machine:
    """The machine as it is now."""
    return Machine(
        device=world.device,
        processes=world.size,
        cores=max(1, available_cores() // world.neighbours),
        memory=available_memory() // world.neighbours,
        half=has_native_bf16(world.device),
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


def images(source: ImageSource) -> ImageFacts:
    """Looks at a few images of a source that is opened in colour."""
    with kept_from_the_screen():
        return _looked_at(source)


def _looked_at(source: ImageSource) -> ImageFacts:
    shapes, grey = [], True
    for index in np.unique(np.linspace(0, len(source) - 1, PROBED).astype(int)):
        try:
            image = source.read(int(index), 0)
        except UnreadableImage:
            continue
        shapes.append(image.shape[:2])
        grey = grey and colourless(image)
        del image  # before the next one is decoded
    # Too many bad files are no matter here: the inventory refuses them, with their reasons.
    if not shapes:
        return ImageFacts(len(source), None, grey=False)
    heights, widths = np.array(shapes).T
    short_side = int(np.median(np.minimum(heights, widths)))
    return ImageFacts(len(source), short_side, grey, aspect=float(np.median(widths / heights)))
