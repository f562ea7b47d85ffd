"""The losses of DeepCluster v1 and v2 and of SeLa, and SeLa's assignment, by loops over rows, clusters and features."""

import math

import torch
from oracles.directions import dot
from torch import Tensor


def surprise(logits: list[Tensor], right: int) -> Tensor:
    """-log softmax(logits)_right."""
    largest = max(float(s.detach()) for s in logits)
    total = logits[0].new_zeros(())
    for j, s in enumerate(logits):
        if j != right:
            total = total + torch.exp(s - largest)
    return torch.log1p(total / torch.exp(logits[right] - largest))


def deepcluster_v2(views: list[Tensor], centroids: Tensor, labels: list[list[int]], temperature: float = 0.1) -> Tensor:
    """The loss of views whose rows need not have length 1.

    Args:
        views: of the batch.
        centroids: (heads, clusters, features), of length 1.
        labels: for each head, the cluster of each row; -1 where it has none.
        temperature: of the predictions.
    """
    losses = []
    for head, of_rows in zip(centroids, labels, strict=True):
        for view in views:
            found = [
                surprise([dot(row, c) / dot(row, row) ** 0.5 / temperature for c in head], label)
                for row, label in zip(view, of_rows, strict=True)
                if label >= 0
            ]
            losses.append(sum(found[1:], found[0]) / len(found))
    return sum(losses[1:], losses[0]) / len(losses)


def weights_of(sizes: list[int], balance: float) -> list[float]:
    """What the rows of each cluster count, so that the mean over all images is 1."""
    powers = [size**-balance if size else 0.0 for size in sizes]
    mean = sum(size * power for size, power in zip(sizes, powers, strict=True)) / sum(sizes)
    return [power / mean for power in powers]


def deepcluster_v1(
    views: list[Tensor], weight: Tensor, bias: Tensor, labels: list[int], sizes: list[int], balance: float = 1.0
) -> Tensor:
    """The loss of a linear layer on what the last ReLU leaves.

    Args:
        views: of the batch.
        weight: of the top layer, (clusters, features).
        bias: of the top layer.
        labels: the cluster of each row; -1 where it has none.
        sizes: of the clusters, over all images.
        balance: how far clusters count alike.
    """
    counted = weights_of(sizes, balance)
    losses = []
    for view in views:
        found = []
        for row, label in zip(view, labels, strict=True):
            if label >= 0:
                left = torch.stack([x if float(x.detach()) > 0 else 0 * x for x in row])
                logits = [dot(left, w) + b for w, b in zip(weight, bias, strict=True)]
                found.append(counted[label] * surprise(logits, label))
        losses.append(sum(found[1:], found[0]) / len(found))
    return sum(losses[1:], losses[0]) / len(losses)


def sela(views: list[Tensor], weight: Tensor, bias: Tensor, labels: list[list[int]]) -> Tensor:
    """The loss of linear classifiers.

    Args:
        views: of the batch.
        weight: (heads, clusters, features).
        bias: (heads, clusters).
        labels: for each head, the cluster of each row.
    """
    losses = []
    for head, shift, of_rows in zip(weight, bias, labels, strict=True):
        for view in views:
            found = [
                surprise([dot(row, w) + b for w, b in zip(head, shift, strict=True)], label)
                for row, label in zip(view, of_rows, strict=True)
            ]
            losses.append(sum(found[1:], found[0]) / len(found))
    return sum(losses[1:], losses[0]) / len(losses)


def equal_masses(p: list[list[float]], power: float, turns: int) -> list[list[float]]:
    """n times the matrix nearest to p to a power whose rows have one sum, and whose columns have one."""
    n, k = len(p), len(p[0])
    q = [[value**power for value in row] for row in p]
    for _ in range(turns):
        for j in range(k):
            column = math.fsum(row[j] for row in q)
            for row in q:
                row[j] *= n / k / column
        for row in q:
            mass = math.fsum(row)
            row[:] = [value / mass for value in row]
    return q
