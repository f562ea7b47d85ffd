"""A toy with every kind of state: trained prototypes, a bank of each image's last embedding, and clusters of it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from barlow.objectives._directions import directions
from barlow.objectives._inputs import full_precision, in_float64, mean
from barlow.types import Embedding, Ids, Terms

__all__ = ["Clusters"]


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Embeddings should be told apart by their cluster, of all images' before the epoch, and by their last one."""

    clusters: int = 6
    temperature: float = 0.5

    def build(self, *, width: int, images: int, seed: int) -> nn.Module:
        return _Bank(self, width, images, seed)


class _Bank(nn.Module):
    def __init__(self, section: Clusters, width: int, images: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.temperature = section.temperature
        self.prototypes = nn.Parameter(torch.randn(section.clusters, width, generator=generator))
        self.register_buffer("bank", directions(torch.randn(images, width, generator=generator)))
        self.register_buffer("cluster", torch.arange(images) % section.clusters)
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def before_epoch(self, embed: Callable[[], tuple[Ids, Embedding]]) -> None:
        ids, z = embed()
        nearest = (directions(z) @ directions(self.prototypes).to(z.dtype).T).argmax(dim=1)
        self.get_buffer("cluster")[ids] = nearest
        self.get_buffer("epochs").add_(1)

    def forward(self, groups: list[tuple[Embedding, ...]], *, ids: Ids, progress: float) -> Terms:
        of_groups = [self._terms(group, ids, 1 - progress) for group in groups]
        terms = {name: mean([of_group[name] for of_group in of_groups]) for name in of_groups[0]}
        with torch.no_grad():
            bank = self.get_buffer("bank")
            bank[ids] = directions(groups[0][0]).to(bank.dtype)
        return terms

    def _terms(self, group: tuple[Embedding, ...], ids: Ids, weight: float) -> Terms:
        with full_precision(group) as views:
            u = [directions(in_float64(view)) for view in views]
            to_clusters = [self._contrast(z, self.prototypes, self.get_buffer("cluster")[ids]) for z in u]
            to_images = [self._contrast(z, self.get_buffer("bank").clone(), ids) for z in u]
            terms = {"clusters": weight * mean(to_clusters), "images": mean(to_images)}
            return {name: term.to(views[0].dtype) for name, term in terms.items()}

    def _contrast(self, u: Embedding, rows: Embedding, right: Ids) -> Tensor:
        return F.cross_entropy(u @ directions(in_float64(rows)).T / self.temperature, right)
