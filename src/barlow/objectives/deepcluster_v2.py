"""DeepCluster v2: every crop should say to which cluster its image belonged at the end of the last epoch."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from barlow.kmeans import kmeans
from barlow.objectives._clusters import (
    check_clusters,
    check_counts,
    check_ids,
    check_width,
    cross_entropy,
    drawn_labels,
    seed_of,
)
from barlow.objectives._directions import directions
from barlow.objectives._inputs import check_positive, full_precision, in_float64, mean
from barlow.objectives._levels import Levels, contrast
from barlow.types import Embed, Embedding, Ids, Terms

__all__ = ["DeepClusterV2"]


@dataclass(frozen=True, kw_only=True)
class DeepClusterV2:
    """Images are clustered before each epoch, and in it every view is to be most like the centroid of its image.

    A bank keeps the last embedding of each image, a row for each of the first ``kept`` views. Before an epoch, each
    head h has the rows of view h mod kept clustered by spherical k-means; centroids c and labels y stay for the epoch:
    loss = mean over heads h and views v of the mean over rows of -log softmax(cos(zᵥ, c_h) / temperature)_y.

    Terms: ``clusters``, log(clusters) where nothing is known.

    Source: Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (arXiv
        2006.09882), section 4.1 and appendix C; facebookresearch/swav at 06b1b7c, main_deepclusterv2.py.
    Convention: means over heads, views and rows. k-means starts from random rows; an empty cluster keeps its centroid.
        Only embeddings get a gradient: centroids are not trained. Rows of images without a label are left out of the
        mean. Unchanged by a positive scale of any row. Computed in float64 (float32 on devices without it); the bank is
        kept in float32.
        The first bank is made by a pass over all images, in views of their own, with batch norm as in training.
    Deviation: the bank is one for all processes, by id. So clusters do not depend on how many there are, and an image
        that an epoch leaves out, in its last short batch, keeps its embedding of before, where the released code gives
        it no label. A row up to 1e-12 long has no direction; its similarities are 0 and it gets no gradient.

    Args:
        clusters: how many a head has, at most as many as there are images: about ten times the classes one expects.
        heads: how many clusterings there are.
        temperature: above 0.
        iterations: of k-means.
        kept: how many views have their embeddings kept: the large crops, where there are small ones.

    Raises:
        ValueError: hyper-parameters out of range; more clusters than images; more than one group, or fewer views than
            are kept; embeddings of another width than it was built for.

    Example:
        >>> objective = DeepClusterV2(clusters=4).build(width=3, images=8, seed=0)
        >>> z, ids = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.arange(8)
        >>> objective.before_epoch(lambda *_, **__: (ids, z))
        >>> objective.labels.shape, round(objective([(z, z)], ids=ids)["clusters"].item())
        (torch.Size([3, 8]), 0)
    """

    moving_target: ClassVar[bool] = True

    clusters: int = 3000
    heads: int = 3
    temperature: float = 0.1
    iterations: int = 10
    kept: int = 2

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature)
        check_counts(
            clusters=(self.clusters, 2), heads=(self.heads, 1), iterations=(self.iterations, 1), kept=(self.kept, 1)
        )

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: views say nothing of their clusters, and are as sure as random directions are."""
        return Levels(contrast(self.clusters, width, self.temperature), 0.0)

    def build(self, *, width: int, images: int, seed: int) -> "ClusterBank":
        """The bank, the centroids and the labels, of which the first are random."""
        check_clusters(self.clusters, images)
        return ClusterBank(self, width, images, seed)


class ClusterBank(nn.Module):
    """The loss with its state: `bank` (views, images, features), of which `seen` says which images have a row,
    `centroids` (heads, clusters, features) and `labels` (heads, images), -1 where there is none."""

    bank: Tensor
    seen: Tensor
    centroids: Tensor
    labels: Tensor
    seed: Tensor
    epochs: Tensor

    def __init__(self, section: DeepClusterV2, width: int, images: int, seed: int) -> None:
        super().__init__()
        self.section = s = section
        generator = torch.Generator().manual_seed(seed_of(seed, 0, 0))
        first = torch.randn(s.heads, s.clusters, width, generator=generator)
        labels = [drawn_labels(images, s.clusters, seed_of(seed, 0, 1 + head)) for head in range(s.heads)]
        self.register_buffer("bank", torch.zeros(s.kept, images, width))
        self.register_buffer("seen", torch.zeros(images, dtype=torch.uint8))
        self.register_buffer("centroids", torch.stack([directions(centroids) for centroids in first]))
        self.register_buffer("labels", torch.stack(labels))
        self.register_buffer("seed", torch.tensor(seed % (1 << 63)))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def before_epoch(self, embed: Embed) -> None:
        """New centroids and labels, from the embeddings of the last epoch."""
        s = self.section
        if not bool(self.seen.any()):
            for view in range(s.kept):
                ids, z = embed(view, augmented=True, training=True)
                self.bank[view, ids] = directions(z).to(self.bank.dtype)
                self.seen[ids] = 1
        ids = self.seen.nonzero()[:, 0]
        check_clusters(s.clusters, len(ids))
        epoch = 1 + int(self.epochs)
        for head in range(s.heads):
            found = kmeans(
                self.bank[head % s.kept, ids],
                s.clusters,
                iterations=s.iterations,
                seed=seed_of(int(self.seed), epoch, head),
                spherical=True,
                empty="keep",
            )
            self.centroids[head].copy_(found.centroids)
            self.labels[head].fill_(-1)
            self.labels[head, ids] = found.labels
        self.epochs.add_(1)

    def forward(self, groups: list[tuple[Embedding, ...]], *, ids: Ids) -> Terms:
        if len(groups) != 1:
            raise ValueError(f"{len(groups)} groups: DeepCluster v2 takes all views of a step, give [(z1, z2, ...)]")
        with full_precision(groups[0]) as views:
            self._check(views, ids)
            u = [directions(in_float64(z)) for z in views]
            losses = []
            for centroids, labels in zip(self.centroids, self.labels, strict=True):
                scaled = in_float64(centroids) / self.section.temperature
                losses += [cross_entropy(view @ scaled.T, labels[ids]) for view in u]
            terms = {"clusters": mean(losses).to(views[0].dtype)}
            self._keep(ids, u[: self.section.kept])
            return terms

    @torch.no_grad()
    def _keep(self, ids: Ids, views: list[Embedding]) -> None:
        """Of an image that is in the batch twice, the first row counts."""
        listed, order = ids.sort(stable=True)
        places = torch.arange(len(ids), device=ids.device)
        begins = torch.ones_like(places, dtype=torch.bool)
        begins[1:] = listed[1:] != listed[:-1]
        first = torch.where(begins, places, 0).cummax(dim=0).values
        for view, u in enumerate(views):
            self.bank[view, listed] = u[order][first].to(self.bank.dtype)
        self.seen[ids] = 1

    def _check(self, views: list[Embedding], ids: Ids) -> None:
        check_width(views[0], self.bank.shape[2])
        check_ids(ids, len(views[0]))
        if self.section.kept > len(views):
            raise ValueError(
                f"{len(views)} views, and kept is {self.section.kept}: give as many views, or keep those of fewer"
            )
