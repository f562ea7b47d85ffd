"""What objectives whose classes are clusters have in common: draws, first labels, and the cross-entropy."""

import math

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from barlow.linalg import Scalar
from barlow.objectives._classification import surprisal
from barlow.types import Embedding, Ids
from barlow.views.keys import hashed

Clusters = Int64[Tensor, "n"]
"""The cluster of each row; -1 where it has none."""

CLUSTERS = 8
"""First word of the keys of these draws: no other draw of a run has it (tests/house/test_first_words.py)."""

MOST = 2**22
"""Clusters of an objective: three times as many as ImageNet has images."""


def seed_of(seed: int, *numbers: int) -> int:
    """A seed of 63 bits for one of the draws of an objective.

    Args:
        seed: of the run.
        numbers: which draw it is: the look, and what is drawn in it.
    """
    *words, last = numbers
    return int(hashed((CLUSTERS, seed, *words), np.array([last]))[0]) >> 1


def drawn_labels(images: int, clusters: int, seed: int) -> Clusters:
    """Image i belongs to cluster i mod `clusters`, in random order: all clusters are as large."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    return (torch.arange(images) % clusters)[order]


def check_clusters(clusters: int, images: int) -> None:
    """Raises ValueError where there are more clusters than images."""
    if clusters > images:
        raise ValueError(f"clusters is {clusters:,}, and there are {images:,} images: give at most {images}")


def check_counts(**values: tuple[int, int]) -> None:
    """Raises ValueError for a number that is no whole number from its least, which is given beside it, to 4,194,304."""
    for name, (value, least) in values.items():
        if not least <= value <= MOST:
            raise ValueError(f"{name} is {value}: give a whole number from {least} to {MOST:,}")


def check_ids(ids: Ids, rows: int) -> None:
    """Raises ValueError for ids that are not one for each row."""
    if ids.shape != (rows,) or ids.dtype != torch.int64:
        raise ValueError(f"ids is {ids.dtype} of shape {tuple(ids.shape)}: give one int64 for each of the {rows} rows")


def check_width(z: Embedding, built_for: int) -> None:
    """Raises ValueError for embeddings of another width than the state was built for."""
    if z.shape[1] != built_for:
        raise ValueError(f"embeddings of {z.shape[1]} features, and state built for {built_for}: build it for these")


def cross_entropy(
    logits: Float[Tensor, "n k"], clusters: Clusters, weights: Float[Tensor, "n"] | None = None
) -> Scalar:
    """The mean over the rows that have a cluster of how surprising it is: -log of the probability that it is given.

    Where no row has one it is 0, and so is its gradient.

    Args:
        logits: a score for each cluster.
        clusters: the right one of each row, or -1.
        weights: factors of the rows. The mean is not divided by theirs.
    """
    known, right = clusters >= 0, clusters.clamp_min(0)[:, None]
    others = logits.scatter(1, right, -math.inf).logsumexp(dim=1)
    surprise = surprisal(logits.gather(1, right)[:, 0], others)
    if weights is not None:
        surprise = surprise * weights
    return torch.where(known, surprise, 0).sum() / known.sum().clamp_min(1)
