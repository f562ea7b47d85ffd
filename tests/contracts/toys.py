"""Objectives with state of kinds that no shipped file has yet: what the shape must carry is tried on them.

Prototypes are trained and frozen at first; a bank is read and written by id; a clustering looks at all images before an
epoch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from barlow.types import Embedding, Ids, Terms


@dataclass(frozen=True, kw_only=True)
class Prototypes:
    """Each view is assigned to trained prototypes, and predicts the assignment of the next view; a queue of embeddings
    has its say in how full the prototypes are. The prototypes do not move in the first part of the run."""

    count: int = 5
    length: int = 24
    frozen: float = 0.2

    def build(self, *, width: int, seed: int) -> nn.Module:
        return _Prototypes(self, width, seed)


class _Prototypes(nn.Module):
    def __init__(self, section: Prototypes, width: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.frozen = section.frozen
        self.prototypes = nn.Parameter(torch.randn(section.count, width, generator=generator))
        self.register_buffer("queue", torch.randn(section.length, width, generator=generator))

    def forward(self, groups: list[tuple[Embedding, ...]], *, progress: float) -> Terms:
        queue, terms = self.get_buffer("queue"), []
        for group in groups:
            u = [F.normalize(z, dim=1) for z in group]
            c = F.normalize(self.prototypes, dim=1)
            c = c.detach() + 0 * self.prototypes if progress < self.frozen else c
            for i, view in enumerate(u):
                with torch.no_grad():
                    masses = ((torch.cat([u[i - 1], F.normalize(queue, dim=1)]) @ c.T) / 0.2).softmax(1)
                    codes = masses / masses.sum(0)
                    codes = (codes / codes.sum(1, keepdim=True))[: len(view)]
                terms.append(F.cross_entropy(view @ c.T / 0.2, codes))
        queue.copy_(torch.cat([groups[0][0].detach(), queue])[: len(queue)])
        return {"swapped": torch.stack(terms).mean()}


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Every image's last embedding is remembered by its id, and each row should be nearest to its own."""

    momentum: float = 0.5

    def build(self, *, width: int, images: int, seed: int) -> nn.Module:
        return _Bank(self.momentum, width, images, seed)


class _Bank(nn.Module):
    def __init__(self, momentum: float, width: int, images: int, seed: int) -> None:
        super().__init__()
        self.momentum = momentum
        rows = torch.randn(images, width, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("rows", F.normalize(rows, dim=1))

    def forward(self, groups: list[tuple[Embedding, ...]], *, ids: Ids) -> Terms:
        rows, terms = self.get_buffer("rows"), []
        views = [F.normalize(z, dim=1) for group in groups for z in group]
        for u in views:
            terms.append(F.cross_entropy(u @ rows.clone().T / 0.5, ids))
        rows[ids] = F.normalize(rows[ids].lerp(views[0].detach(), 1 - self.momentum), dim=1)
        return {"instance": torch.stack(terms).mean()}


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Before an epoch each image is given the nearest of a few of all embeddings; each row should say which it is."""

    count: int = 3

    def build(self, *, width: int, images: int) -> nn.Module:
        return _Clusters(self.count, width, images)


class _Clusters(nn.Module):
    def __init__(self, count: int, width: int, images: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(count, width))
        self.register_buffer("labels", torch.full((images,), -1, dtype=torch.int64))
        self.scores = nn.Linear(width, count)
        nn.init.eye_(self.scores.weight)

    def before_epoch(self, embed: Callable[[], tuple[Tensor, Tensor]]) -> None:
        ids, z = embed()
        centres = self.get_buffer("centres")
        centres.copy_(z[:: -(-len(z) // len(centres))].to(centres))
        self.get_buffer("labels")[ids] = torch.cdist(z.to(centres), centres).argmin(1)

    def forward(self, groups: list[tuple[Embedding, ...]], *, ids: Ids) -> Terms:
        labels = self.get_buffer("labels")[ids]
        return {
            "cluster": torch.stack([F.cross_entropy(self.scores(z), labels) for group in groups for z in group]).mean()
        }
