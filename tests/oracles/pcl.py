"""Prototypical contrast by loops: equations 11 and 12 of the paper, and the released code's concentrations."""

import math

import torch
from oracles.directions import dot
from torch import Tensor


def concentrations(groups: list[list[float]], temperature: float) -> list[float]:
    """φ of each cluster.

    Args:
        groups: squared distances of the images of each cluster to its centroid.
        temperature: the mean of all φ.
    """
    found = []
    for squared in groups:
        n = len(squared)
        found.append(sum(d**0.5 for d in squared) / (n * math.log(n + 10)) if n > 1 else None)
    largest = max(phi for phi in found if phi is not None)
    found = [largest if phi is None else phi for phi in found]
    low, high = percentile(found, 0.1), percentile(found, 0.9)
    found = [min(max(phi, low), high) for phi in found]
    mean = sum(found) / len(found)
    return [temperature * phi / mean for phi in found]


def percentile(values: list[float], share: float) -> float:
    """By linear interpolation between the two nearest of the sorted values."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def prototypes(
    q: Tensor, labels: list[int], negatives: list[int], prototype: Tensor, concentration: list[float]
) -> list[Tensor]:
    """The loss of each row: a softmax over its own prototype, those of the other rows, and some of other clusters.

    Args:
        q: queries.
        labels: the cluster of each; -1: none, and no part.
        negatives: clusters that no query is in.
        prototype: of each cluster, of length 1.
        concentration: of each cluster.
    """
    lost = []
    for i, row in enumerate(q):
        if labels[i] < 0:
            continue
        others = [labels[j] for j in range(len(q)) if j != i and labels[j] >= 0] + negatives
        score = [dot(row, prototype[c]) / torch.sqrt(dot(row, row)) / concentration[c] for c in (labels[i], *others)]
        lost.append(-score[0] + torch.log(sum(torch.exp(s) for s in score)))
    return lost
