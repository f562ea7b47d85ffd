"""What a piece of work takes: seconds by the wall clock, and seconds that processors spent on it.

Processor seconds count every thread of the process and its child processes, both those that still run (Linux only) and
those that have ended and were waited for. A thread that computes on another core at the moment of reading is up to one
scheduler tick behind (measured: 4 ms), so a piece of work should take some tens of milliseconds.
"""

import math
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """Seconds of one piece of work."""

    wall: float
    processor: float | None
    """None where the work is not a processor's: on a GPU."""

    def __add__(self, other: "Cost") -> "Cost":
        wall = self.wall + other.wall
        if self.processor is None or other.processor is None:
            return Cost(wall, None)
        return Cost(wall, self.processor + other.processor)

    def __truediv__(self, pieces: float) -> "Cost":
        return Cost(self.wall / pieces, None if self.processor is None else self.processor / pieces)


PRODUCT, PRODUCTS = (1_024, 512, 4_096), 5
"""Sizes of the matrices that a core's speed is measured by, and how often they are multiplied."""


def core_gflops() -> float:
    """Billions of additions and multiplications a second of one thread that multiplies matrices of float32: the median
    of a few products, half a second together."""
    import torch  # here, as programs that only read clocks need not load it

    rows, inner, columns = PRODUCT
    a, b = torch.ones(rows, inner), torch.ones(inner, columns)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = [counted(lambda: a @ b)().wall for _ in range(PRODUCTS + 1)]
    finally:
        torch.set_num_threads(threads)
    return 2e-9 * rows * inner * columns / statistics.median(seconds[1:])  # the first one loads what it needs


Piece = Callable[[], Cost]
"""Does the work once and returns its cost; what it prepares for that is not counted."""


class Stopwatch:
    """Runs from the moment it is made."""

    def __init__(self) -> None:
        # This process's own clock is read last here and first in `cost`: asking after the children is not counted.
        self._children = children_seconds()
        self._own = time.process_time()
        self._wall = time.perf_counter()

    def cost(self) -> Cost:
        """What it took since then."""
        wall, own = time.perf_counter() - self._wall, time.process_time() - self._own
        return Cost(wall, own + children_seconds() - self._children)


def counted(work: Callable[[], object]) -> Piece:
    """The cost of work that needs no preparation."""

    def piece() -> Cost:
        watch = Stopwatch()
        work()
        return watch.cost()

    return piece


def of_process(process: int) -> float:
    """Processor seconds of a running process since it began, with all that `children_seconds` counts."""
    try:
        own = time.clock_gettime(~process << 3 | 2)  # what clock_getcpuclockid(3) makes of a process's number
    except OSError:  # it has ended
        own = 0.0
    return own + children_seconds(process)


def children_seconds(process: int | None = None) -> float:
    """Processor seconds of a process's children, and theirs: of running ones, and of those waited for.

    Args:
        process: its number; this process if not given.
    """
    if process is None:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        waited_for = ended.ru_utime + ended.ru_stime
    else:
        waited_for = _waited_for(process)
    return waited_for + sum(of_process(child) for child in _running_children(process or os.getpid()))


def _waited_for(process: int) -> float:
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()  # the name, in brackets, may have spaces in it
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def _running_children(process: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += map(int, thread.read_text(encoding="ascii").split())
        except OSError:  # the thread has ended
            continue
    return found


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Neighbours:
    """How much of the machine others take while something is measured."""

    def __init__(self) -> None:
        self._busy, self._own, self._wall = _busy_seconds(), self._ours(), time.perf_counter()

    def share(self) -> float | None:
        """Share of all cores that processes other than this one and its children have had since; None if unknown."""
        there = (time.perf_counter() - self._wall) * (os.cpu_count() or 1)
        others = (_busy_seconds() - self._busy - (self._ours() - self._own)) / there
        return None if math.isnan(others) else max(0.0, others)

    @staticmethod
    def _ours() -> float:
        return time.process_time() + children_seconds()


def _busy_seconds() -> float:
    """Seconds in which the cores were not idle since the machine began, what a hypervisor took included (Linux)."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0].split()[1:9]
    except OSError:
        return math.nan
    user, nice, system, _, _, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
