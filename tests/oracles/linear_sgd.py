"""The linear protocol of Barlow Twins and VICReg by loops in float64, from its description: one image, one number."""

import math


def rates(lr: float, epochs: int) -> list[float]:
    """A cosine from lr that would reach 0 one epoch after the last."""
    return [0.5 * lr * (1 + math.cos(math.pi * epoch / epochs)) for epoch in range(epochs)]


def logits(weights: list[list[float]], biases: list[float], x: list[float]) -> list[float]:
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weights, biases, strict=True)]


def softmax(row: list[float]) -> list[float]:
    exponentials = [math.exp(v - max(row)) for v in row]
    return [e / sum(exponentials) for e in exponentials]


def sigmoid(row: list[float]) -> list[float]:
    return [1 / (1 + math.exp(-v)) for v in row]


def linear_sgd(
    images: list[list[float]],
    targets: list[list[float]],
    weights: list[list[float]],
    biases: list[float],
    orders: list[list[int]],
    *,
    batch: int,
    lr: float,
    momentum: float,
    weight_decay: float,
    several: bool = False,
) -> list[tuple[list[list[float]], list[float]]]:
    """Weights and biases after each epoch.

    `targets` has a number for each image and class: 1 for its class (or each of its labels), 0 elsewhere. A step takes
    v ← momentum · v + gradient + weight_decay · parameter, parameter ← parameter − rate · v (PyTorch's convention).
    """
    classes, width = len(weights), len(weights[0])
    # One row a class; its last number is the bias.
    parameters = [[*row, b] for row, b in zip(weights, biases, strict=True)]
    velocity = [[0.0] * (width + 1) for _ in range(classes)]
    after = []
    for order, rate in zip(orders, rates(lr, len(orders)), strict=True):
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            gradient = [[0.0] * (width + 1) for _ in range(classes)]
            for i in chosen:
                row = logits([p[:-1] for p in parameters], [p[-1] for p in parameters], images[i])
                shares = sigmoid(row) if several else softmax(row)
                for c in range(classes):
                    error = (shares[c] - targets[i][c]) / len(chosen)
                    for j, value in enumerate([*images[i], 1.0]):
                        gradient[c][j] += error * value
            for c in range(classes):
                for j in range(width + 1):
                    slope = gradient[c][j] + weight_decay * parameters[c][j]
                    velocity[c][j] = momentum * velocity[c][j] + slope
                    parameters[c][j] -= rate * velocity[c][j]
        after.append(([p[:-1] for p in parameters], [p[-1] for p in parameters]))
    return after
