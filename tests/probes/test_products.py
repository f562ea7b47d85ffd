"""Products by two libraries: the same numbers up to rounding, in so many threads, chosen by their time."""

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from barlow.probes import products
from barlow.probes.products import by_numpy, by_torch, numpy_in_one_thread, product_for

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _tried_anew():
    products.numpy_is_faster.cache_clear()
    yield
    products.numpy_is_faster.cache_clear()


def drawn(n, seed):
    return torch.randn(n, 40, generator=torch.Generator().manual_seed(seed))


def of(product, a, b):
    out = torch.empty(len(a), len(b))
    product(a, b, out)
    return out


def numpys() -> set[int]:
    """The threads that NumPy's library takes."""
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


def test_both_are_the_products_of_all_pairs():
    a, b = drawn(70, 0), drawn(90, 1)
    exact = a.double() @ b.double().T
    for product in (by_torch, by_numpy):
        torch.testing.assert_close(of(product, a, b).double(), exact, rtol=0, atol=1e-5)


def test_numbers_that_are_not_finite_go_through_without_a_word():
    a = torch.tensor([[torch.inf, 1.0], [torch.nan, 0.0], [3e38, 3e38]])
    torch.testing.assert_close(of(by_numpy, a, a), of(by_torch, a, a), equal_nan=True)


def test_inside_numpy_takes_one_thread_and_afterwards_what_it_took_before():
    before = numpys()
    with numpy_in_one_thread():
        assert numpys() == {1}
    assert numpys() == before
    with pytest.raises(RuntimeError), numpy_in_one_thread():
        raise RuntimeError
    assert numpys() == before


def test_of_two_that_are_inside_the_last_one_out_puts_the_number_back():
    with threadpool_limits(3, user_api="blas"):
        before = numpys()
        first, second = numpy_in_one_thread(), numpy_in_one_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert numpys() == {1}
        second.__exit__(None, None, None)
        assert numpys() == before == {3}


@pytest.mark.parametrize("slow", [by_torch, by_numpy])
def test_the_faster_one_is_taken(slow, monkeypatch):
    def slowly(product):
        def timed(a, b, out):
            clock[0] += 2.0 if product is slow else 1.0
            product(a, b, out)

        return timed

    clock = [0.0]
    monkeypatch.setattr(products.time, "perf_counter", lambda: clock[0])
    for product in (by_torch, by_numpy):
        monkeypatch.setattr(products, product.__name__, slowly(product))
    chosen = product_for(CPU, torch.float32, products.ENOUGH)
    assert chosen is (products.by_numpy if slow is by_torch else products.by_torch)


@pytest.mark.parametrize(
    ("dtype", "multiplications"), [(torch.float64, 1e12), (torch.bfloat16, 1e12), (torch.float32, 4e10)]
)
def test_other_types_and_little_work_are_torchs_without_a_trial(dtype, multiplications, monkeypatch):
    monkeypatch.setattr(products, "numpy_is_faster", lambda: pytest.fail("tried"))
    assert product_for(CPU, dtype, multiplications) is by_torch


def test_a_trial_is_of_float32_on_the_cpu_whatever_torch_takes_by_default(monkeypatch):
    seen = []
    monkeypatch.setattr(products, "by_torch", lambda a, b, out: seen.extend((a, b, out)))
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            products.numpy_is_faster()
    finally:
        torch.set_default_dtype(torch.float32)
    assert {(x.dtype, x.device.type) for x in seen} == {(torch.float32, "cpu")}


def test_a_trial_leaves_the_threads_as_they_were():
    threads, before = torch.get_num_threads(), numpys()
    products.numpy_is_faster()
    assert (torch.get_num_threads(), numpys()) == (threads, before)
