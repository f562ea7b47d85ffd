"""LARS by loops over the numbers of one tensor, from the equations of the released codes' step."""

import math


def norm(numbers: list[float]) -> float:
    return math.sqrt(math.fsum(x * x for x in numbers))


def lars(
    p: list[float],
    gradients: list[list[float]],
    rates: list[float],
    *,
    weight_decay: float,
    momentum: float = 0.9,
    trust: float = 0.001,
    adapt: bool = True,
    clip: bool = False,
    rate_in_momentum: bool = False,
) -> list[float]:
    """One weight after an update with each gradient. `adapt=False`: a parameter of one dimension, never decayed."""
    p, m = list(p), [0.0] * len(p)
    for g, rate in zip(gradients, rates, strict=True):
        q = 1.0
        if adapt:
            g = [g[i] + weight_decay * p[i] for i in range(len(p))]
            if norm(p) > 0 and norm(g) > 0:
                q = trust * norm(p) / norm(g)
                if clip:
                    q = min(q / rate, 1.0) if rate > 0 else 1.0
        inside, outside = (rate, 1.0) if rate_in_momentum else (1.0, rate)
        for i in range(len(p)):
            m[i] = momentum * m[i] + inside * q * g[i]
            p[i] = p[i] - outside * m[i]
    return p


def solo_learn(
    p: list[float],
    gradients: list[list[float]],
    rates: list[float],
    *,
    weight_decay: float,
    momentum: float = 0.9,
    trust: float = 0.02,
    clip: bool = True,
    eps: float = 1e-8,
) -> list[float]:
    """One weight as solo-learn moves it: norms before the decay, and no decay where one of them is 0."""
    p, m = list(p), [0.0] * len(p)
    for g, rate in zip(gradients, rates, strict=True):
        if norm(p) > 0 and norm(g) > 0:
            q = trust * norm(p) / (norm(g) + weight_decay * norm(p) + eps)
            if clip:
                q = min(q / rate, 1.0)
            g = [q * (g[i] + weight_decay * p[i]) for i in range(len(p))]
        for i in range(len(p)):
            m[i] = momentum * m[i] + g[i]
            p[i] = p[i] - rate * m[i]
    return p
