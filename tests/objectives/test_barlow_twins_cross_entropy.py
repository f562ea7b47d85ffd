import itertools
import math

import pytest
import torch
from oracles import barlow_twins_cross_entropy as oracle
from oracles.gradients import loss_and_gradients, relative_error, terms_and_gradients
from oracles.vectors import STATES, batch_in

from barlow.linalg import cross_correlation, standardize
from barlow.objectives._whitening import whiten
from barlow.objectives.barlow_twins_cross_entropy import BarlowTwinsCrossEntropy


def total(terms: dict[str, torch.Tensor]) -> float:
    return float(sum(terms.values()))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("parameters", [{}, {"temperature": 0.5, "redundancy": 0.3}, {"temperature": 0.03, "eps": 0.0}])
@pytest.mark.parametrize("size", [(24, 8), (6, 2), (12, 30)])
def test_the_loss_is_the_papers_plus_a_constant(
    size: tuple[int, int], parameters: dict[str, float], state: str
) -> None:
    a, b = batch_in(state, *size)
    papers = terms_and_gradients(lambda *z: oracle.without_constant(*z, **parameters), a, b)
    found = terms_and_gradients(BarlowTwinsCrossEntropy(**parameters), a, b)
    d, temperature, redundancy = size[1], parameters.get("temperature", 0.1), parameters.get("redundancy", 1.0)
    constants = {"invariance": 1 / temperature + math.log(d), "redundancy": -redundancy * math.log(d * (d - 1))}
    for name, (value, gradients) in found.items():
        assert value == pytest.approx(papers[name][0] + constants[name], abs=1e-10)
        assert relative_error(gradients, papers[name][1]) < 1e-9


def test_loss_is_zero_for_equal_whitened_views_and_more_elsewhere() -> None:
    a, _ = batch_in("healthy", 20, 5)
    white = whiten(a)
    objective = BarlowTwinsCrossEntropy(eps=0)
    assert 0 <= total(objective(white, white)) < 1e-13
    for views in ((a, a), (white, white.flip(0)), (white, -white)):
        terms = objective(*views)
        assert all(float(term) >= 0 for term in terms.values())
        assert total(terms) > 0.1


def test_negative_correlations_cost_nothing_and_have_no_gradient() -> None:
    # Two features that are each other's opposite, up to noise.
    a, noise = batch_in("healthy", 40, 1)
    a = torch.cat([a, -a + 0.1 * noise], dim=1)
    c = cross_correlation(*(standardize(z).x for z in (a, a)))
    assert float(c[0, 1]) < -0.9
    value, gradients = terms_and_gradients(BarlowTwinsCrossEntropy(), a, a)["redundancy"]
    assert value == 0
    assert all(float(g.norm()) == 0 for g in gradients)
    value, gradients = terms_and_gradients(BarlowTwinsCrossEntropy(), a, -a)["redundancy"]
    assert value > 5
    assert all(float(g.norm()) > 0 for g in gradients)


def test_a_low_temperature_leaves_the_largest_correlations_without_overflow() -> None:
    a, b = batch_in("healthy", 24, 8)
    c = cross_correlation(*(standardize(z, 1e-5).x for z in (a, b)))
    for temperature in (1e-2, 1e-3, 1e-5):
        terms = terms_and_gradients(BarlowTwinsCrossEntropy(temperature=temperature), a, b)
        assert all(g.isfinite().all() for _, gradients in terms.values() for g in gradients)
        # log Σ exp lies between the largest and that plus log of their number.
        invariance, redundancy = (temperature * terms[name][0] for name in ("invariance", "redundancy"))
        least, largest = 1 - float(c.diagonal().max()), float((c - c.diagonal().diag()).max())
        assert least - 1e-12 <= invariance <= least + temperature * math.log(8) + 1e-12
        assert largest - temperature * math.log(56) - 1e-12 <= redundancy <= largest + 1e-12


def test_one_feature_has_nothing_off_the_diagonal() -> None:
    terms = terms_and_gradients(BarlowTwinsCrossEntropy(), *batch_in("healthy", 12, 1))
    assert terms["redundancy"][0] == 0
    assert terms["invariance"][0] > 0
    assert all(g.isfinite().all() for _, gradients in terms.values() for g in gradients)


@pytest.mark.parametrize("size", [(8, 3), (4, 9)])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_gradient_equals_finite_differences(size: tuple[int, int], temperature: float) -> None:
    views = [z.requires_grad_() for z in batch_in("healthy", *size)]
    objective = BarlowTwinsCrossEntropy(temperature=temperature)
    assert torch.autograd.gradcheck(lambda za, zb: sum(objective(za, zb).values()), views, eps=1e-6, rtol=1e-6)


def test_a_detached_view_is_another_gradient_and_views_beyond_two_give_the_mean_over_pairs() -> None:
    views = [*batch_in("healthy", 24, 8), batch_in("healthy", 24, 8, seed=1)[0]]
    objective = BarlowTwinsCrossEntropy()
    _, right = loss_and_gradients(objective, *views[:2])
    _, wrong = loss_and_gradients(lambda za, zb: objective(za, zb.detach() + 0 * zb), *views[:2])
    assert relative_error(wrong, right) > 0.05
    pairs = [objective(*pair) for pair in itertools.combinations(views, 2)]
    for name, term in objective(*views).items():
        assert float(term) == pytest.approx(sum(float(p[name]) for p in pairs) / 3, rel=1e-12)


@pytest.mark.parametrize("name", ["redundancy", "temperature", "eps"])
def test_hyper_parameters_out_of_range_are_refused_by_name(name: str) -> None:
    for value in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=name):
            BarlowTwinsCrossEntropy(**{name: value})
    with pytest.raises(ValueError, match="temperature"):
        BarlowTwinsCrossEntropy(temperature=0)
