"""Whitening by both methods, and ZCA's gradient written by hand beside the plain form with torch's gradient."""

import pytest
import torch
from oracles.vectors import STATES, batch_in

from barlow import linalg
from barlow.objectives._whitening import orthogonal_factor, plain_orthogonal_factor, whiten


def test_shrinkage_whitens_the_mixture_with_the_identity() -> None:
    z, _ = batch_in("healthy", 12, 5)
    mixed = 0.7 * linalg.covariance(z) + 0.3 * torch.eye(5)
    expected = torch.linalg.solve(torch.linalg.cholesky(mixed), linalg.center(z).T).T
    torch.testing.assert_close(whiten(z, 0.3), expected)
    eigenvalues, vectors = torch.linalg.eigh(mixed)
    expected = linalg.center(z) @ vectors @ (eigenvalues**-0.5).diag() @ vectors.T
    torch.testing.assert_close(whiten(z, 0.3, method="zca"), expected)


@pytest.mark.parametrize("method", ["cholesky", "zca"])
@pytest.mark.parametrize("state", STATES)
def test_whitened_slices_are_white_to_the_last_digits_however_they_were_before(state: str, method: str) -> None:
    z = batch_in(state, 256, 32)[0].unflatten(0, (4, 64))
    white = whiten(z, method=method)
    assert (linalg.covariance(white) - torch.eye(32)).abs().max() < 1e-13
    for whole, part in zip(white, z, strict=True):
        torch.testing.assert_close(whole, whiten(part, method=method), rtol=1e-9, atol=1e-9)


def test_zca_maps_by_the_symmetric_root_and_stays_nearest_to_the_centred_batch() -> None:
    z, _ = batch_in("healthy", 24, 5)
    x, zca, cholesky = linalg.center(z), whiten(z, method="zca"), whiten(z)
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
        white = whiten(leaf, shrinkage, method=method)
        results.append((white.detach(), *torch.autograd.grad((weights * white).sum(), leaf)))
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("method", ["cholesky", "zca"])
@pytest.mark.parametrize("state", ["healthy", "nearly one direction", "nearly converged"])
def test_the_gradient_of_whitening_equals_finite_differences(state: str, method: str) -> None:
    z = batch_in(state, 16, 3)[0].unflatten(0, (2, 8)).requires_grad_()
    for shrinkage in (0.0, 0.3):
        assert torch.autograd.gradcheck(
            lambda x, s=shrinkage: whiten(x, s, method=method), [z], eps=1e-6, atol=1e-4, rtol=1e-5
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
                whiten(z, method=method)
    assert found > 3


@pytest.mark.parametrize("singular_values", [(1.0, 1.0, 1.0), (2.0, 2.0, 1.0), (3.0, 2.0, 1e-3)])
def test_the_orthogonal_factor_and_its_gradient_also_where_singular_values_are_equal(
    singular_values: tuple[float, ...],
) -> None:
    generator = torch.Generator().manual_seed(0)
    u, v = torch.linalg.qr(torch.randn(2, 3, 3, generator=generator, dtype=torch.float64))[0]
    matrix = u @ torch.tensor(singular_values, dtype=torch.float64).diag() @ v.T
    for exact in (matrix, matrix[None].expand(2, 3, 3).clone(), max(singular_values) * torch.eye(3).double()):
        factor = orthogonal_factor(exact)
        symmetric = factor.mT @ exact
        torch.testing.assert_close(factor.mT @ factor, torch.eye(3).double().expand_as(factor), atol=1e-13, rtol=0)
        torch.testing.assert_close(symmetric, symmetric.mT, atol=1e-13, rtol=0)
        assert (torch.linalg.eigvalsh(symmetric) > 0).all()
        step = 1e-3 * min(singular_values)
        assert torch.autograd.gradcheck(
            orthogonal_factor, [exact.requires_grad_()], eps=step, rtol=1e-4, atol=1e-4 / min(singular_values)
        )
    torch.testing.assert_close(orthogonal_factor(matrix), u @ v.T, atol=1e-12, rtol=0)


@pytest.mark.parametrize("slices", [(), (2,)])
def test_the_orthogonal_factor_and_its_gradient_are_those_of_the_plain_form_where_that_has_one(
    slices: tuple[int, ...],
) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix, weights = torch.randn(2, *slices, 4, 4, generator=generator, dtype=torch.float64)
    matrix.requires_grad_()
    found, plain = (factor(matrix) for factor in (orthogonal_factor, plain_orthogonal_factor))
    torch.testing.assert_close(found, plain, rtol=1e-11, atol=1e-12)
    gradient, reference = (torch.autograd.grad((weights * factor).sum(), matrix)[0] for factor in (found, plain))
    torch.testing.assert_close(gradient, reference, rtol=1e-9, atol=1e-11)
    equal = torch.eye(4, dtype=torch.float64).requires_grad_()
    gradient, reference = (
        torch.autograd.grad((weights * factor(equal)).sum(), equal)[0]
        for factor in (orthogonal_factor, plain_orthogonal_factor)
    )
    assert gradient.isfinite().all()
    assert reference.isnan().any()


@pytest.mark.parametrize("method", ["cholesky", "zca"])
@pytest.mark.parametrize("k", [3, 5])
def test_too_few_rows_cannot_be_whitened_without_shrinkage(k: int, method: str) -> None:
    z, _ = batch_in("healthy", k, 5)
    with pytest.raises(linalg.SingularCovarianceError, match="more than 5 rows"):
        whiten(z, method=method)
    assert whiten(z, 1e-3, method=method).isfinite().all()


@pytest.mark.parametrize("method", ["cholesky", "zca"])
def test_one_singular_slice_among_others_is_noticed(method: str) -> None:
    z = batch_in("healthy", 36, 5)[0].unflatten(0, (3, 12))
    z[1, :, 4] = z[1, :, 0] - 2 * z[1, :, 2]
    with pytest.raises(linalg.SingularCovarianceError, match="shrinkage"):
        whiten(z, method=method)
