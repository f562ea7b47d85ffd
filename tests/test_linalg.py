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


def test_products_are_taken_in_the_precision_that_is_asked_for_but_for_narrow_batches() -> None:
    for d, crossed in ((linalg.NARROW, False), (linalg.NARROW + 1, True)):
        a, b = batch_in("healthy", 96, d)
        views = [linalg.standardize(z) for z in (a, b)]
        for gram in (False, True):
            ((on, off),) = linalg.cross_correlation_energies(views, gram=gram)
            ((on_32, off_32),) = linalg.cross_correlation_energies(views, gram=gram, products=torch.float32)
            _, energy = linalg.covariance_energies(a, gram=gram)
            _, energy_32 = linalg.covariance_energies(a, gram=gram, products=torch.float32)
            assert on_32.equal(on)
            for exact, rounded in ((off, off_32), (energy, energy_32)):
                assert rounded.dtype == torch.float64
                assert rounded.equal(exact) != crossed, (d, gram)
                assert float(rounded) == pytest.approx(float(exact), rel=1e-5)


@pytest.mark.parametrize("gram", [False, True])
def test_gradients_of_one_energy_alone_are_those_that_add_up_to_the_gradient_of_both(gram: bool) -> None:
    # Of batches that are only centred, too, whose diagonal has another gradient.
    for prepare in (lambda z: linalg.standardize(z, 1e-5), linalg.centered):
        leaves = [z.requires_grad_() for z in batch_in("healthy", 12, 8)]
        ((on, off),) = linalg.cross_correlation_energies([prepare(z) for z in leaves], gram=gram)
        x = [prepare(z).x for z in leaves]
        c = linalg.cross_correlation(*x)
        plain = ((1 - c.diagonal()).square().sum(), linalg.without_diagonal(c).square().sum())
        for energies, expected in (((on,), plain[:1]), ((off,), plain[1:]), ((on, off), plain)):
            found = torch.autograd.grad(sum(energies), leaves, retain_graph=True)
            reference = torch.autograd.grad(sum(expected), leaves, retain_graph=True)
            assert relative_error(list(found), list(reference)) < 1e-12


@pytest.mark.parametrize("gram", [False, True])
def test_a_second_derivative_is_refused_not_wrong(gram: bool) -> None:
    leaves = [z.requires_grad_() for z in batch_in("healthy", 8, 4)]
    ((on, off),) = linalg.cross_correlation_energies([linalg.standardize(z) for z in leaves], gram=gram)
    variance, energy = linalg.covariance_energies(leaves[0], gram=gram)
    for value in (on + off, variance.sum() + energy):
        with pytest.raises(RuntimeError, match="create_graph"):
            torch.autograd.grad(value, leaves[:1], create_graph=True)


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
    eigenvalues, vectors = torch.linalg.eigh(mixed)
    expected = linalg.center(z) @ vectors @ (eigenvalues**-0.5).diag() @ vectors.T
    torch.testing.assert_close(linalg.whiten(z, 0.3, method="zca"), expected)


@pytest.mark.parametrize("method", ["cholesky", "zca"])
@pytest.mark.parametrize("state", STATES)
def test_whitened_slices_are_white_to_the_last_digits_however_they_were_before(state: str, method: str) -> None:
    z = batch_in(state, 256, 32)[0].unflatten(0, (4, 64))
    white = linalg.whiten(z, method=method)
    assert (linalg.covariance(white) - torch.eye(32)).abs().max() < 1e-13
    for whole, part in zip(white, z, strict=True):
        torch.testing.assert_close(whole, linalg.whiten(part, method=method), rtol=1e-9, atol=1e-9)


def test_zca_maps_by_the_symmetric_root_and_stays_nearest_to_the_centred_batch() -> None:
    z, _ = batch_in("healthy", 24, 5)
    x, zca, cholesky = linalg.center(z), linalg.whiten(z, method="zca"), linalg.whiten(z)
    root = torch.linalg.lstsq(x, zca).solution
    torch.testing.assert_close(root, root.T, atol=1e-12, rtol=0)
    torch.testing.assert_close(
        root @ root @ linalg.covariance(z), torch.eye(5, dtype=torch.float64), atol=1e-12, rtol=0
    )
    assert torch.linalg.eigvalsh(root).min() > 0
    assert (zca - x).norm() < (cholesky - x).norm()
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))
        assert (zca - x).norm() < (zca @ rotation - x).norm()


@pytest.mark.parametrize("method", ["cholesky", "zca"])
@pytest.mark.parametrize("shrinkage", [0.0, 1e-9])
def test_one_pass_and_two_passes_of_whitening_agree_in_value_and_gradient(
    method: str, shrinkage: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    z, weights = batch_in("healthy", 24, 5)
    results = []
    for threshold in (0.0, 2.0):
        monkeypatch.setattr(linalg, "LOSSY_PIVOT", threshold)
        leaf = z.clone().requires_grad_()
        white = linalg.whiten(leaf, shrinkage, method=method)
        results.append((white.detach(), *torch.autograd.grad((weights * white).sum(), leaf)))
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("method", ["cholesky", "zca"])
@pytest.mark.parametrize("state", ["healthy", "nearly one direction", "nearly converged"])
def test_the_gradient_of_whitening_equals_finite_differences(state: str, method: str) -> None:
    z = batch_in(state, 16, 3)[0].unflatten(0, (2, 8)).requires_grad_()
    for shrinkage in (0.0, 0.3):
        assert torch.autograd.gradcheck(
            lambda x, s=shrinkage: linalg.whiten(x, s, method=method), [z], eps=1e-6, atol=1e-4, rtol=1e-5
        )


def test_a_feature_that_depends_on_others_is_refused_whatever_its_rounding() -> None:
    # Among hundreds, some have a pivot that is noise and yet above the threshold: the second pass finds them.
    generator = torch.Generator().manual_seed(1)
    found = 0
    for _ in range(300):
        z = torch.randn(100, 3, generator=generator, dtype=torch.float64) + 50
        z[:, 2] = z[:, :2] @ torch.randn(2, generator=generator, dtype=torch.float64)
        sigma = linalg.covariance(z)
        found += float((linalg._cholesky(sigma)[1] / sigma.diagonal()).min()) > 3 * torch.finfo(torch.float64).eps
        for method in ("cholesky", "zca"):
            with pytest.raises(linalg.SingularCovarianceError, match="shrinkage"):
                linalg.whiten(z, method=method)
    assert found > 3


@pytest.mark.parametrize("singular_values", [(1.0, 1.0, 1.0), (2.0, 2.0, 1.0), (3.0, 2.0, 1e-3)])
def test_the_orthogonal_factor_and_its_gradient_also_where_singular_values_are_equal(
    singular_values: tuple[float, ...],
) -> None:
    generator = torch.Generator().manual_seed(0)
    u, v = torch.linalg.qr(torch.randn(2, 3, 3, generator=generator, dtype=torch.float64))[0]
    matrix = u @ torch.tensor(singular_values, dtype=torch.float64).diag() @ v.T
    for exact in (matrix, matrix[None].expand(2, 3, 3).clone(), max(singular_values) * torch.eye(3).double()):
        factor = linalg.orthogonal_factor(exact)
        symmetric = factor.mT @ exact
        torch.testing.assert_close(factor.mT @ factor, torch.eye(3).double().expand_as(factor), atol=1e-13, rtol=0)
        torch.testing.assert_close(symmetric, symmetric.mT, atol=1e-13, rtol=0)
        assert (torch.linalg.eigvalsh(symmetric) > 0).all()
        step = 1e-3 * min(singular_values)
        assert torch.autograd.gradcheck(
            linalg.orthogonal_factor, [exact.requires_grad_()], eps=step, rtol=1e-4, atol=1e-4 / min(singular_values)
        )
    torch.testing.assert_close(linalg.orthogonal_factor(matrix), u @ v.T, atol=1e-12, rtol=0)


@pytest.mark.parametrize("method", ["cholesky", "zca"])
@pytest.mark.parametrize("k", [3, 5])
def test_too_few_rows_cannot_be_whitened_without_shrinkage(k: int, method: str) -> None:
    z, _ = batch_in("healthy", k, 5)
    with pytest.raises(linalg.SingularCovarianceError, match="more than 5 rows"):
        linalg.whiten(z, method=method)
    assert linalg.whiten(z, 1e-3, method=method).isfinite().all()


@pytest.mark.parametrize("method", ["cholesky", "zca"])
def test_one_singular_slice_among_others_is_noticed(method: str) -> None:
    z = batch_in("healthy", 36, 5)[0].unflatten(0, (3, 12))
    z[1, :, 4] = z[1, :, 0] - 2 * z[1, :, 2]
    with pytest.raises(linalg.SingularCovarianceError, match="shrinkage"):
        linalg.whiten(z, method=method)


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
