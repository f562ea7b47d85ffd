"""DeepCluster's pass of an epoch, but for the features: whitening, directions and k-means of 50,000 embeddings."""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import torch
from clock import Cost, Stopwatch

from barlow.kmeans import kmeans, pca_whitened
from barlow.objectives._directions import directions

ROWS, WIDTH, CLUSTERS = 50_000, 512, 1_000
WHITENED, ITERATIONS = 256, 20
"""As `deepcluster_v1` has them by default."""
AT_MOST_SECONDS = 60
SMOKE = 20
"""By how much a quick look has fewer rows, and fewer clusters: the work is their product."""


def embeddings(rows: int) -> torch.Tensor:
    """In as many groups as an epoch of images might have, none of them a cluster that is easy to find."""
    draws = torch.Generator().manual_seed(0)
    centres = torch.randn(100, WIDTH, generator=draws) / torch.arange(1, WIDTH + 1).sqrt()
    return centres[torch.randint(100, (rows,), generator=draws)] + 0.2 * torch.randn(rows, WIDTH, generator=draws)


class Pass:
    """Whitening and k-means of some embeddings, as `deepcluster_v1` looks at all images before an epoch."""

    def __init__(self, rows: int, clusters: int) -> None:
        self.z, self.clusters = embeddings(rows), clusters

    def ours(self) -> Cost:
        watch = Stopwatch()
        kmeans(directions(pca_whitened(self.z, WHITENED)), self.clusters, iterations=ITERATIONS, seed=0)
        return watch.cost()


def rows(smoke: bool) -> Sequence[measure.Row]:
    """The promise is of the whole; a quick look has a part of it, and allows as much of the time for every row."""
    count, clusters = (ROWS // SMOKE, CLUSTERS // SMOKE) if smoke else (ROWS, CLUSTERS)
    return [
        measure.Row(
            name=f"kmeans_{count / 1000:g}k_{WIDTH}_{clusters}",
            what=f"a clustering of DeepCluster v1: {count:,} x {WIDTH}, whitened to {WHITENED}, k {clusters:,}, "
            f"{ITERATIONS} iterations",
            ours=Pass(count, clusters).ours,
            at_most_seconds=AT_MOST_SECONDS * count / ROWS,
            warmups=0,
            work=(count, "images"),
        )
    ]


if __name__ == "__main__":
    sys.exit(measure.main(__file__, rows))
