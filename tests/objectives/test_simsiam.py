import math

import pytest
import torch
from oracles import simsiam as oracle
from oracles.gradients import relative_error
from oracles.vectors import STATES, batch_in

from barlow.objectives.byol import BYOL
from barlow.objectives.simsiam import SimSiam


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


P1, T2 = rows([1, 2], [-1, 0.5]), rows([0.5, 1.5], [2, 1])
P2, T1 = rows([0, 1], [1, 1]), rows([1, 1], [-1, 2])


def loss_of(p: torch.Tensor, t: torch.Tensor) -> float:
    return float(SimSiam()(p, t)["negative_cosine"])


def loss_and_gradient(loss: object, p: torch.Tensor, t: torch.Tensor) -> tuple[float, torch.Tensor]:
    leaf = p.detach().clone().requires_grad_()
    (value,) = loss(leaf, t).values()
    return value.item(), torch.autograd.grad(value, leaf)[0].double()


def test_published_values_of_rows_and_of_the_mean_over_both_groups() -> None:
    cosines = [-loss_of(p[None], t[None]) for p, t in zip([*P1, *P2], [*T2, *T1], strict=True)]
    assert cosines == pytest.approx([0.989949493661, -0.6, 0.707106781187, 0.316227766017], abs=1e-12)
    assert (loss_of(P1, T2) + loss_of(P2, T1)) / 2 == pytest.approx(-0.353321010216, abs=1e-12)


def test_published_gradient_of_the_prediction() -> None:
    _, gradient = loss_and_gradient(SimSiam(), P1, T2)
    of_two_less_two_cosines = rows([0.0565685424949, -0.0282842712475], [-0.32, -0.64])
    assert torch.allclose(gradient, of_two_less_two_cosines / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("size", [(2, 3), (9, 4), (5, 12)])
def test_value_and_gradient_equal_the_loops_in_both_precisions(size: tuple[int, int], state: str) -> None:
    p, t = batch_in(state, *size)
    value, reference = loss_and_gradient(oracle.simsiam, p, t)
    for precision, error in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        found, gradient = loss_and_gradient(SimSiam(), p.to(precision), t.to(precision))
        assert found == pytest.approx(value, rel=error)
        assert relative_error([gradient], [reference]) < error


@pytest.mark.parametrize("state", STATES)
def test_it_is_byols_loss_in_another_measure_with_a_quarter_of_its_gradient(state: str) -> None:
    p, t = batch_in(state, 9, 4)
    value, gradient = loss_and_gradient(SimSiam(), p, t)
    of_byol, gradient_of_byol = loss_and_gradient(BYOL(), p, t)
    assert 4 + 4 * value == pytest.approx(of_byol, abs=1e-14)
    assert relative_error([4 * gradient], [gradient_of_byol]) < 1e-14


def test_the_target_is_a_constant() -> None:
    p, t = (z.requires_grad_() for z in batch_in("healthy", 8, 4))
    term = SimSiam()(p, t)["negative_cosine"]
    to_p, to_t = torch.autograd.grad(term, (p, t), allow_unused=True)
    assert float(to_p.norm()) > 0.01
    assert to_t is None


def test_a_loss_lies_between_minus_one_where_all_agree_and_one_where_all_are_opposite() -> None:
    p, _ = batch_in("healthy", 400, 16)
    other, _ = batch_in("healthy", 400, 16, seed=1)
    scale = torch.linspace(0.1, 9, 400, dtype=torch.float64)[:, None]
    assert loss_of(p, scale * p) == pytest.approx(-1, abs=1e-15)
    assert loss_of(p, -scale * p) == pytest.approx(1, abs=1e-15)
    assert loss_of(p, other) == pytest.approx(0, abs=0.0375), "unrelated: three standard errors"


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-13])
def test_a_row_without_direction_has_a_cosine_of_zero_and_no_gradient(length: float) -> None:
    p, t = (z.float() for z in batch_in("healthy", 3, 4))
    p[1] = length / 2
    t[2] = length / 2
    value, gradient = loss_and_gradient(SimSiam(), p, t)
    assert value == pytest.approx(loss_of(p[:1], t[:1]) / 3, rel=1e-6)
    assert float(gradient[0].norm()) > 0
    assert float(gradient[1:].norm()) == 0
    assert math.isfinite(value)
    assert loss_of(0 * p, 0 * t) == 0, "two points that are one do not look like agreement"


def test_views_that_are_no_pair_are_refused() -> None:
    p, t = batch_in("healthy", 8, 4)
    with pytest.raises(TypeError, match="positional argument"):
        SimSiam()(p, t, t)
    with pytest.raises(ValueError, match="a mean over rows needs a row, got 0"):
        SimSiam()(p[:0], t[:0])
