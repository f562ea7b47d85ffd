"""`shapes_boxes`: generated images of some objects each, with their boxes and masks. They need no file."""

import numpy as np

from barlow.data import shapes
from barlow.detection import masks
from barlow.detection.annotations import AnnotatedSet, Objects

NAME = "shapes_boxes"
SPLITS = {"train": 0, "test": 1}
"""Part of the seed: the splits have different images."""

COUNTS = {"train": 400, "test": 80}
SIZE = (96, 128)
"""Height and width of an image."""

KINDS = ("disc", "square", "triangle", "ring")
"""Of the objects that `barlow.data.shapes` draws."""

SIDES = (20, 44)
"""Of an object, in pixels: the least and the most."""

OBJECTS = (1, 4)
MOST_COVERED = 0.3
"""The share of an object that others may hide. One that would hide more of another is not drawn."""


def shapes_boxes(split: str, count: int | None = None) -> AnnotatedSet:
    """One to four objects of several kinds on a noisy ground, which may hide a part of each other.

    Each image depends on its split and position alone. A mask is what can be seen of an object, and a box the smallest
    that holds the whole mask.

    Args:
        split: "train" or "test".
        count: how many images, if not `COUNTS`. The first ones are the same, however many there are.
    """
    bitmaps = shapes.templates()
    pixels, images = [], []
    for number in range(COUNTS[split] if count is None else count):
        drawn, objects = _image(bitmaps, np.random.default_rng((1706, SPLITS[split], number)), f"{NAME}[{number}]")
        pixels.append(drawn)
        images.append(objects.annotated(with_masks=True))
    return AnnotatedSet(f"{NAME}:{split}", "generated", list(KINDS), images, pixels)


def _image(bitmaps: np.ndarray, rng: np.random.Generator, where: str) -> tuple[np.ndarray, Objects]:
    height, width = SIZE
    ground = rng.integers(60, 196, 3)
    pixels = np.broadcast_to(ground, (height, width, 3)).astype(np.int64)
    seen: list[tuple[int, np.ndarray, int]] = []
    for _ in range(int(rng.integers(*OBJECTS, endpoint=True))):
        kind = int(rng.integers(len(KINDS)))
        high, wide = rng.integers(*SIDES, size=2, endpoint=True)
        top, left = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
        colour = (ground + rng.choice([-1, 1]) * rng.integers(35, 60, 3)).clip(0, 255)
        bitmap = bitmaps[shapes.CLASSES.index(KINDS[kind]), 1]
        rows = ((2 * np.arange(high) + 1) * shapes.TEMPLATE // (2 * high))[:, None]
        columns = ((2 * np.arange(wide) + 1) * shapes.TEMPLATE // (2 * wide))[None, :]
        mask = np.zeros(SIZE, bool)
        mask[top : top + high, left : left + wide] = bitmap[rows, columns] > 0
        if any((old & ~mask).sum() < (1 - MOST_COVERED) * whole for _, old, whole in seen):
            continue
        pixels[mask] = colour
        seen = [(label, old & ~mask, whole) for label, old, whole in seen] + [(kind, mask, int(mask.sum()))]
    pixels = pixels + rng.integers(-20, 21, pixels.shape)
    objects = Objects(where, SIZE)
    for label, mask, _ in seen:
        y, x = np.nonzero(mask)
        box = (x.min(), y.min(), x.max() + 1, y.max() + 1)
        objects.add(box, label, area=float(mask.sum()), outline=masks.run_lengths(mask))
    return pixels.clip(0, 255).astype(np.uint8), objects
