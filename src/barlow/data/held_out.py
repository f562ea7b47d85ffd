"""Images of a training set that no step sees: what a run is looked at with, where its recipe asks for such."""

import numpy as np
from numpy.typing import NDArray

from barlow.views.keys import hashed

SHARE, MOST, FEWEST = 0.02, 500, 32
"""At most a fiftieth of the images is held out, and at most 500 of them. A set of which that is fewer than 32 gives
none away: so few say little of a network, and each of them counts in training."""

PURPOSE = 3
"""The first word that is hashed: these numbers are for nothing else (`barlow.views.keys` uses 1 and 2)."""


def held_out(ids: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The images that are held out, in the order of their ids; none of a small set.

    The choice follows from the seed and the ids alone. So a run that is gone on with has the same, and so has each of
    several processes. Every image has a number of its own, and the lowest are taken: an image that cannot be read any
    more changes the choice by itself and by one other at most.

    Args:
        ids: of the usable images.
        seed: of the run.

    Example:
        >>> len(held_out(np.arange(1_599), 0)), len(held_out(np.arange(1_600), 0)), len(held_out(np.arange(60_000), 0))
        (0, 32, 500)
    """
    count = min(MOST, int(SHARE * len(ids)))
    if count < FEWEST:
        return ids[:0]
    return np.sort(ids[np.argsort(hashed([PURPOSE, seed], ids), kind="stable")[:count]])


def divided(ids: NDArray[np.int64], seed: int, *, wanted: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The images that a run trains on, and those that it holds out: none, if that is not wanted.

    Args:
        ids: of the usable images.
        seed: of the run.
        wanted: the recipe's `train.monitor_held_out`.
    """
    apart = held_out(ids, seed) if wanted else ids[:0]
    return np.setdiff1d(ids, apart), apart
