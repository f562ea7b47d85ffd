"""What the objectives cost beside the d × d forms of the papers: time of forward and backward pass, and memory.

Float32 embeddings on the CPU, two threads, fresh random numbers for every pass. The plain forms follow the conventions
of the released codes: Barlow Twins' standardises by batch norm, both sum the squares of the d × d matrix off its
diagonal by leaving out every (d+1)-th entry. tests/benchmarks checks that they have the objectives' values.
"""

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from barlow.objectives.barlow_twins import BarlowTwins
from barlow.objectives.vicreg import VICReg

sys.path.insert(0, str(Path(__file__).parent))
import measure
from clock import Cost, Piece, Stopwatch
from measure import Row

Loss = Callable[[Tensor, Tensor], Tensor]

THREADS = 2
GRID = (64, 256, 1024, 8192)
SECONDS_A_PIECE, SMOKE_SECONDS = 0.1, 0.02
"""A piece repeats what is shorter than this, lest the clocks be measured: that of processors is late by up to 4 ms."""
LARGE = 5e10
"""Multiplications of the plain form, about a second: what is loaded or chosen the first time does not show there."""
_MALLOC_KEEPS = 32 * 2**20 - 4096
"""The largest block, in bytes, after whose release glibc keeps memory for reuse and no longer returns it at once."""


def off_diagonal_squares(matrix: Tensor) -> Tensor:
    """Off the diagonal: without the last entry, every row of d + 1 entries begins with one of the diagonal."""
    d = len(matrix)
    return matrix.flatten()[:-1].view(d - 1, d + 1)[:, 1:].square().sum()


@cache
def batch_norm(d: int, dtype: torch.dtype) -> torch.nn.Module:
    """One for all steps, as in training: it keeps running statistics, too."""
    return torch.nn.BatchNorm1d(d, affine=False, dtype=dtype)


def plain_barlow_twins(za: Tensor, zb: Tensor) -> Tensor:
    """Equations 1 and 2 of Barlow Twins with the weights and the epsilon of the released code."""
    norm = batch_norm(za.shape[1], za.dtype)
    xa, xb = norm(za), norm(zb)
    c = xa.T @ xb / len(za)
    return (c.diagonal() - 1).square().sum() + 0.0051 * off_diagonal_squares(c)


def plain_vicreg(za: Tensor, zb: Tensor) -> Tensor:
    """Section 4.1 of VICReg with the sums, means and weights of the released code."""
    n, d = za.shape
    loss = 25 * torch.nn.functional.mse_loss(za, zb)
    for z in (za, zb):
        x = z - z.mean(dim=0)
        deviation = (x.var(dim=0) + 1e-4).sqrt()
        loss = loss + 25 * torch.relu(1 - deviation).mean() / 2 + off_diagonal_squares(x.T @ x / (n - 1)) / d
    return loss


def our_loss(objective: Callable[..., dict[str, Tensor]], za: Tensor, zb: Tensor) -> Tensor:
    first, *others = objective(za, zb).values()
    return sum(others, first)


OURS: dict[str, Loss] = {"bt": partial(our_loss, BarlowTwins()), "vicreg": partial(our_loss, VICReg())}
PLAIN: dict[str, Loss] = {"bt": plain_barlow_twins, "vicreg": plain_vicreg}
TITLES = {"bt": "Barlow Twins", "vicreg": "VICReg"}


def embeddings(n: int, d: int) -> tuple[Tensor, Tensor]:
    """Two views that agree halfway."""
    za = torch.randn(n, d)
    return za.requires_grad_(), (za.detach() + torch.randn(n, d)).requires_grad_()


def step(loss: Loss, n: int, d: int, repeats: int = 1) -> Piece:
    """Forward and backward pass; the seconds are those of one."""

    def piece() -> Cost:
        views = [embeddings(n, d) for _ in range(repeats)]
        watch = Stopwatch()
        for za, zb in views:
            loss(za, zb).backward()
            za.grad = zb.grad = None  # the next pass has this memory, as in training
        return watch.cost() / repeats

    return piece


def extra_memory(name: str, n: int, d: int) -> float:
    """GB that one pass adds, at its peak, to inputs and their gradients, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_extra_memory_here, (name, n, d))


def _extra_memory_here(name: str, n: int, d: int) -> float:
    torch.set_num_threads(THREADS)
    OURS[name](*embeddings(8, 8)).backward()  # what is loaded once
    views = embeddings(n, d)
    gradients = [torch.ones_like(z) for z in views]  # the pages are there once they are written
    before = _resident("VmRSS")
    del gradients
    OURS[name](*views).backward()
    return _resident("VmHWM") - before


def _resident(field: str) -> float:
    """GB of this process in memory, now (VmRSS) or at most (VmHWM). getrusage's maximum has the parent's in it."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) * 1024 / 1e9


def compared(name: str, n: int, d: int, at_least: float, *, grid: bool = False, smoke: bool = False) -> Row:
    def repeats(multiplications: int) -> int:
        """By a guess: 50 billion multiplications a second, and what calling some hundred operations takes."""
        return max(1, round((SMOKE_SECONDS if smoke else SECONDS_A_PIECE) / (multiplications / 5e10 + 5e-4)))

    return Row(
        name=f"{name}{'_grid' if grid else ''}_{n}x{d}",
        what=f"{TITLES[name]}, forward and backward, {n} x {d} float32, {THREADS} threads",
        ours=step(OURS[name], n, d, repeats(6 * n * d * min(n, d))),
        reference=step(PLAIN[name], n, d, repeats(6 * n * d * d)),
        reference_name="the d x d form",
        at_least=at_least,
        warmups=0 if 6 * n * d * d > LARGE else 1,
        seconds=8.0 if grid else 30.0,
        notes=lambda: {"reference": "released conventions: " + (PLAIN[name].__doc__ or "")},
    )


def within(name: str, n: int, d: int, seconds: float, gigabytes: float) -> Row:
    return Row(
        name=f"{name}_{n}x{d}",
        what=f"{TITLES[name]}, forward and backward, {n} x {d} float32, {THREADS} threads; memory beside the views and "
        "their gradients",
        ours=step(OURS[name], n, d),
        at_most_seconds=seconds,
        at_most_gb=gigabytes,
        memory_gb=partial(extra_memory, name, n, d),
    )


def rows(smoke: bool) -> Sequence[Row]:
    torch.set_num_threads(THREADS)
    # As in a process that has trained for a while: else small sizes measure how the system hands out fresh pages.
    torch.empty(_MALLOC_KEEPS, dtype=torch.uint8).fill_(1)
    listed = []
    for name, at_256, at_1024 in (("bt", 12.0, 3.0), ("vicreg", 8.0, 2.0)):
        if smoke:
            listed.append(compared(name, 64, 1024, 1.0, smoke=True))
        else:
            listed.append(compared(name, 256, 8192, at_256))
            listed.append(compared(name, 1024, 8192, at_1024))
            listed.append(within(name, 256, 65536, 3.0, 1.5))
        for n in GRID:
            for d in GRID:
                large = 8192 in (n, d) and n * d > 64 * 8192
                if (n, d) in ((256, 8192), (1024, 8192)) or n * d == 8192**2 or (smoke and (large or d == 8192)):
                    continue  # named rows, a minute each, or none for a quick look
                listed.append(compared(name, n, d, 1.0, grid=True, smoke=smoke))
    return listed


if __name__ == "__main__":
    sys.exit(measure.main(__file__, rows))
