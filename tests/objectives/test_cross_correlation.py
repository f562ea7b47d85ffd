"""Barlow Twins' gradient written by hand, beside the plain form with torch's gradient."""

from collections.abc import Callable

import pytest
import torch
from oracles.gradients import relative_error
from oracles.vectors import STATES, batch_in

from barlow.linalg import Standardized, centered, standardize
from barlow.objectives._cross_correlation import cross_correlation_energies, plain_cross_correlation_energies

# The gradient passes through the scale of standardised features, and there is none in centred ones.
PREPARED: dict[str, Callable[[torch.Tensor], Standardized]] = {
    "standardised": lambda z: standardize(z, 1e-5),
    "centred": centered,
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("prepared", PREPARED)
@pytest.mark.parametrize("gram", [False, True])
@pytest.mark.parametrize("size", [(24, 8), (12, 30), (2, 5)])
def test_values_and_gradients_are_those_of_the_plain_form(
    size: tuple[int, int], gram: bool, prepared: str, state: str
) -> None:
    leaves = [z.requires_grad_() for z in batch_in(state, *size)]
    views = [PREPARED[prepared](z) for z in leaves]
    (found,) = cross_correlation_energies(views, gram=gram)
    plain = plain_cross_correlation_energies(*(view.x for view in views))
    exact = 1e-12 if state == "healthy" else 1e-9  # in the others the plain form loses digits
    for energy, expected in zip(found, plain, strict=True):
        torch.testing.assert_close(energy, expected, rtol=exact, atol=0)
        gradients, reference = (torch.autograd.grad(value, leaves, retain_graph=True) for value in (energy, expected))
        assert relative_error(list(gradients), list(reference)) < exact


@pytest.mark.parametrize("prepared", PREPARED)
@pytest.mark.parametrize("gram", [False, True])
def test_both_energies_together_have_the_weighted_sum_of_their_gradients(gram: bool, prepared: str) -> None:
    leaves = [z.requires_grad_() for z in batch_in("healthy", 12, 8)]
    views = [PREPARED[prepared](z) for z in leaves]
    (found,) = cross_correlation_energies(views, gram=gram, weights=(3.0, 0.5))
    on, off = plain_cross_correlation_energies(*(view.x for view in views))
    gradients, reference = (
        torch.autograd.grad(value, leaves, retain_graph=True) for value in (sum(found), 3 * on + 0.5 * off)
    )
    assert relative_error(list(gradients), list(reference)) < 1e-12


@pytest.mark.parametrize("gram", [False, True])
def test_every_pair_of_views_gets_its_own_energies(gram: bool) -> None:
    views = [standardize(z) for z in (*batch_in("healthy", 12, 8), batch_in("healthy", 12, 8, seed=1)[0])]
    found = cross_correlation_energies(views, gram=gram)
    for energies, (a, b) in zip(found, ((0, 1), (0, 2), (1, 2)), strict=True):
        plain = plain_cross_correlation_energies(views[a].x, views[b].x)
        torch.testing.assert_close(energies, plain, rtol=1e-12, atol=0)
