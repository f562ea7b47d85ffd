"""Products of all rows with all rows in float32, by the faster of the two libraries that a CPU has here.

torch brings Intel's MKL along, and NumPy brings OpenBLAS. On a processor of AMD the second was a quarter to a half
faster (benchmarks/products.py measures both). On others nobody knows before it is tried. So both are tried, once in a
process, and only where there is work enough to earn that.

The two add up in another order, and their results differ by rounding; another run may choose the other one. So this is
for products of which the roundings decide nothing, such as the scores by which `neighbours` finds its candidates.
"""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from threadpoolctl import ThreadpoolController
from torch import Tensor

ENOUGH = 5e10
"""Multiplications from which the trial is worth it: it takes a sixth of them, and may save a third."""

AHEAD = 1.1
"""How many times as fast NumPy has to be. A trial is short, and may be disturbed."""

TRIAL = (500, 515, 8192)
"""Rows, columns and rows of the products that are tried: about those of a search. Smaller ones hide the difference."""

Product = Callable[[Tensor, Tensor, Tensor], None]

_trial = threading.Lock()
_number = threading.Lock()
_inside = 0
_limit: Any = None


def by_torch(a: Float[Tensor, "m f"], b: Float[Tensor, "n f"], out: Float[Tensor, "m n"]) -> None:
    """Writes a·b of every pair of rows."""
    torch.mm(a, b.T, out=out)


def by_numpy(a: Float[Tensor, "m f"], b: Float[Tensor, "n f"], out: Float[Tensor, "m n"]) -> None:
    """The same, of tensors on the CPU whose types NumPy has."""
    with np.errstate(all="ignore"):  # what is not finite is no news here: torch would not say it either
        np.matmul(a.numpy(), b.numpy().T, out=out.numpy())


def product_for(device: torch.device, dtype: torch.dtype, multiplications: float) -> Product:
    """The function to take for so much work."""
    if device.type != "cpu" or dtype != torch.float32 or multiplications < ENOUGH:
        return by_torch
    with _trial:  # two trials at a time would measure each other
        return by_numpy if numpy_is_faster() else by_torch


@functools.cache
def numpy_is_faster() -> bool:
    """Whether NumPy's product is clearly faster here than torch's, on one thread."""
    m, f, n = TRIAL
    a, b, out = (torch.ones(size, dtype=torch.float32, device="cpu") for size in ((m, f), (n, f), (m, n)))
    seconds: dict[Product, float] = {by_torch: float("inf"), by_numpy: float("inf")}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with numpy_in_one_thread():
            for _ in range(2):
                for product in seconds:
                    began = time.perf_counter()
                    product(a, b, out)
                    seconds[product] = min(seconds[product], time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return seconds[by_torch] > AHEAD * seconds[by_numpy]


@contextlib.contextmanager
def numpy_in_one_thread() -> Iterator[None]:
    """Inside, a product of NumPy takes one thread; it knows nothing of torch's number.

    NumPy has one number for the whole process. So of several threads that are inside, the last one out puts it back.
    """
    global _inside, _limit
    with _number:
        if not _inside:
            _limit = _libraries().limit(limits=1, user_api="blas")
        _inside += 1
    try:
        yield
    finally:
        with _number:
            _inside -= 1
            if not _inside:
                _limit.restore_original_limits()


@functools.cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()
