"""One clustering of all images, and how sharply a query is held to the prototype of its own image's cluster."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from barlow.kmeans import Clustering
from barlow.linalg import Scalar
from barlow.objectives._classification import surprisal
from barlow.objectives._directions import directions
from barlow.objectives._inputs import in_float64
from barlow.types import Embedding, Ids

EXTREMES = (0.1, 0.9)
"""Shares of the clusters whose concentrations are cut to that of the next."""


class Prototypes(nn.Module):
    """The clusters of all images: `prototype`, a direction a row, and its temperature `concentration` (φ). The
    `cluster` of each image is found by its id, -1 where none is known."""

    prototype: Tensor
    concentration: Tensor
    cluster: Tensor

    def __init__(self, clusters: int, width: int, images: int) -> None:
        super().__init__()
        self.register_buffer("prototype", torch.zeros(clusters, width))
        self.register_buffer("concentration", torch.ones(clusters))
        self.register_buffer("cluster", torch.full((images,), -1))

    @torch.no_grad()
    def take(self, found: Clustering, ids: Ids, temperature: float) -> None:
        """Takes a clustering in the place of the last one. Images that are not in it belong nowhere."""
        self.prototype.copy_(directions(found.centroids))
        self.concentration.copy_(concentrations(found.distances, found.labels, len(self.prototype), temperature))
        self.cluster.fill_(-1)
        self.cluster[ids] = found.labels

    def loss(self, q: Embedding, ids: Ids, bits: Int64[Tensor, "k"], negatives: int) -> Scalar:
        """The mean over the rows of -log of the share of a row's own prototype among those that are compared.

        Args:
            q: directions, in the precision to compute in.
            ids: of the rows; those of images without a cluster have no part.
            bits: a number of 63 bits for each cluster: of those that no row has, the ones with the least are compared.
            negatives: how many of these.
        """
        n, own = len(q), self.cluster[ids]
        known = own >= 0
        own = own.clamp(min=0)
        taken = torch.zeros_like(bits, dtype=torch.bool).index_put_((own,), known, accumulate=True)
        others = bits.masked_fill(taken, torch.iinfo(torch.int64).max).topk(negatives, largest=False).indices
        compared = torch.cat([own, others])
        # Copies, as the next clustering may come in before the gradient is computed.
        prototype, scale = in_float64(self.prototype[compared]), in_float64(self.concentration[compared])
        scores = q @ prototype.to(q.dtype).T / scale.to(q.dtype)
        out = torch.zeros_like(scores, dtype=torch.bool)
        out[:, :n] = ~known
        out.diagonal().fill_(True)
        lost = surprisal(scores.diagonal(), scores.masked_fill(out, -torch.inf).logsumexp(dim=1))
        return torch.where(known, lost, 0).sum() / known.sum().clamp(min=1)


def concentrations(
    squared: Float[Tensor, "images"], labels: Int64[Tensor, "images"], clusters: int, temperature: float
) -> Float[Tensor, "clusters"]:
    """How widely each cluster is spread, as a temperature: φ = Σ distance / (n log(n + 10)) of its n images.

    A cluster of one image or none has the largest φ. The least and the largest tenth are cut, and all are scaled so
    that their mean is `temperature`.

    Args:
        squared: distance of each image to the centroid of its cluster, squared.
        labels: its cluster.
        clusters: how many there are.
        temperature: above 0.

    Returns:
        On the CPU, where sums have one order: so every process has the same to the bit.
    """
    distances, labels = squared.cpu().double().sqrt(), labels.cpu()
    sizes = torch.bincount(labels, minlength=clusters).double()
    sums = torch.bincount(labels, weights=distances, minlength=clusters)
    phi = sums / (sizes * (sizes + 10).log()).clamp(min=1)
    phi = torch.where(sizes > 1, phi, torch.where(sizes > 1, phi, 0).max())
    low, high = (torch.quantile(phi, share) for share in EXTREMES)
    phi = phi.clamp(low, high)
    mean = phi.mean()
    return torch.where(mean > 0, temperature * phi / mean.clamp(min=math.ulp(0.0)), temperature)
