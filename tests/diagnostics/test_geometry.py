import math
import time

import pytest
import torch
from oracles.vectors import formula_batch

from barlow.diagnostics import geometry

SIZES = [(8, 4), (16, 6), (6, 10), (60, 40)]
UNIFORMITY = (-2.5234205406, -2.7860428144, -3.4638338311, -3.8932500480)
ALIGNMENT = (0.0348468408, 0.0461392251, 0.0537933728, 0.0534802376)


def found(x: torch.Tensor, columns: int | None = None) -> tuple[float, float]:
    mean, most = geometry.correlations(x, columns)
    return float(mean), float(most)


@pytest.mark.parametrize("number", range(4))
def test_golden_values(number: int) -> None:
    a, b = formula_batch(*SIZES[number])
    assert geometry.uniformity(a) == pytest.approx(UNIFORMITY[number], abs=5.1e-11, rel=0)
    assert geometry.alignment(torch.stack([a, b], dim=1)) == pytest.approx(ALIGNMENT[number], abs=5.1e-11, rel=0)


def test_uniformity_in_blocks_is_that_of_all_pairs() -> None:
    x = torch.randn(2_300, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = x / x.norm(dim=1, keepdim=True)
    pairs = torch.pdist(unit).square().mul(-2).exp().mean().log()
    assert geometry.uniformity(x) == pytest.approx(float(pairs), rel=1e-10)


def test_of_very_many_rows_some_are_compared() -> None:
    x = torch.randn(9_000, 4, generator=torch.Generator().manual_seed(0))
    began = time.process_time()
    assert geometry.uniformity(x) == pytest.approx(geometry.uniformity(x[:5_000]), abs=0.02)
    assert time.process_time() - began < 4


def test_alignment_and_cosine_are_means_over_all_pairs_of_views() -> None:
    views = torch.randn(7, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = views / views.norm(dim=2, keepdim=True)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    squares = torch.stack([(unit[:, i] - unit[:, j]).square().sum(1).mean() for i, j in pairs]).mean()
    cosines = torch.stack([(unit[:, i] * unit[:, j]).sum(1).mean() for i, j in pairs]).mean()
    assert geometry.alignment(views) == pytest.approx(float(squares), rel=1e-12)
    assert geometry.cosine_between_views(views) == pytest.approx(float(cosines), rel=1e-12)
    with pytest.raises(ValueError, match="two views or more"):
        geometry.alignment(views[:, :1])


def test_unrelated_views_are_two_apart() -> None:
    views = torch.randn(4_000, 2, 64, generator=torch.Generator().manual_seed(0))
    assert geometry.alignment(views) == pytest.approx(2, abs=0.01)


def test_isotropic_rows_spread_by_one_along_every_axis_and_correlate_by_chance() -> None:
    x = 5 * torch.randn(3_000, 40, generator=torch.Generator().manual_seed(0))
    assert geometry.per_dimension_std(x).tolist() == pytest.approx([1.0] * 40, abs=0.05)
    mean, most = found(x)
    assert mean == pytest.approx(math.sqrt(2 / (math.pi * 2_999)), rel=0.1)
    assert mean < most < 0.1


def test_correlations_against_numpy_also_of_some_columns() -> None:
    x = torch.randn(50, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x + x.roll(1, dims=1)
    table = torch.corrcoef(x.T).abs()
    table.fill_diagonal_(0)
    assert found(x) == pytest.approx((float(table.sum() / 870), float(table.max())), rel=1e-12)
    some = table[::29][:, ::29]
    assert found(x, 2) == pytest.approx((float(some.sum() / 2), float(some.max())), rel=1e-12)


def test_correlations_in_blocks_are_those_of_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(40, 23, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 20] = x[:, 20] - 2 * x[:, 3]
    whole = found(x)
    for block in (1, 4, 22, 23):
        monkeypatch.setattr(geometry, "BLOCK", block)
        assert found(x) == pytest.approx(whole, rel=1e-12), block


def test_dead_features_are_found_and_do_not_correlate() -> None:
    x = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    x[:, 1], x[:, 3] = 7.0, x[:, 0] * 1e-5
    assert geometry.dead(x).tolist() == [False, True, False, True, False]
    assert found(x)[1] < 0.5
    assert found(x[:, :2]) == (0, 0)
    assert geometry.dead(torch.ones(10, 3)).all()
