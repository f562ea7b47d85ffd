"""The batches of a run without their views, for a method that holds the features of all images."""

from collections.abc import Iterator

import torch

from barlow.data.loader import Batch, MemoryLoader, StreamingLoader, batch_of
from barlow.types import Rows


def without_views(loader: MemoryLoader | StreamingLoader, start: int, stop: int) -> Iterator[Batch]:
    """Of the steps start, start + 1, …, stop - 1 what is known of each row, as `loader.stream` would have it.

    No image is read, and no view is made. What a view op tells is not known.
    """
    ids = torch.as_tensor(loader.ids)
    for step in range(start, stop):
        rows = ids[torch.from_numpy(loader.order.rows(step))]
        known = loader.known.of(rows, loader.seed, loader.order.epoch(step))
        yield batch_of(loader.order, step, Rows([], known), [])
