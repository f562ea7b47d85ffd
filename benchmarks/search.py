"""An exact search as `barlow search` makes it: a thousand queries among a million vectors, on one thread."""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import torch
from clock import Cost, Stopwatch
from torch import Tensor

from barlow.probes.neighbours import most_similar

WIDTH, K = 512, 20
PROMISED = 20.0
"""Seconds, for 1,000 queries among 1,000,000 vectors."""

CHECKED = 5
"""Queries that are searched again in float64, once."""


class Search:
    """Clustered vectors with an offset in common, as an encoder's are, and queries near some of them."""

    def __init__(self, vectors: int, queries: int) -> None:
        draws = torch.Generator().manual_seed(0)
        self.among = torch.empty(vectors, WIDTH)
        centres = torch.randn(200, WIDTH, generator=draws)
        for start in range(0, vectors, 50_000):  # so that they never exist twice
            part = self.among[start : start + 50_000]
            part.normal_(generator=draws)
            part += 1 + centres[torch.randint(200, (len(part),), generator=draws)]
        chosen = torch.randperm(vectors, generator=draws)[:queries]
        self.queries = self.among[chosen] + 0.5 * torch.randn(queries, WIDTH, generator=draws)
        self.checked = False

    def ours(self) -> Cost:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            watch = Stopwatch()
            cosines, positions = most_similar(self.among, self.queries, K)
            took = watch.cost()
        finally:
            torch.set_num_threads(threads)
        if not self.checked:
            self.check(cosines, positions)
            self.checked = True
        return took

    def check(self, cosines: Tensor, positions: Tensor) -> None:
        a = torch.nn.functional.normalize(self.queries[:CHECKED].double())
        exact = torch.empty(CHECKED, len(self.among), dtype=torch.float64)
        for start in range(0, len(self.among), 50_000):
            b = torch.nn.functional.normalize(self.among[start : start + 50_000].double())
            exact[:, start : start + len(b)] = a @ b.T
        best = exact.topk(K).values
        off = max(
            float((exact.gather(1, positions[:CHECKED]) - best).abs().max()),
            float((cosines[:CHECKED].double() - best).abs().max()),
        )
        if off > 1e-5:
            raise SystemExit(f"what was found is {off:.3g} away from the most similar in float64")


def rows(smoke: bool) -> Sequence[measure.Row]:
    """A quick look takes a tenth of the vectors."""
    vectors, queries = (100_000 if smoke else 1_000_000), 1_000
    search = Search(vectors, queries)
    return [
        measure.Row(
            name=f"search_{queries}_{vectors // 1000}k_{WIDTH}",
            what=f"cosine: {queries:,} queries, {vectors:,} x {WIDTH}, {K} neighbours, one thread",
            ours=search.ours,
            at_most_seconds=PROMISED * vectors / 1_000_000,
            warmups=0,
            seconds=240.0,
            work=(queries, "queries"),
        )
    ]


if __name__ == "__main__":
    sys.exit(measure.main(__file__, rows))
