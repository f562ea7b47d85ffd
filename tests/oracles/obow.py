"""Online bags of visual words by loops, as the paper's sections 3.1 to 3.3 have it."""

import math

import torch
from oracles.directions import dot
from torch import Tensor


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    return dot(a - b, a - b)


def log_softmax(scores: list[Tensor]) -> list[Tensor]:
    largest = max(float(score.detach()) for score in scores)
    total = sum(torch.exp(score - largest) for score in scores)
    return [score - largest - torch.log(total) for score in scores]


def mean_distance(maps: Tensor, words: Tensor) -> float:
    """The mean over positions of all images of the squared distance from the nearest word; maps are (n, h, w, c)."""
    least = [min(float(squared_distance(m, word)) for word in words) for m in maps.flatten(0, 2)]
    return sum(least) / len(least)


def bag(one: Tensor, words: Tensor, sharp: float) -> list[Tensor]:
    """Of one image, (h, w, c): the largest weight of each word over the positions, scaled to sum 1."""
    logs = [log_softmax([-sharp * squared_distance(m, word) for word in words]) for m in one.flatten(0, 1)]
    largest = [torch.exp(max((of_position[k] for of_position in logs), key=float)) for k in range(len(words))]
    return [each / sum(largest) for each in largest]


def directions(words: Tensor, level: dict[str, Tensor]) -> list[Tensor]:
    """A direction of each word: Linear, batch norm over the words, ReLU, Linear, each word scaled to length 1 before
    and after."""

    def unit(z: Tensor) -> Tensor:
        length = torch.sqrt(dot(z, z))
        return z / length if float(length.detach()) > 0 else z

    def linear(z: Tensor, weight: Tensor) -> list[Tensor]:
        return [dot(z, row) for row in weight]

    hidden = [linear(unit(word), level["first"]) for word in words]
    normed: list[list[Tensor]] = [[] for _ in words]
    for j in range(len(level["scale"])):
        column = [row[j] for row in hidden]
        mean = sum(column) / len(column)
        variance = sum((x - mean) ** 2 for x in column) / len(column)
        for k, x in enumerate(column):
            y = level["scale"][j] * (x - mean) / torch.sqrt(variance + 1e-5) + level["shift"][j]
            normed[k].append(torch.clamp(y, min=0))
    made = [torch.stack(linear(torch.stack(row), level["second"])) + level["bias"] for row in normed]
    return [unit(z) for z in made]


def divergence(y: list[Tensor], scores: list[Tensor]) -> Tensor:
    predicted = log_softmax(scores)
    return sum(a * (math.log(float(a)) - p) for a, p in zip(y, predicted, strict=True) if float(a) > 0)


def obow(
    crops: list[Tensor],
    maps: list[Tensor],
    levels: list[dict[str, Tensor]],
    *,
    kinds: list[int],
    inverse_temperature: float = 15.0,
    kappa: float = 8.0,
    memory: float = 0.99,
) -> tuple[Tensor, list[float]]:
    """The loss, and μ of each level after the step.

    Args:
        crops: features of each crop, (n, d).
        maps: of each level, (n, h, w, c).
        levels: of each its `words`, `distance` (μ) and the parameters of the network that makes directions.
        kinds: how many crops there are of each kind.
    """
    moved, of_crops = [], [crops[0].new_zeros(()) for _ in crops]
    for of_level, level in zip(maps, levels, strict=True):
        words = level["words"]
        mu = memory * float(level["distance"]) + (1 - memory) * mean_distance(of_level, words)
        moved.append(mu)
        bags = [bag(image, words, inverse_temperature / mu) for image in of_level]
        aims = directions(words, level)
        for number, p in enumerate(crops):
            rows = [divergence(y, [kappa * dot(row, aim) for aim in aims]) for y, row in zip(bags, p, strict=True)]
            of_crops[number] = of_crops[number] + sum(rows) / len(rows) / len(maps)
    loss, first = crops[0].new_zeros(()), 0
    for count in kinds:
        loss = loss + sum(of_crops[first : first + count]) / count
        first += count
    return loss, moved
