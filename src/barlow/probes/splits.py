"""Parts of the training images, drawn class by class: a protocol makes its choices on these, never on test images."""

import numpy as np


def subset(labels: np.ndarray, most: int, generator: np.random.Generator) -> np.ndarray:
    """The positions of about `most` images, drawn class by class, with at least one of each class.

    If there are no more than `most`, all are kept.
    """
    n = len(labels)
    if n <= most:
        return np.arange(n)
    if labels.ndim == 2:
        return np.sort(generator.permutation(n)[:most])
    kept = []
    for c in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == c))
        kept.append(members[: max(1, round(len(members) * most / n))])
    return np.sort(np.concatenate(kept))


def split(labels: np.ndarray, held_out: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The positions to fit on and those held out, drawn class by class. A class of one image is fitted only."""
    several = labels.ndim == 2
    groups = [np.arange(len(labels))] if several else [np.flatnonzero(labels == c) for c in np.unique(labels)]
    fit, held = [], []
    for members in groups:
        members = generator.permutation(members)
        out = min(max(1, round(held_out * len(members))), len(members) - 1)
        held.append(members[:out])
        fit.append(members[out:])
    return np.sort(np.concatenate(fit)), np.sort(np.concatenate(held))


def of_each_class(labels: np.ndarray, count: int, seed: int, draw: int) -> list[np.ndarray]:
    """The positions of `count` images of each class, ascending by class: all of a class that has no more.

    They depend on the labels, the seed and the number of the draw, and on nothing else.
    """
    generator = np.random.default_rng([seed, draw])
    return [generator.permutation(np.flatnonzero(labels == c))[:count] for c in np.unique(labels)]
