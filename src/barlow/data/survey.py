"""A whole set looked at once: what can be read, what each image is, and its thumbnail.

Every file is opened once. Large JPEGs are decoded at a fraction of their size, which finds the same damage.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from barlow.data import near_duplicates
from barlow.data.counting import Counted, not_shown
from barlow.data.decoding import Array, Header
from barlow.data.inventory import Inventory, read_all
from barlow.data.last_words import kept_from_the_screen
from barlow.data.near_duplicates import READ_SIDE, SIDE
from barlow.data.sources import ImageSource

GREY, COLOUR = "grey", "colour"


@dataclass(frozen=True)
class Survey:
    """What is known of a set once all of it has been read. Rows are the images that can be, in the order of their ids.

    Args:
        source: where the images are.
        inventory: which can be read, and why the others cannot.
        sizes: height and width of each.
        thumbnails: of each (`barlow.data.near_duplicates`).
        brightness: the mean of each thumbnail, 0 to 1.
        contrast: the standard deviation of each thumbnail.
        colour: how far apart the channels of each are, the largest less the smallest, on average; 0 without colour.
        formats: how many files are of each format, by their content; of a set without files none.
        modes: how many images are grey, colour, or have another number of bands, as they are stored.
        labels: class numbers (n,), or zeros and ones (n, classes); None without any.
    """

    source: ImageSource
    inventory: Inventory
    sizes: Int64[np.ndarray, "n 2"]
    thumbnails: UInt8[np.ndarray, "n side side"]
    brightness: Float32[np.ndarray, "n"]
    contrast: Float32[np.ndarray, "n"]
    colour: Float32[np.ndarray, "n"]
    formats: dict[str, int]
    modes: dict[str, int]
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.inventory.ids)

    def place(self, row: int) -> str:
        """Where a person finds an image."""
        return self.source.locate(int(self.inventory.ids[row]))


def survey(source: ImageSource, *, workers: int = 2, counted: Counted = not_shown) -> Survey:
    """Reads all images of a source.

    Args:
        source: what to read.
        workers: threads that decode.
        counted: told how many images have been read.

    Raises:
        TooManyUnreadable: no image can be read.
    """
    count = len(source)
    thumbnails = np.zeros((count, SIDE, SIDE), np.uint8)
    colour = np.zeros(count, np.float32)
    kinds: dict[int, tuple[str, str]] = {}

    def look(index: int, image: Array, header: Header | None) -> Array:
        small = near_duplicates.small(image)
        thumbnails[index] = near_duplicates.in_grey(small)
        colour[index] = (small.max(axis=2) - small.min(axis=2)).mean() / 255
        bands = image.shape[2] if header is None else header.bands
        kinds[index] = "" if header is None else header.format, _mode(bands)
        return image

    with kept_from_the_screen():
        inventory = read_all(source, look, min_side=READ_SIDE, workers=workers, counted=counted)
    inventory.check(1.0)
    ids = inventory.ids
    thumbnails, colour = thumbnails[ids], colour[ids]
    of_each = [kinds[index] for index in ids.tolist()]
    brightness, contrast = near_duplicates.moments(thumbnails) / 255
    labels = source.labels
    return Survey(
        source=source,
        inventory=inventory,
        sizes=inventory.sizes,
        thumbnails=thumbnails,
        brightness=brightness,
        contrast=contrast,
        colour=colour,
        formats=dict(Counter(name for name, _ in of_each if name).most_common()),
        modes=dict(Counter(mode for _, mode in of_each).most_common()),
        labels=None if labels is None else np.asarray(labels)[ids],
    )


def _mode(bands: int) -> str:
    return {1: GREY, 3: COLOUR}.get(bands, f"{bands} bands")
