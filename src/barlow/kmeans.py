"""k-means that is exact and seeded, for objectives whose labels are clusters; and the whitening that comes before it.

Every process of a run calls it with the same embeddings and gets the same clusters, so nothing is sent between them.
Every row is looked at in every iteration, block by block: beside its input, memory is a few blocks, the centroids and
some numbers a row.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from barlow.linalg import at_least_float32
from barlow.types import Embedding

Centroids = Float[Tensor, "k d"]
Labels = Int64[Tensor, "n"]
Empty = Literal["keep", "split"]

BLOCK = 2**22
"""Numbers of a block of distances, and of the block of rows that they are of: 16 MB of float32."""

PERTURBATION = 1 / 1024
"""By which share of its coordinates a centroid is moved when it is split: that of faiss."""

SINGULAR = 1e-10
"""Directions with less variance than this share of the largest are noise, which whitening would blow up."""


@dataclass(frozen=True)
class Clustering:
    """Where the rows of a matrix belong."""

    centroids: Centroids
    """The mean of the rows of each cluster, of length 1 where it is spherical. (An empty one: see `kmeans`.)"""
    labels: Labels
    """The cluster of each row: that of the nearest of these centroids, the first of them where several are."""
    distances: Float[Tensor, "n"]
    """The squared distance of each row to its centroid; spherical: of its direction, 2 - 2 cos."""

    @property
    def sizes(self) -> Int64[Tensor, "k"]:
        """How many rows each cluster has."""
        return torch.bincount(self.labels, minlength=len(self.centroids))


@torch.no_grad()
def kmeans(
    z: Embedding,
    clusters: int,
    *,
    iterations: int,
    seed: int,
    spherical: bool = False,
    empty: Empty = "split",
    start: Centroids | None = None,
    restarts: int = 1,
    most_rows: int | None = None,
) -> Clustering:
    """Lloyd's algorithm: each row goes to its nearest centroid, each centroid to the mean of its rows, and so on.

    It begins with as many random rows, and ends with an assignment, so that labels and centroids fit each other. It
    ends early where nothing changes any more.

    Source: Lloyd, Least squares quantization in PCM (IEEE Transactions on Information Theory 28, 1982); Johnson, Douze
        and Jégou, Billion-scale similarity search with GPUs (arXiv 1702.08734), as DeepCluster (arXiv 1807.05520) and
        PCL (arXiv 2005.04966) use it: `empty="split"`. Spherical: Dhillon and Modha, Concept decompositions for large
        sparse text data (Machine Learning 42, 2001); DeepCluster v2 as in facebookresearch/swav at 06b1b7c,
        main_deepclusterv2.py: `spherical=True, empty="keep"`.
    Convention: distances are squared. Computed in float32, or float64 if the rows have it, after the mean of all rows
        has been taken off (not where it is spherical); means are summed in float64. Of equal distances the first
        centroid counts.
    Deviation: faiss draws the cluster to be split by going round and round; here it is drawn at once, with the same
        odds: in proportion to its rows less one.

    Args:
        z: the rows. Spherical: their directions count, and a row of zeros is as far from all centroids.
        clusters: how many, at most as many as there are rows.
        iterations: in each of which the centroids are moved; 0 or more.
        seed: of all draws: first centroids, splits, rows that are left out.
        spherical: whether distances are those of directions, and centroids have length 1.
        empty: what becomes of a centroid without rows. `keep`: it stays where it is. `split`: it takes a half of
            another cluster, whose centroid is split into two by moving its coordinates up and down in turns.
        start: the first centroids, in place of random rows.
        restarts: how often all of it is done, from other random rows each time; the least sum of distances is kept.
        most_rows: centroids are moved by at most so many rows, drawn at random; all rows have labels.

    Raises:
        ValueError: more clusters than rows, or rows that are not finite; an argument out of range.

    Example:
        >>> z = torch.tensor([[0.0, 1.0], [0.1, 1.0], [5.0, 5.0], [5.0, 5.1]])
        >>> kmeans(z, 2, iterations=10, seed=0).labels.bincount()
        tensor([2, 2])
    """
    _check(z, clusters, iterations, empty, start, restarts, most_rows)
    z = at_least_float32(z)
    offset = torch.zeros_like(z[0]) if spherical else _mean(z)
    generator = torch.Generator().manual_seed(seed)
    taken = z
    if most_rows is not None and most_rows < len(z):
        drawn = torch.randperm(len(z), generator=generator)[: max(most_rows, clusters)]
        taken = z[drawn.sort().values.to(z.device)]
    space = _Space(taken, offset, spherical)
    best: tuple[float, Centroids] | None = None
    for _ in range(restarts if start is None else 1):
        centroids = _started(space, clusters, generator) if start is None else space.moved(start.to(z))
        centroids, total = _lloyd(space, centroids, iterations, empty, generator)
        if best is None or total < best[0]:
            best = total, centroids
    assert best is not None
    labels, distances = _Space(z, offset, spherical).nearest(best[1])
    return Clustering(best[1] + offset, labels, distances)


@torch.no_grad()
def nearest(z: Embedding, centroids: Centroids, *, spherical: bool = False) -> tuple[Labels, Float[Tensor, "n"]]:
    """The nearest centroid of each row, the first of them where several are, and its squared distance.

    Args:
        z: the rows.
        centroids: as many as there are clusters.
        spherical: whether distances are those of directions, 2 - 2 cos.
    """
    z = at_least_float32(z)
    offset = torch.zeros_like(z[0]) if spherical else _mean(z)
    space = _Space(z, offset, spherical)
    return space.nearest(space.moved(centroids.to(z)))


@torch.no_grad()
def pca_whitened(z: Embedding, width: int) -> Embedding:
    """The rows' coordinates along the directions in which they vary most, each with variance 1.

    Source: DeepCluster (arXiv 1807.05520), section 3.1 and facebookresearch/deepcluster at 2d1927e, clustering.py: 256
        directions, by faiss's PCA with whitening.
    Convention: variances over all rows, divisor n. The covariance and its eigenvectors are computed in float64 (float32
        on devices without it). Each direction points to where its coordinate of largest size is positive.
    Deviation: a direction with less than 1e-10 of the largest variance is left out: a column of zeros. There, faiss
        divides by what rounding has left.

    Args:
        z: the rows.
        width: how many directions; all if there are not so many.

    Raises:
        ValueError: a width below 1, or rows that are not finite.
    """
    if width < 1:
        raise ValueError(f"width is {width}: give the number of directions to keep, such as 256")
    _check_finite(z)
    z = at_least_float32(z)
    mean = _mean(z)
    covariance = torch.zeros(z.shape[1], z.shape[1], dtype=_wide(z), device=z.device)
    for block in z.split(_rows_of_block(z.shape[1])):
        x = (block - mean).to(covariance.dtype)
        covariance.addmm_(x.T, x, alpha=1 / len(z))
    variances, directions = torch.linalg.eigh(covariance)
    variances, directions = variances.flip(0)[:width], directions.flip(1)[:, :width]
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    kept = variances > SINGULAR * variances[:1].clamp_min(0)
    scale = torch.where(kept, largest.sign()[0] / torch.where(kept, variances, 1).sqrt(), 0)
    projection = (directions * scale).to(z.dtype)
    return torch.cat([(block - mean) @ projection for block in z.split(_rows_of_block(z.shape[1]))])


@dataclass(frozen=True)
class _Space:
    """Rows as k-means sees them: less an offset, or as directions. Blocks of them are made when they are needed."""

    z: Embedding
    offset: Float[Tensor, "d"]
    spherical: bool

    def moved(self, rows: Embedding) -> Embedding:
        if not self.spherical:
            return rows - self.offset
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        return torch.where(length > 0, rows / torch.where(length > 0, length, 1), 0)

    def nearest(self, centroids: Centroids) -> tuple[Labels, Float[Tensor, "n"]]:
        """By ‖x - c‖² = ‖x‖² - 2 x·c + ‖c‖², of which ‖x‖² does not matter to which is the nearest."""
        half = 0.5 * centroids.square().sum(dim=1)
        labels, distances = [], []
        for block in self.z.split(_rows_of_block(max(centroids.shape))):
            x = self.moved(block)
            scores = torch.addmm(half, x, centroids.T, beta=-1)  # written so that the first of equals is found
            label = scores.argmax(dim=1)
            labels.append(label)
            distances.append((x - centroids[label]).square().sum(dim=1))
        return torch.cat(labels), torch.cat(distances)

    def sums(self, labels: Labels, clusters: int) -> Tensor:
        """The sum of the rows of each cluster, added in one order, so that every process has the same."""
        if self.z.device.type == "cuda":  # there, index_add_ adds in whatever order its threads come
            return _sums_by_segments(self.moved(self.z), labels, clusters)
        total = torch.zeros(clusters, self.z.shape[1], dtype=_wide(self.z), device=self.z.device)
        rows = _rows_of_block(self.z.shape[1])
        for block, label in zip(self.z.split(rows), labels.split(rows), strict=True):
            total.index_add_(0, label, self.moved(block).to(total.dtype))
        return total


def _sums_by_segments(rows: Embedding, labels: Labels, clusters: int) -> Tensor:
    """The sum of the rows of each cluster, in the order of the rows: some columns at a time, sorted by their labels."""
    order, lengths = labels.argsort(stable=True), torch.bincount(labels, minlength=clusters)
    columns = rows.split(max(BLOCK // len(rows), 1), dim=1)
    wide = _wide(rows)
    return torch.cat(
        [torch.segment_reduce(part[order].to(wide), "sum", lengths=lengths, axis=0) for part in columns], dim=1
    )


def _started(space: _Space, clusters: int, generator: torch.Generator) -> Centroids:
    chosen = torch.randperm(len(space.z), generator=generator)[:clusters]
    return space.moved(space.z[chosen.to(space.z.device)])


def _lloyd(
    space: _Space, centroids: Centroids, iterations: int, empty: Empty, generator: torch.Generator
) -> tuple[Centroids, float]:
    """The centroids after some iterations, and the sum of the distances to them."""
    labels, distances = space.nearest(centroids)
    for _ in range(iterations):
        before = centroids
        centroids = _means(space, labels, before, empty, generator)
        earlier, (labels, distances) = labels, space.nearest(centroids)
        if centroids.equal(before) or (labels.equal(earlier) and empty == "keep"):
            break
    return centroids, float(distances.double().sum() if distances.device.type != "mps" else distances.sum())


def _means(space: _Space, labels: Labels, centroids: Centroids, empty: Empty, generator: torch.Generator) -> Centroids:
    sizes = torch.bincount(labels, minlength=len(centroids))
    sums = space.sums(labels, len(centroids))
    if space.spherical:
        length = torch.linalg.vector_norm(sums, dim=1, keepdim=True)
        means = sums / torch.where(length > 0, length, 1)
        stays = (sizes == 0) | (length[:, 0] == 0)
    else:
        means, stays = sums / sizes.clamp_min(1)[:, None], sizes == 0
    moved = torch.where(stays[:, None], centroids, means.to(centroids.dtype))
    if empty == "keep" or not bool(stays.any()):
        return moved
    _split(moved, sizes, generator)
    return space.moved(moved) if space.spherical else moved


def _split(centroids: Centroids, sizes: Int64[Tensor, "k"], generator: torch.Generator) -> None:
    """Gives each empty cluster half of another one, in place."""
    left = sizes.cpu()
    up = torch.ones_like(centroids[0])
    up[::2] += PERTURBATION
    up[1::2] -= PERTURBATION
    for cluster in (left == 0).nonzero()[:, 0].tolist():
        odds = (left - 1).clamp_min(0).double().cumsum(dim=0)
        if float(odds[-1]) == 0:  # no cluster has two rows: there are as many clusters as rows, or more
            return
        draw = torch.rand((), generator=generator, dtype=torch.float64) * odds[-1]
        whole = int(torch.searchsorted(odds, draw, right=True))
        centroids[cluster] = centroids[whole] * up
        centroids[whole] *= 2 - up
        left[cluster] = left[whole] // 2
        left[whole] -= left[cluster]


def _mean(z: Embedding) -> Float[Tensor, "d"]:
    total = torch.zeros(z.shape[1], dtype=_wide(z), device=z.device)
    for block in z.split(_rows_of_block(z.shape[1])):
        total += block.sum(dim=0, dtype=total.dtype)
    return (total / len(z)).to(z.dtype)


def _wide(z: Tensor) -> torch.dtype:
    return torch.float32 if z.device.type == "mps" else torch.float64


def _rows_of_block(width: int) -> int:
    return max(BLOCK // width, 1)


def _check(
    z: Embedding,
    clusters: int,
    iterations: int,
    empty: str,
    start: Centroids | None,
    restarts: int,
    most_rows: int | None,
) -> None:
    if not 1 <= clusters <= len(z):
        raise ValueError(f"{clusters} clusters of {len(z)} rows: give from 1 to {len(z)}")
    if empty not in get_args(Empty):
        raise ValueError(f"empty is {empty!r}: choose one of {', '.join(get_args(Empty))}")
    if start is not None and start.shape != (clusters, z.shape[1]):
        raise ValueError(f"start has shape {tuple(start.shape)}: give {clusters} centroids of {z.shape[1]} features")
    for name, value, least in (("iterations", iterations, 0), ("restarts", restarts, 1), ("most_rows", most_rows, 1)):
        if value is not None and value < least:
            raise ValueError(f"{name} is {value}: give a whole number from {least} on")
    _check_finite(z)


def _check_finite(z: Embedding) -> None:
    if z.ndim != 2 or 0 in z.shape or not z.is_floating_point():
        raise ValueError(f"rows to cluster are a matrix of floats, got {z.dtype} of shape {tuple(z.shape)}")
    if bad := sum(int((~block.isfinite().all(dim=1)).sum()) for block in z.split(_rows_of_block(z.shape[1]))):
        raise ValueError(f"{bad} of {len(z)} rows to cluster are not finite: look at what produced them")
