"""The benchmark of the objectives: what they are compared with has their values, and its memory is that of one pass."""

from types import ModuleType

import pytest
import torch
from programs import program


@pytest.fixture(scope="module", name="program")
def objective_rows() -> ModuleType:
    return program("benchmarks/objectives.py")


@pytest.mark.parametrize("name", ["bt", "vicreg"])
@pytest.mark.parametrize("size", [(8, 4), (24, 40), (6, 30), (64, 64)])
def test_the_plain_forms_have_the_values_and_gradients_of_the_objectives(
    program: ModuleType, name: str, size: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    za = torch.randn(*size, generator=generator, dtype=torch.float64)
    views = [z.requires_grad_() for z in (za, za + torch.randn(*size, generator=generator, dtype=torch.float64))]
    ours, plain = program.OURS[name](*views), program.PLAIN[name](*views)
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=0)
    for g, h in zip(torch.autograd.grad(ours, views), torch.autograd.grad(plain, views), strict=True):
        torch.testing.assert_close(g, h, rtol=1e-8, atol=1e-12)


def test_rows_have_names_of_their_own_and_the_quick_look_has_no_large_ones(program: ModuleType) -> None:
    threads = torch.get_num_threads()
    try:
        rows, quick = program.rows(False), program.rows(True)
    finally:
        torch.set_num_threads(threads)
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    assert {"bt_256x8192", "vicreg_1024x8192", "bt_256x65536", "bt_grid_64x8192", "vicreg_grid_8192x64"} <= set(names)
    assert not any("65536" in row.name or "x8192" in row.name for row in quick)
    assert all(row.ours().wall > 0 and row.reference().wall > 0 for row in quick if row.name.endswith("grid_64x64"))
