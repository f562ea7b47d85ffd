import math

import pytest
import torch
from oracles.gradients import loss_and_gradients, relative_error
from oracles.moco_v3 import moco_v3
from oracles.vectors import STATES, batch_in

from barlow.objectives.moco_v3 import MoCoV3


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def contrast(q: torch.Tensor, k: torch.Tensor, temperature: float) -> float:
    return float(MoCoV3(temperature=temperature)(q, k)["contrast"])


def test_published_values() -> None:
    a, b = rows([1, 0], [0, 1]), rows([0.8, 0.6], [0.6, 0.8])
    one = contrast(a, rows([0, 1], [0.8, -0.6]), 0.2)
    other = contrast(b, rows([0.6, 0.8], [1, 0]), 0.2)
    assert one / 0.8 == pytest.approx(6.00924266715, abs=1e-11)
    assert other / 0.8 == pytest.approx(1.2490143385, abs=1e-10)
    assert (one + other) / 2 == pytest.approx(2.90330280226, abs=1e-11)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
@pytest.mark.parametrize("state", STATES)
def test_value_and_gradient_equal_the_loops_in_both_precisions(state: str, temperature: float) -> None:
    q, k = batch_in(state, 5, 6)
    value, reference = loss_and_gradients(lambda z: moco_v3(z, k, temperature=temperature), q)
    for precision, error in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        objective = MoCoV3(temperature=temperature)
        found, gradients = loss_and_gradients(lambda z, o=objective, p=precision: o(z, k.to(p)), q.to(precision))
        assert found == pytest.approx(value, rel=error)
        assert relative_error(gradients, reference) < error


def test_keys_are_constants() -> None:
    q, k = (z.requires_grad_() for z in batch_in("healthy", 4, 6))
    to_q, to_k = torch.autograd.grad(MoCoV3()(q, k)["contrast"], (q, k), allow_unused=True)
    assert float(to_q.norm()) > 1e-3
    assert to_k is None


def test_a_collapsed_batch_costs_the_logarithm_of_its_rows() -> None:
    z = torch.ones(7, 3)
    assert contrast(z, z, 0.2) == pytest.approx(4 * 0.2 * math.log(7), rel=1e-6)


def test_keys_of_the_querys_own_view_are_no_candidates() -> None:
    q, k = batch_in("healthy", 4, 6)
    other = k.clone()
    other[1:] = k[1:].roll(1, 0)
    assert contrast(q[:1].repeat(2, 1), k[:2], 1.0) != pytest.approx(contrast(q[:2], k[:2], 1.0), rel=1e-3)
    assert contrast(q, other, 1.0) != pytest.approx(contrast(q, k, 1.0), rel=1e-3)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf])
def test_a_temperature_that_is_no_positive_number_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature is"):
        MoCoV3(temperature=temperature)
