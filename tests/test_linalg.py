import math

import pytest
import torch
from oracles.gradients import relative_error
from oracles.vectors import STATES, batch_in, formula_batch
from torch.utils._python_dispatch import TorchDispatchMode

from barlow import linalg


def energy_and_gradients(form: str, gram: bool, *views: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
    leaves = [z.clone().requires_grad_() for z in views]
    if form == "cross-correlation":
        standardized = [linalg.standardize(z, 1e-5) for z in leaves]
        ((_, energy),) = linalg.cross_correlation_energies(standardized, gram=gram)
    else:
        energy = sum(linalg.covariance_energies(z, gram=gram)[1] for z in leaves)
    return energy.item(), [g.double() for g in torch.autograd.grad(energy, leaves)]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("form", ["cross-correlation", "covariance"])
@pytest.mark.parametrize("size", [(64, 128), (96, 96), (65, 128), (32, 400)])
def test_gram_and_direct_form_are_the_same_energy_with_the_same_gradient(
    size: tuple[int, int], form: str, state: str
) -> None:
    views = batch_in(state, *size)
    value, reference = energy_and_gradients(form, False, *views)
    exact, exact_gradients = energy_and_gradients(form, True, *views)
    assert exact == pytest.approx(value, rel=1e-9)
    assert relative_error(exact_gradients, reference) < 1e-9
    chosen = linalg.prefers_gram(*size, crossed=form == "cross-correlation")
    single, single_gradients = energy_and_gradients(form, chosen, *(z.float() for z in views))
    assert single == pytest.approx(value, rel=1e-4)
    assert relative_error(single_gradients, reference) < 1e-4


@pytest.mark.parametrize(
    ("size", "value"), [((8, 4), 471.4007619615), ((16, 6), 2649.2867891290), ((6, 10), 1261.3610034271)]
)
def test_published_energy_of_the_cross_product(size: tuple[int, int], value: float) -> None:
    a, b = (linalg.standardize(z).x for z in formula_batch(*size))
    assert float((size[0] * linalg.cross_correlation(a, b)).square().sum()) == pytest.approx(value, abs=1e-8)
    assert float(((a @ a.T) * (b @ b.T)).sum()) == pytest.approx(value, abs=1e-8)


def test_the_switch_lies_where_the_costs_are_equal() -> None:
    assert linalg.prefers_gram(64, 128, crossed=True)
    assert not linalg.prefers_gram(65, 128, crossed=True)
    assert linalg.prefers_gram(128, 128, crossed=False)
    assert not linalg.prefers_gram(129, 128, crossed=False)


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("form", ["cross-correlation", "covariance"])
def test_the_gram_side_never_holds_a_matrix_of_features_by_features(form: str) -> None:
    n, d = 8, 200
    views = batch_in("healthy", n, d)
    with LargestTensor() as largest:
        energy_and_gradients(form, linalg.prefers_gram(n, d, crossed=True), *views)
    assert largest.elements <= n * d
    with LargestTensor() as largest:
        energy_and_gradients(form, False, *views)
    assert largest.elements == d * d


def test_centred_features_have_mean_zero_and_a_constant_one_is_exactly_zero() -> None:
    z = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) + 1000
    z[:, 1] = 0.1
    x = linalg.center(z)
    assert (x[:, 1] == 0).all()
    assert float(x.mean(dim=0).abs().max()) < 1e-6


def test_standardised_features_have_population_variance_one_less_the_shortfall() -> None:
    z, _ = batch_in("nearly one point", 30, 4)
    x, shortfall = linalg.standardize(z, 1e-5)
    assert x.mean(dim=0).abs().max() < 1e-12
    torch.testing.assert_close(x.square().mean(dim=0), 1 - shortfall)
    assert (shortfall > 0.5).all(), "eps outweighs a variance of 1e-6"
    torch.testing.assert_close(linalg.standardize(z).x.square().mean(dim=0), torch.ones(4, dtype=torch.float64))


def test_covariance_is_unbiased() -> None:
    z, _ = batch_in("healthy", 12, 4)
    torch.testing.assert_close(linalg.covariance(z), torch.cov(z.T))
    variance, energy = linalg.covariance_energies(z)
    torch.testing.assert_close(variance, z.var(dim=0))
    torch.testing.assert_close(energy, (torch.cov(z.T) - z.var(dim=0).diag()).square().sum())


def test_whitened_slices_have_mean_zero_and_the_identity_as_covariance() -> None:
    z, _ = batch_in("far from the origin", 48, 5)
    white = linalg.whiten(z.unflatten(0, (4, 12)))
    assert white.mean(dim=1).abs().max() < 1e-12
    assert (linalg.covariance(white) - torch.eye(5)).abs().max() < 1e-12


def test_shrinkage_whitens_the_mixture_with_the_identity() -> None:
    z, _ = batch_in("healthy", 12, 5)
    mixed = 0.7 * linalg.covariance(z) + 0.3 * torch.eye(5)
    expected = torch.linalg.solve(torch.linalg.cholesky(mixed), linalg.center(z).T).T
    torch.testing.assert_close(linalg.whiten(z, 0.3), expected)


@pytest.mark.parametrize("k", [3, 5])
def test_too_few_rows_cannot_be_whitened_without_shrinkage(k: int) -> None:
    z, _ = batch_in("healthy", k, 5)
    with pytest.raises(linalg.SingularCovarianceError, match="more than 5 rows"):
        linalg.whiten(z)
    assert linalg.whiten(z, 1e-3).isfinite().all()


def test_one_singular_slice_among_others_is_noticed() -> None:
    z = batch_in("healthy", 36, 5)[0].unflatten(0, (3, 12))
    z[1, :, 4] = z[1, :, 0] - 2 * z[1, :, 2]
    with pytest.raises(linalg.SingularCovarianceError, match="shrinkage"):
        linalg.whiten(z)


def test_effective_rank_counts_equal_directions_and_is_blind_to_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(40, 40, generator=generator, dtype=torch.float64))
    for r in (1, 3, 10):
        for x in (basis[:, :r] @ basis[:r], (basis[:, :r] @ basis[:r])[:20]):
            assert float(linalg.effective_rank(7e-5 * x)) == pytest.approx(r, rel=1e-5 if len(x) == 40 else 0.2)
    assert float(linalg.effective_rank(torch.zeros(4, 3))) == 0


def test_effective_rank_is_the_exponential_of_the_entropy_of_singular_values() -> None:
    x, _ = batch_in("healthy", 15, 6)
    p = torch.linalg.svdvals(x)
    p = p / p.sum()
    expected = math.exp(-sum(float(q) * math.log(float(q)) for q in p))
    assert float(linalg.effective_rank(x)) == pytest.approx(expected, rel=1e-9)
    assert float(linalg.effective_rank(x.T)) == pytest.approx(expected, rel=1e-9)
