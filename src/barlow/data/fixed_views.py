"""A few images in views that never change, so that networks at different times can be compared on the same input."""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int64

from barlow.data.decoding import UnreadableImage
from barlow.data.inventory import in_threads
from barlow.data.last_words import kept_from_the_screen
from barlow.data.sources import ImageSource
from barlow.types import Images, Pixels
from barlow.views.keys import permutation
from barlow.views.pipeline import ViewPipeline

FIRST_EPOCH = 1 << 40
"""Draws are those of epochs that no run reaches: a network never trains on these views."""

FEWEST = 32
"""Images that are read however long that takes."""

CHOICE = 1 << 41
"""The epoch by whose order the images are chosen."""


class FixedViews:
    """Some images of a set, each in a few fixed draws of the recipe's first view.

    The images are read and cropped once, and the crops are kept. What comes after the crop (colours, blur) is made anew
    each time, with the same draws.

    Args:
        source: where images are read. One that cannot be read is left out.
        ids: of all usable images, of which some are taken.
        pipeline: makes the views.
        seed: of the run.
        images: how many are taken, at most.
        seconds: after so many no more images are read, but for the first few.
        draws: of each image.
        workers: threads that decode.
    """

    def __init__(
        self,
        source: ImageSource,
        ids: Int64[np.ndarray, "n"],
        pipeline: ViewPipeline,
        *,
        seed: int,
        images: int,
        draws: int,
        seconds: float = math.inf,
        workers: int = 1,
    ) -> None:
        # One of its own: a pipeline hands out memory that it uses again, and training has a batch in it.
        normalize = pipeline.normalize
        self.pipeline = ViewPipeline(pipeline.views[:1], normalize.mean, normalize.std)
        self.seed, self.draws = seed, draws
        chosen = np.asarray(ids)[permutation(seed, CHOICE, len(ids))[:images]]

        def cropped(id: int) -> list[np.ndarray] | None:
            try:
                image = source.read(int(id)).transpose(2, 0, 1)
            except UnreadableImage:
                return None
            return [self.pipeline.crop_one(image, int(id), seed, FIRST_EPOCH + draw)[0] for draw in range(draws)]

        read, enough = [], time.monotonic() + seconds
        with kept_from_the_screen(), contextlib.closing(in_threads(cropped, chosen, workers)) as crops_of:
            for id, crops in zip(chosen, crops_of, strict=False):
                if crops is not None:
                    read.append((id, crops))
                if len(read) >= FEWEST and time.monotonic() > enough:
                    break
        read.sort(key=lambda each: int(each[0]))
        self.ids = np.array([id for id, _ in read], np.int64)
        self._crops: list[Pixels] = [
            torch.from_numpy(np.stack([crops[draw] for _, crops in read])) for draw in range(draws if read else 0)
        ]

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, draw: int, *, batch_size: int, device: torch.device) -> Iterator[Images]:
        """The normalised views of one draw, in the order of `ids`."""
        for start in range(0, len(self), batch_size):
            rows = slice(start, min(start + batch_size, len(self)))
            crops: Sequence[Pixels] = [self._crops[draw][rows].to(device)]
            yield self.pipeline.finish(crops, self.ids[rows], self.seed, FIRST_EPOCH + draw)[0]
