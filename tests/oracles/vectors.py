"""Deterministic inputs with published losses, and batches in states that training passes through."""

import torch
from torch import Tensor


def formula_batch(n: int, d: int) -> tuple[Tensor, Tensor]:
    """Two views given by a formula, so that any implementation anywhere can be compared on them."""
    i = torch.arange(n, dtype=torch.float64)[:, None]
    j = torch.arange(d, dtype=torch.float64)[None, :]
    a = torch.sin(1 + 0.7 * i + 1.3 * j**2 + 0.11 * i * j) + 0.3 * torch.cos(2.1 * i - 0.5 * j)
    return a, a + 0.25 * torch.cos(0.9 * i**2 + 0.37 * j + 0.2)


STATES = ("healthy", "far from the origin", "nearly one point", "nearly one direction", "nearly converged")


def batch_in(state: str, n: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two float64 views (exact in float32, so that both precisions see the same numbers)."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    a = noise(n, d) * (0.5 + torch.rand(d, generator=generator, dtype=torch.float64))
    b = a + 0.3 * noise(n, d)
    if state == "far from the origin":
        offset = 100 * noise(1, d)
        a, b = a + offset, b - offset
    elif state == "nearly one point":
        a, b = 3 + 1e-3 * a, 3 + 1e-3 * b
    elif state == "nearly one direction":
        line = 3 * noise(n, 1) * noise(1, d)
        a, b = line + 3e-3 * a, line + 3e-3 * b
    elif state == "nearly converged":
        # As near to white as the rank allows, and the views nearly equal.
        a = a - a.mean(dim=0)
        if n * d <= 2**20:
            u, _, v = torch.linalg.svd(a, full_matrices=False)
            rank = min(n - 1, d)
            a = u[:, :rank] @ v[:rank]
        else:  # as white, and ten times as fast
            a = torch.linalg.qr(a).Q if n > d else torch.linalg.qr(a.T).Q.T
            a = a - a.mean(dim=0)
        a = a * (n - 1) ** 0.5 * 0.98
        b = a + 0.01 * noise(n, d)
    return a.float().double(), b.float().double()
