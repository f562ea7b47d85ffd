"""Colorization as its paper has it: equations 2 to 4 of arXiv 1603.08511, one place of one image at a time."""

import math

import torch
from torch import Tensor

from barlow.objectives._colour_bins import BINS


def soft_code(a: float, b: float) -> dict[int, float]:
    """The share of each of the ten nearest bins."""
    squares = sorted(((a - x) ** 2 + (b - y) ** 2, i) for i, (x, y) in enumerate(BINS))[:10]
    shares = {i: math.exp(-square / (2 * 5.0**2)) for square, i in squares}
    return {i: share / sum(shares.values()) for i, share in shares.items()}


def weights(prior: list[float], uniform: float = 0.5, convention: str = "paper") -> list[float]:
    """The weight of each bin; infinite where the code divides by 0."""
    even = len(prior) if convention == "paper" else sum(share > 0 for share in prior)
    mixed = [(1 - uniform) * p + (uniform / even if p > 0 or convention == "paper" else 0.0) for p in prior]
    found = [1 / share if share > 0 else math.inf for share in mixed]
    expected = sum(p * w for p, w in zip(prior, found, strict=True) if p > 0)
    return [w / expected for w in found]


def smoothed(counts: list[float], sigma: float) -> list[float]:
    found = [0.0] * len(counts)
    for i, count in enumerate(counts):
        spread = [math.exp(-(math.dist(BINS[i], other) ** 2) / (2 * sigma**2)) for other in BINS]
        for j, share in enumerate(spread):
            found[j] += count * share / sum(spread)
    return [share / sum(found) for share in found]


def colorization(logits: Tensor, ab: Tensor, weight: list[float], grey: float = 5.0) -> dict[str, Tensor]:
    """The loss of n images of m places: logits (n, 313 m), bin by bin, and ab (n, 2 m), all a before all b."""
    n, m = len(logits), ab.shape[1] // 2
    total = logits.new_zeros(())
    for i in range(n):
        colours = [(float(ab[i, j]), float(ab[i, m + j])) for j in range(m)]
        if all(abs(a) <= grey and abs(b) <= grey for a, b in colours):
            continue
        for j, (a, b) in enumerate(colours):
            code = soft_code(a, b)
            scores = torch.stack([logits[i, q * m + j] for q in range(len(BINS))])
            logarithms = scores - scores.logsumexp(0)
            likely = max(code, key=lambda q: code[q])
            total = total - weight[likely] * sum(share * logarithms[q] for q, share in code.items())
    return {"cross_entropy": total / (n * m)}
