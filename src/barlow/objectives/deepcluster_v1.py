"""DeepCluster: a new classifier each epoch should say in which cluster of all images an image lies."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from barlow.kmeans import kmeans, pca_whitened
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
from barlow.objectives._inputs import check_non_negative, full_precision, in_float64, mean
from barlow.objectives._levels import Levels
from barlow.types import Embed, Embedding, Ids, Terms

__all__ = ["DeepClusterV1"]

STD = 0.01
"""Standard deviation of the top layer's first weights: that of the released code."""


@dataclass(frozen=True, kw_only=True)
class DeepClusterV1:
    """Images are clustered before each epoch, and a new linear layer learns to tell the clusters apart.

    Before an epoch: the embeddings of the centres of all images, in eval mode; their ``whitened`` directions of largest
    variance, each scaled to variance 1; rows of length 1; k-means. Then the top layer starts anew, since cluster 3 of
    this epoch has nothing to do with cluster 3 of the last. In the epoch, with the labels y,
    loss = mean over views of the mean over rows of -w_y log softmax(W max(z, 0) + b)_y.

    Terms: ``clusters``, log(clusters) where nothing is known.

    Source: Caron et al., Deep Clustering for Unsupervised Learning of Visual Features (arXiv 1807.05520), section 3;
        facebookresearch/deepcluster at 2d1927e, main.py, clustering.py, util.py.
    Convention: a mean over rows and views. The embedding is what comes before the last ReLU, which is applied here. An
        empty cluster takes half of another, as in faiss. Weights of the top layer are normal with standard deviation
        0.01, biases 0. Rows of images without a label are left out of the mean. Computed in float64 (float32 on devices
        without it).
        The top layer's own optimizer has no momentum there: a recipe says that by a rule for `objective.*`.
    Deviation: the released code draws images so that all clusters are seen equally often. Here every image is seen once
        an epoch, and w weighs its row instead: the expected gradient is the same. A sampler would need the clusters
        before the workers may read, and step s could not be had without the steps before it.

    Args:
        clusters: how many, at most as many as there are images: about ten times the classes one expects, or more.
        whitened: directions that are kept for k-means.
        iterations: of k-means.
        balance: w of a cluster is its size to the power of -balance, scaled so that the mean over images is 1. 1: all
            clusters count alike. 0: all images do. mmselfsup offers 0.5.

    Raises:
        ValueError: hyper-parameters out of range; more clusters than images; embeddings that are no float matrix of the
            width that it was built for.

    Example:
        >>> objective = DeepClusterV1(clusters=4).build(width=3, images=8, seed=0)
        >>> z, ids = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.arange(8)
        >>> weight, bias = objective.before_epoch(lambda *_, **__: (ids, z))
        >>> round(objective([(z,)], ids=ids)["clusters"].item(), 1)  # log 4
        1.4
    """

    moving_target: ClassVar[bool] = True

    clusters: int = 10_000
    whitened: int = 256
    iterations: int = 20
    balance: float = 1.0

    def __post_init__(self) -> None:
        check_non_negative(balance=self.balance)
        check_counts(clusters=(self.clusters, 2), whitened=(self.whitened, 1), iterations=(self.iterations, 1))

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: all clusters are equally likely."""
        return Levels(math.log(self.clusters), 0.0)

    def build(self, *, width: int, images: int, seed: int) -> "TopLayer":
        """The top layer and the labels, of which the first are random."""
        check_clusters(self.clusters, images)
        return TopLayer(self, width, images, seed)


class TopLayer(nn.Module):
    """The loss with its trained top layer, `weight` and `bias`, and its `labels` by id, -1 where there is none."""

    labels: Tensor
    sizes: Tensor
    seed: Tensor
    epochs: Tensor

    def __init__(self, section: DeepClusterV1, width: int, images: int, seed: int) -> None:
        super().__init__()
        self.section = section
        self.weight = nn.Parameter(torch.zeros(section.clusters, width))
        self.bias = nn.Parameter(torch.zeros(section.clusters))
        labels = drawn_labels(images, section.clusters, seed_of(seed, 0, 1))
        self.register_buffer("labels", labels)
        self.register_buffer("sizes", torch.bincount(labels, minlength=section.clusters))
        self.register_buffer("seed", torch.tensor(seed % (1 << 63)))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))
        self._start()

    @torch.no_grad()
    def before_epoch(self, embed: Embed) -> list[nn.Parameter]:
        """New labels and a new top layer."""
        s = self.section
        ids, z = embed()
        check_clusters(s.clusters, len(ids))
        self.epochs.add_(1)
        found = kmeans(
            directions(pca_whitened(z, s.whitened)),
            s.clusters,
            iterations=s.iterations,
            seed=seed_of(int(self.seed), int(self.epochs), 1),
        )
        self.labels.fill_(-1)
        self.labels[ids] = found.labels
        self.sizes.copy_(found.sizes)
        return self._start()

    def forward(self, groups: list[tuple[Embedding]], *, ids: Ids) -> Terms:
        weights = self._weights()
        terms = []
        for (view,) in groups:
            with full_precision((view,), fewest=1) as (z,):
                check_width(z, self.weight.shape[1])
                check_ids(ids, len(z))
                logits = in_float64(z).relu() @ in_float64(self.weight).T + in_float64(self.bias)
                labels = self.labels[ids]
                loss = cross_entropy(logits, labels, weights[labels.clamp_min(0)].to(logits.dtype))
                terms.append(loss.to(z.dtype))
        return {"clusters": mean(terms)}

    def _weights(self) -> Float[Tensor, "k"]:
        sizes = in_float64(self.sizes)
        inverse = torch.where(sizes > 0, sizes.clamp_min(1) ** -self.section.balance, 0)
        return inverse * sizes.sum() / (inverse * sizes).sum()

    @torch.no_grad()
    def _start(self) -> list[nn.Parameter]:
        generator = torch.Generator().manual_seed(seed_of(int(self.seed), int(self.epochs), 0))
        self.weight.copy_(STD * torch.randn(self.weight.shape, generator=generator))
        self.bias.zero_()
        return [self.weight, self.bias]
