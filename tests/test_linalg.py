import math

import pytest
import torch
from oracles.vectors import batch_in, formula_batch

from barlow import linalg


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


@pytest.mark.parametrize("n", [512, 1024, 2048])
@pytest.mark.parametrize(("mean", "deviation"), [(0.01, 1e-6), (0.01, 1e-4), (0.001, 1e-5), (3.9, 1.0), (1e4, 1.0)])
def test_float32_features_far_from_0_beside_their_deviation_keep_their_digits(
    n: int, mean: float, deviation: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    z = mean + deviation * torch.randn(n, 64, generator=generator)
    z[:, 0] = mean
    x, exact = linalg.standardize(z, 1e-5).x, linalg.standardize(z.double(), 1e-5).x
    assert (x[:, 0] == 0).all()
    assert float((x - exact).norm() / exact.norm()) < 2e-6


def test_rows_of_equal_length_keep_their_direction_and_zeros_stay_without_gradient() -> None:
    z, weights = batch_in("healthy", 6, 4)
    z[2] = 0
    z.requires_grad_()
    rows = linalg.equal_lengths(z)
    kept = torch.tensor([0, 1, 3, 4, 5])
    torch.testing.assert_close(rows[kept].square().mean(dim=1), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(torch.nn.functional.cosine_similarity(rows, z)[kept], torch.ones(5, dtype=torch.float64))
    (gradient,) = torch.autograd.grad((rows * weights).sum(), z)
    assert (rows[2] == 0).all()
    assert (gradient[2] == 0).all()
    assert gradient.isfinite().all()
    assert (gradient * z).sum(dim=1).abs().max() < 1e-12, "no gradient along the row itself"


def test_covariance_is_unbiased() -> None:
    z, _ = batch_in("healthy", 12, 4)
    torch.testing.assert_close(linalg.covariance(z), torch.cov(z.T))


def test_whitened_slices_have_mean_zero_and_the_identity_as_covariance() -> None:
    z, _ = batch_in("far from the origin", 48, 5)
    white, _ = linalg.cholesky_whiten(z.unflatten(0, (4, 12)))
    assert white.mean(dim=1).abs().max() < 1e-12
    assert (linalg.covariance(white) - torch.eye(5)).abs().max() < 1e-12


@pytest.mark.parametrize(("state", "passes"), [("healthy", 1), ("nearly one direction", 2)])
@pytest.mark.parametrize("shrinkage", [0.0, 1e-9])
def test_whitening_returns_the_cholesky_factor_too_after_one_pass_and_after_two(
    state: str, passes: int, shrinkage: float
) -> None:
    z, _ = batch_in(state, 24, 5)
    white, factor = linalg.cholesky_whiten(z, shrinkage)
    sigma = (1 - shrinkage) * linalg.covariance(z) + shrinkage * torch.eye(5)
    assert float((factor.diagonal().square() / sigma.diagonal()).min() < linalg.LOSSY_PIVOT) == passes - 1
    torch.testing.assert_close(factor, torch.linalg.cholesky(sigma), rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(white @ factor.mT, linalg.center(z), rtol=1e-12, atol=1e-12)


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
