"""Every diagnostic lies between its floor and its ceiling, and comes close to them where theory says so."""

import math

import pytest
import torch

from barlow.diagnostics.catalogue import DIAGNOSTICS, Shape, diagnose, fitting

SHAPES = [(40, 2, 6), (6, 2, 40), (200, 3, 128), (30, 2, 1), (2, 2, 2), (24, 10, 24)]


NOTHING = ("lidar", "lidar_relative", "mean_abs_correlation", "max_abs_correlation")
"""They are 0, which may be below their floor, where images do not differ, and where features are dead."""


def kinds(n: int, q: int, d: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(n + d)
    images = torch.randn(n, 1, d, generator=generator)
    noise = torch.randn(n, q, d, generator=generator)
    return {
        "signal": images + 0.1 * noise,
        "noise": noise,
        "offset": 50 + noise,
        "one direction": images[..., :1] + 1e-6 * noise,
        "few directions": images * torch.logspace(0, -8, d),
        "opposed": images * torch.tensor([1.0, *[-1.0] * (q - 1)])[:, None],
        "float64": (images + 0.1 * noise).double(),
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_values_lie_between_floor_and_ceiling(shape: tuple[int, int, int]) -> None:
    for kind, views in kinds(*shape).items():
        readings = diagnose(views)
        assert readings, kind
        for name, reading in readings.items():
            slack = 1e-5 * max(1.0, abs(reading.value))
            nothing = reading.value == 0 and name in NOTHING and kind in ("opposed", "few directions")
            assert nothing or reading.floor - slack <= reading.value <= reading.ceiling + slack, (kind, name, reading)


def test_every_diagnostic_is_read_where_views_and_rows_suffice() -> None:
    views = kinds(200, 3, 128)["signal"]
    names = [each.name for each in DIAGNOSTICS]
    assert list(diagnose(views)) == [*names, "alpha_req_11_100"]
    of_one = [each.name for each in DIAGNOSTICS if each.views == 1]
    assert list(diagnose(views[:, 0])) == [*of_one, "alpha_req_11_100"]
    assert list(diagnose(views[:20, 0])) == [*of_one, "alpha_req_2_9"]
    assert {each.name for each in fitting(Shape(5, 1, 3))} == set(of_one)


def test_equal_singular_values_reach_the_ceilings() -> None:
    x = torch.cat([torch.eye(8), -torch.eye(8)]).double() * 3
    readings = diagnose(x)
    for name in ("rankme", "effective_rank", "stable_rank", "participation_ratio", "std"):
        reading = readings[name]
        assert reading.value == pytest.approx(reading.ceiling, rel=1e-9), name
    assert readings["top_eigenvalue_share"].value == pytest.approx(readings["top_eigenvalue_share"].floor)


def test_one_direction_reaches_the_floors() -> None:
    x = torch.linspace(-1, 1, 30)[:, None].double() * torch.ones(5)
    readings = diagnose(x)
    for name in ("rankme", "effective_rank", "stable_rank", "participation_ratio"):
        assert readings[name].value == pytest.approx(readings[name].floor, rel=1e-6), name
    assert readings["max_abs_correlation"].value == pytest.approx(1)


def test_a_simplex_is_as_uniform_as_so_many_rows_can_be() -> None:
    simplex = torch.eye(9).double() - 1 / 9
    reading = diagnose(simplex)["uniformity"]
    assert reading.value == pytest.approx(reading.floor, rel=1e-9)
    assert reading.floor == pytest.approx(-4 * 9 / 8)
    correlation = diagnose(simplex)["max_abs_correlation"]
    assert correlation.value == pytest.approx(correlation.floor, rel=1e-6)


def test_many_isotropic_rows_come_near_the_floor_of_uniformity() -> None:
    x = torch.randn(4_000, 3, generator=torch.Generator().manual_seed(0))
    reading = diagnose(x)["uniformity"]
    assert 0 < reading.value - reading.floor < 0.02
    circle = math.log(sum(math.exp(-8 * math.sin(math.pi * k / 1_000) ** 2) for k in range(1_000)) / 1_000)
    angles = torch.arange(1_000) * 2 * math.pi / 1_000
    x = torch.stack([angles.cos(), angles.sin()], dim=1).double()
    assert diagnose(x)["uniformity"].floor == pytest.approx(circle, abs=0.01)


def test_all_rows_alike_are_read_without_an_error() -> None:
    readings = diagnose(torch.full((30, 2, 6), 0.3))
    assert readings["std"].value == 0
    assert readings["dead"].value == 1
    assert readings["uniformity"].value == pytest.approx(0, abs=1e-6)
    assert "alpha_req_2_3" not in readings


@pytest.mark.parametrize("x", [torch.zeros(1, 4), torch.zeros(4), torch.zeros(4, 0), torch.zeros(2, 2, 2, 2)])
def test_what_is_no_set_of_features_is_refused(x: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="two images or more"):
        diagnose(x)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        diagnose(torch.full((4, 4), math.nan))
