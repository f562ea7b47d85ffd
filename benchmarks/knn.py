"""Exact nearest neighbours: time beside plain products, and memory beside the features themselves."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import torch
from clock import Cost, Stopwatch
from torch import Tensor

from barlow.probes.neighbours import most_similar, nearest

K = 20
CHILD = "--peak"


def drawn(rows: int, width: int, seed: int) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def plain(train: Tensor, test: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """‖a‖² − 2ab + ‖b‖² in float32, 16 million distances at a time."""
    b2 = train.square().sum(dim=1)
    found = [
        torch.addmm(b2, a, train.T, alpha=-2).topk(k, dim=1, largest=False) for a in test.split(2**24 // len(train))
    ]
    return torch.cat([d for d, _ in found]), torch.cat([i for _, i in found])


class Search:
    """One search, ours and theirs; both must find the same."""

    def __init__(self, train: Tensor, test: Tensor, cosine: bool) -> None:
        self.train, self.test, self.cosine = train, test, cosine
        self.found = torch.empty(0)

    def ours(self) -> Cost:
        watch = Stopwatch()
        _, self.found = (most_similar if self.cosine else nearest)(self.train, self.test, K)
        return watch.cost()

    def reference(self) -> Cost:
        watch = Stopwatch()
        train, test = (torch.nn.functional.normalize(x) if self.cosine else x for x in (self.train, self.test))
        _, expected = plain(train, test, K)
        took = watch.cost()
        if not len(self.found):  # the first pair may begin with this side
            return took
        some = slice(0, 200)
        exact = torch.cdist(test[some].double(), train.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
        gap = exact.gather(1, self.found[some]) - exact.topk(K, largest=False).values
        # A few roundings of the largest term of a distance: neighbours nearer to each other than that may change place.
        rounding = 16 * 2.0**-24 * float(train.square().sum(dim=1).max())
        if float(gap.abs().max()) > rounding:
            raise SystemExit(f"the neighbours found are farther than the nearest ones by {float(gap.max()):.3g}")
        same = (self.found == expected).float().mean()
        if float(same) < 0.999:
            raise SystemExit(f"only {100 * float(same):.2f} % of the neighbours are those of plain float32")
        return took


def peak_gb() -> float:
    """The largest this process has been (Linux); `getrusage` would begin with the size of the one that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024 / 1e9  # type: ignore[index]


def extra_memory(train: int, test: int, width: int) -> float:
    """GB that a search takes beside its inputs, in a process of its own, by that process's largest size."""
    words = [sys.executable, __file__, CHILD, *map(str, (train, test, width))]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def child(train: int, test: int, width: int) -> None:
    a, b = drawn(test, width, 1), drawn(train, width, 0)
    nearest(b[:1000], a[:10], K)  # the libraries' own rooms
    inputs = peak_gb()
    nearest(b, a, K)
    print(peak_gb() - inputs)


def rows(smoke: bool) -> Sequence[measure.Row]:
    """A quick look takes half of the queries, and a quarter of the rows in the last."""
    queries, kept = (1_000, 50_000) if smoke else (2_000, 200_000)
    train, test = drawn(50_000, 512, 0), drawn(queries, 512, 1)
    euclidean, cosine = Search(train, test, False), Search(train, test, True)
    seconds = 5 * queries / 10_000
    what = f"{queries:,} queries, 50,000 x 512, {K} neighbours, {torch.get_num_threads()} threads"
    return [
        measure.Row(
            name=f"knn_{queries // 1000}k_50k_512",
            what=f"Euclidean distance: {what}",
            ours=euclidean.ours,
            reference=euclidean.reference,
            reference_name="float32 products and topk",
            at_most_seconds=seconds,
            warmups=0 if smoke else 1,
            work=(queries, "queries"),
        ),
        measure.Row(
            name=f"knn_cosine_{queries // 1000}k_50k_512",
            what=f"cosine: {what}",
            ours=cosine.ours,
            reference=cosine.reference,
            reference_name="float32 products and topk",
            at_most_seconds=1.2 * seconds,
            warmups=0 if smoke else 1,
            work=(queries, "queries"),
        ),
        measure.Row(
            name="knn_memory_2048",
            what=f"memory beside the features: 100 queries, {kept:,} x 2048 float32",
            at_most_gb=0.4,
            memory_gb=lambda: extra_memory(kept, 100, 2048),
        ),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        child(*map(int, sys.argv[2:]))
    else:
        sys.exit(measure.main(__file__, rows))
