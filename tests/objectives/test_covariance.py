"""VICReg's gradient written by hand, beside the plain form with torch's gradient."""

import pytest
import torch
from oracles.gradients import relative_error
from oracles.vectors import STATES, batch_in

from barlow.objectives._covariance import covariance_energies, plain_covariance_energies


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("size", "gram"),
    [((24, 8), False), *((size, gram) for size in [(24, 24), (12, 30), (2, 5)] for gram in (False, True))],
)
def test_values_and_gradients_are_those_of_the_plain_form(size: tuple[int, int], gram: bool, state: str) -> None:
    z, weights = batch_in(state, *size)
    z.requires_grad_()
    variance, energy = covariance_energies(z, gram=gram)
    plain_variance, plain_energy = plain_covariance_energies(z)
    torch.testing.assert_close(variance, plain_variance, rtol=1e-9, atol=0)
    torch.testing.assert_close(energy, plain_energy, rtol=1e-9, atol=0)
    found, plain = (variance * weights[0]).sum(), (plain_variance * weights[0]).sum()
    for value, expected in ((found, plain), (energy, plain_energy), (found + energy, plain + plain_energy)):
        gradient, reference = (torch.autograd.grad(total, z, retain_graph=True) for total in (value, expected))
        assert relative_error(list(gradient), list(reference)) < 1e-9


def test_variances_and_covariances_are_unbiased() -> None:
    z, _ = batch_in("healthy", 12, 4)
    variance, energy = covariance_energies(z)
    torch.testing.assert_close(variance, z.var(dim=0))
    torch.testing.assert_close(energy, (torch.cov(z.T) - z.var(dim=0).diag()).square().sum())
