"""Which images a step has, and a look at all of them: functions of keys, whichever steps came before."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from barlow.data.epochs import steps_of_epoch
from barlow.views.keys import hashed, permutation

REPLACEMENT = 3
"""First word of the keys of replacements; `barlow.views.keys` uses 1 and 2."""
ALL_IMAGES = 6
"""First word of the key from which a look at all images has the seed of its draws, which are no step's."""


class Order:
    """Which rows make up step s: a keyed permutation in each epoch, without its last short batch. `block` is this
    process's part of each batch."""

    def __init__(self, count: int, batch_size: int, seed: int, block: slice | None = None) -> None:
        if batch_size < 1:
            raise ValueError(f"batch size {batch_size}: at least 1")
        if count < batch_size:
            works = f"use --batch-size {2 ** (count.bit_length() - 1)}" if count else "give at least one"
            raise ValueError(f"{count} usable images are fewer than a batch of {batch_size}: {works}")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.block = slice(0, batch_size) if block is None else block
        self.steps_per_epoch = steps_of_epoch(count, batch_size)
        self._epoch, self._rows = -1, np.empty(0, np.int64)

    def epoch(self, step: int) -> int:
        return step // self.steps_per_epoch

    def begins_epoch(self, step: int) -> bool:
        return step % self.steps_per_epoch == 0

    def all(self, drawn: int | None = None) -> Iterator[NDArray[np.int64]]:
        """This process's block of every batch of all rows, in order or in the random order of a draw.

        The last batch is filled up: in order with its last row, in random order with the first rows.
        """
        if drawn is None:
            order = np.arange(self.count)
        else:
            order = np.asarray(permutation(seed_of_looks(self.seed), drawn, self.count), np.int64)
        missing = -self.count % self.batch_size
        order = np.concatenate([order, np.full(missing, order[-1]) if drawn is None else order[:missing]])
        for start in range(0, self.count, self.batch_size):
            yield order[start : start + self.batch_size][self.block]

    def rows(self, step: int) -> NDArray[np.int64]:
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._rows = epoch, np.asarray(permutation(self.seed, epoch, self.count), np.int64)
        return self._rows[place * self.batch_size : (place + 1) * self.batch_size][self.block]


def seed_of_looks(seed: int) -> int:
    """From which views of all images are drawn: a keyed hash of the run's seed."""
    return int(hashed((ALL_IMAGES,), np.array([seed]))[0])


def replacement(seed: int, epoch: int, id: int, attempt: int, count: int) -> int:
    """Which of `count` usable images stands in for one that failed: a keyed hash, so the same in every run."""
    return int(hashed((REPLACEMENT, seed, epoch, attempt), np.array([id]))[0] % np.uint64(count))
