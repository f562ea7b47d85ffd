"""Products of all rows with all rows in float32, on one thread: NumPy's library beside torch's.

A search takes the one that is faster here (`barlow.probes.products`).
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import torch
from clock import Cost, Stopwatch

from barlow.probes.products import Product, by_numpy, by_torch, numpy_in_one_thread

QUERIES, WIDTH = 1_000, 515
"""As `neighbours` has them: 512 columns, and three for the lengths."""


def timed(product: Product, a: torch.Tensor, b: torch.Tensor) -> Callable[[], Cost]:
    out = torch.zeros(len(a), len(b))

    def piece() -> Cost:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with numpy_in_one_thread():
                watch = Stopwatch()
                product(a, b, out)
                return watch.cost()
        finally:
            torch.set_num_threads(threads)

    return piece


def rows(smoke: bool) -> Sequence[measure.Row]:
    """A quick look has an eighth of the rows."""
    count = 4_096 if smoke else 32_768
    draws = torch.Generator().manual_seed(0)
    a, b = torch.randn(QUERIES, WIDTH, generator=draws), torch.randn(count, WIDTH, generator=draws)
    return [
        measure.Row(
            name=f"products_{QUERIES}_{count}_{WIDTH}",
            what=f"scores of {QUERIES:,} rows with {count:,}, {WIDTH} columns, float32, one thread: by NumPy",
            ours=timed(by_numpy, a, b),
            reference=timed(by_torch, a, b),
            reference_name="by torch",
            work=(QUERIES * count, "scores"),
        )
    ]


if __name__ == "__main__":
    sys.exit(measure.main(__file__, rows))
