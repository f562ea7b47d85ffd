"""What torch's optimizers do to one parameter, by loops over its numbers, from the equations of their papers."""

import math


def sgd(
    p: list[float], gradients: list[list[float]], rates: list[float], *, weight_decay: float, momentum: float = 0.9
) -> list[float]:
    """Momentum that starts with the first gradient, and L2."""
    p, m = list(p), [0.0] * len(p)
    for g, rate in zip(gradients, rates, strict=True):
        for i in range(len(p)):
            m[i] = momentum * m[i] + g[i] + weight_decay * p[i]
            p[i] -= rate * m[i]
    return p


def adam(
    p: list[float], gradients: list[list[float]], rates: list[float], *, weight_decay: float, decoupled: bool
) -> list[float]:
    """Adam with L2 (arXiv 1412.6980), or with decoupled decay (AdamW, arXiv 1711.05101)."""
    p, m, v = list(p), [0.0] * len(p), [0.0] * len(p)
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        for i in range(len(p)):
            gradient = g[i] + (0.0 if decoupled else weight_decay * p[i])
            if decoupled:
                p[i] -= rate * weight_decay * p[i]
            m[i] = 0.9 * m[i] + 0.1 * gradient
            v[i] = 0.999 * v[i] + 0.001 * gradient**2
            p[i] -= rate * (m[i] / (1 - 0.9**t)) / (math.sqrt(v[i] / (1 - 0.999**t)) + 1e-8)
    return p
