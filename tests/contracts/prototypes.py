"""A toy with trained prototypes that are frozen at first, and a queue of earlier embeddings.

It is not beside the other toys: its targets follow the embeddings without a gradient, which finite differences see.
"""

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from barlow.objectives._directions import directions
from barlow.objectives._inputs import full_precision, in_float64, mean
from barlow.types import Embedding, Terms

__all__ = ["Prototypes"]


@dataclass(frozen=True, kw_only=True)
class Prototypes:
    """A view should say to which prototypes another view of its image belongs."""

    prototypes: int = 5
    queue: int = 24
    temperature: float = 0.2
    frozen_until: float = 0.2

    def build(self, *, width: int, seed: int) -> nn.Module:
        return _Prototypes(self, width, seed)


class _Prototypes(nn.Module):
    def __init__(self, section: Prototypes, width: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.temperature, self.frozen_until = section.temperature, section.frozen_until
        self.prototypes = nn.Parameter(torch.randn(section.prototypes, width, generator=generator))
        self.register_buffer("queue", directions(torch.randn(section.queue, width, generator=generator)))

    def forward(self, groups: list[tuple[Embedding, ...]], *, progress: float) -> Terms:
        terms = [self._swapped(group, progress) for group in groups]
        queue = self.get_buffer("queue")
        with torch.no_grad():
            queue.copy_(torch.cat([directions(groups[0][0]).to(queue.dtype), queue])[: len(queue)])
        return {"swapped": mean(terms)}

    def _swapped(self, group: tuple[Embedding, ...], progress: float) -> Tensor:
        with full_precision(group) as views:
            u = [directions(in_float64(view)) for view in views]
            c = directions(in_float64(self.prototypes))
            c = c.detach() if progress < self.frozen_until else c
            terms = [
                F.cross_entropy(u[a] @ c.T / self.temperature, self._codes(u[b], c))
                for a, b in permutations(range(len(u)), 2)
            ]
            return mean(terms).to(views[0].dtype)

    @torch.no_grad()
    def _codes(self, u: Tensor, c: Tensor) -> Tensor:
        """How much of a row belongs to each prototype; the queue has its say in how full each prototype is."""
        masses = (torch.cat([u, self.get_buffer("queue").to(u)]) @ c.T / self.temperature).softmax(1)
        masses = masses / masses.sum(0)
        return (masses / masses.sum(1, keepdim=True))[: len(u)]
