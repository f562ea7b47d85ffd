"""PCL: MoCo, and a query should be more like the prototype of its image's cluster than like those of other clusters."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor, nn

from barlow.kmeans import kmeans
from barlow.objectives._directions import directions
from barlow.objectives._draws import drawn
from barlow.objectives._inputs import check_positive, full_precision, in_float64, mean
from barlow.objectives._levels import Levels
from barlow.objectives._prototypes import Prototypes
from barlow.objectives.moco import MoCo
from barlow.types import Embed, Embedding, Ids, Terms

__all__ = ["PCL"]

MOST = 2**22
"""Clusters: three times as many as ImageNet has images."""

POINTS = 1000
"""Images a cluster, at most, by which centroids are moved; all images have a cluster."""


@dataclass(frozen=True, kw_only=True)
class PCL:
    """MoCo's loss, and the same of clusters: a query should be most like the prototype of its own image's cluster.

    Before each epoch the slow network's embeddings of all images (of their centres, in eval mode) are clustered by
    k-means, several times with other numbers of clusters. A prototype c is the direction of a centroid, and
    φ = Σ distance / (n log(n + 10)), over the n images of its cluster, says how wide the cluster is; φ of clusters with
    one image or none is the largest, the least and largest tenth are cut, and the mean of all is ``temperature``.

    With sᵢⱼ = cos(qᵢ, cⱼ) / φⱼ over the prototypes of the batch's own images and ``negatives`` others,
    prototypes = mean over clusterings of the mean over rows of -log (exp sᵢᵢ / Σⱼ exp sᵢⱼ).
    Which others is drawn, once for a step and clustering, among the clusters that no image of the batch is in.

    Terms: ``contrast``, MoCo's; ``prototypes``, from ``warmup`` on.

    Source: Li et al., Prototypical Contrastive Learning of Unsupervised Representations (arXiv 2005.04966), equations
        11 and 12; salesforce/PCL at 964da1f, main_pcl.py and pcl/builder.py.
    Convention: as MoCo's; with two groups the terms are sums. Two images of one cluster are each other's negatives, as
        published. The batch is the global one, so its own prototypes are, too. Distances are to the centroids, of which
        the prototypes are the directions. Draws are functions of (seed, step, cluster). Prototypes and φ are kept in
        float32; the loss is computed in float64 (float32 on devices without it).
    Deviation: the authors compare the prototypes of each GPU's own rows, so that the loss depends on the number of
        GPUs, and until May 2022 the last prototype was never a negative. Images that could not be read when all were
        clustered have no cluster, and no part in this term.

    Args:
        queue: keys that it holds, a multiple of the keys of a step.
        temperature: (τ) above 0, of keys, and the mean of those of prototypes: 0.2 in the authors' commands.
        clusters: how many there are in each clustering.
        negatives: (r) prototypes beside those of the batch; at most the fewest clusters less the rows of a batch.
        warmup: share of the run, in [0, 1], before which there is no clustering: 20 of 200 epochs.
        iterations: of k-means.
        restarts: of k-means, of which the best counts.

    Raises:
        ValueError: hyper-parameters out of range; as MoCo; more clusters than images, or more negatives than there are
            clusters beside those of a batch.

    Example:
        >>> objective = PCL(queue=8, clusters=(3,), negatives=1, warmup=0.0).build(width=2, images=4, seed=0)
        >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        >>> objective.before_epoch(lambda member: (torch.arange(4), z), progress=0.0)
        >>> sorted(objective([(z[:2], z[:2])], ids=torch.arange(2)))
        ['contrast', 'prototypes']
    """

    moving_target: ClassVar[bool] = True

    queue: int = 16384
    temperature: float = 0.2
    clusters: tuple[int, ...] = (25000, 50000, 100000)
    negatives: int = 16384
    warmup: float = 0.1
    iterations: int = 20
    restarts: int = 5

    def __post_init__(self) -> None:
        MoCo(queue=self.queue, temperature=self.temperature)
        check_positive(iterations=self.iterations, restarts=self.restarts)
        if not self.clusters or not 2 <= min(self.clusters) <= max(self.clusters) <= MOST:
            raise ValueError(
                f"clusters is {list(self.clusters)}: give the number of each clustering, from 2 to {MOST:,}, such as "
                "[100, 200]"
            )
        if not 1 <= self.negatives < min(self.clusters):
            raise ValueError(
                f"negatives is {self.negatives}: give 1 or more, fewer than the {min(self.clusters):,} clusters"
            )
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup is {self.warmup}: give a share of the run, from 0 to 1")

    def levels(self, rows: int, width: int, *, groups: int = 1) -> Levels:
        """The floor is MoCo's, as no term is negative. From ``warmup`` on prototypes are added, of which nothing is
        known: beside MoCo's own level a healthy loss would look as if it had been driven up."""
        of_moco = MoCo(queue=self.queue, temperature=self.temperature).levels(rows, width, groups=groups)
        return Levels(None, of_moco.floor)

    def build(self, *, width: int, images: int, seed: int) -> "Prototypical":
        """The queue and the clusterings, for embeddings of `width` features of so many images."""
        return Prototypical(self, width, images, seed)


class Prototypical(nn.Module):
    """PCL's loss: MoCo's `keys`; a clustering of all images in each of `clusterings`, once they are `clustered`."""

    clustered: Tensor
    seed: Tensor
    steps: Tensor

    def __init__(self, section: PCL, width: int, images: int, seed: int) -> None:
        super().__init__()
        self.section, self.images = section, images
        self.keys = MoCo(queue=section.queue, temperature=section.temperature).build(width=width, seed=seed)
        self.clusterings = nn.ModuleList([Prototypes(k, width, images) for k in section.clusters])
        self.register_buffer("clustered", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seed", torch.tensor(seed))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def before_epoch(self, embed: Embed, *, progress: float) -> None:
        """Clusters the slow network's embeddings of all images, once the warm-up is over."""
        s = self.section
        if progress < s.warmup:
            return
        ids, z = embed(1)
        for number, clustering in enumerate(self._all()):
            k = len(clustering.prototype)
            seed = (int(self.seed) + number) % 2**63
            found = kmeans(
                directions(z), k, iterations=s.iterations, seed=seed, restarts=s.restarts, most_rows=POINTS * k
            )
            clustering.take(found, ids, s.temperature)
        self.clustered.fill_(1)

    def forward(self, groups: list[tuple[Embedding, Embedding]], *, ids: Ids) -> Terms:
        terms: Terms = {}
        if bool(self.clustered):  # before the keys of this step come into the queue
            with full_precision([z for group in groups for z in group], fewest=1) as flat:
                self._check_negatives(len(flat[0]))
                losses = [self._to_prototypes(q, ids) for q in flat[::2]]
                terms["prototypes"] = reduce(torch.add, losses).to(flat[0].dtype)
        terms = {**self.keys(groups), **terms}
        self.steps.add_(1)
        return terms

    def _all(self) -> list[Prototypes]:
        return [clustering for clustering in self.clusterings if isinstance(clustering, Prototypes)]

    def _to_prototypes(self, q: Embedding, ids: Ids) -> Tensor:
        u, losses = directions(in_float64(q)), []
        for number, clustering in enumerate(self._all()):
            clusters = torch.arange(len(clustering.prototype), device=ids.device)
            bits = drawn(self.seed, "negatives among clusters", self.steps, clusters, part=number)
            losses.append(clustering.loss(u, ids, bits, self.section.negatives))
        return mean(losses)

    def check_sizes(self, rows: int, widths: Sequence[tuple[int, ...]]) -> None:
        """Refuses, before training, images that are too few for the clusters, and a batch that no step could use.

        Args:
            rows: of the batch.
            widths: of the members of each group.
        """
        self.keys([tuple(torch.zeros(rows, width) for width in group) for group in widths])
        s = self.section
        if max(s.clusters) > self.images:
            fitting = [max(self.images // share, 2) for share in (50, 25, 13)]
            raise ValueError(
                f"clusters is {list(s.clusters)}, and there are {self.images:,} images: give at most as many, for "
                f"example {fitting}, and fewer negatives"
            )
        self._check_negatives(rows)

    def _check_negatives(self, rows: int) -> None:
        s = self.section
        if s.negatives > (most := min(s.clusters) - rows):
            instead = f"negatives of at most {most}" if most > 0 else f"more than {rows} clusters"
            raise ValueError(
                f"negatives is {s.negatives}, where {min(s.clusters):,} clusters less those of a batch of {rows} are "
                f"{max(most, 0)}: give {instead}"
            )
