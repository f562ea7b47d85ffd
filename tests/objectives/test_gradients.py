"""What both sums of squares with a gradient written by hand keep: Barlow Twins' and VICReg's."""

import pytest
import torch
from oracles.gradients import relative_error
from oracles.vectors import STATES, batch_in
from torch.utils._python_dispatch import TorchDispatchMode

from barlow.linalg import prefers_gram, standardize
from barlow.objectives._covariance import covariance_energies
from barlow.objectives._cross_correlation import cross_correlation_energies
from barlow.objectives._gradients import NARROW
from barlow.objectives._whitening import orthogonal_factor


def energy_and_gradients(form: str, gram: bool, *views: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
    leaves = [z.clone().requires_grad_() for z in views]
    if form == "cross-correlation":
        standardized = [standardize(z, 1e-5) for z in leaves]
        ((_, energy),) = cross_correlation_energies(standardized, gram=gram)
    else:
        energy = sum(covariance_energies(z, gram=gram)[1] for z in leaves)
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
    chosen = prefers_gram(*size, crossed=form == "cross-correlation")
    single, single_gradients = energy_and_gradients(form, chosen, *(z.float() for z in views))
    assert single == pytest.approx(value, rel=1e-4)
    assert relative_error(single_gradients, reference) < 1e-4


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
        energy_and_gradients(form, prefers_gram(n, d, crossed=True), *views)
    assert largest.elements <= n * d
    with LargestTensor() as largest:
        energy_and_gradients(form, False, *views)
    assert largest.elements == d * d


def test_products_are_taken_in_the_precision_that_is_asked_for_but_for_narrow_batches() -> None:
    for d, rounds in ((NARROW, False), (NARROW + 1, True)):
        a, b = batch_in("healthy", 96, d)
        views = [standardize(z) for z in (a, b)]
        for gram in (False, True):
            ((on, off),) = cross_correlation_energies(views, gram=gram)
            ((on_32, off_32),) = cross_correlation_energies(views, gram=gram, products=torch.float32)
            _, energy = covariance_energies(a, gram=gram)
            _, energy_32 = covariance_energies(a, gram=gram, products=torch.float32)
            assert on_32.equal(on)
            for exact, rounded in ((off, off_32), (energy, energy_32)):
                assert rounded.dtype == torch.float64
                assert rounded.equal(exact) != rounds, (d, gram)
                assert float(rounded) == pytest.approx(float(exact), rel=1e-5)


@pytest.mark.parametrize("gram", [False, True])
def test_a_second_derivative_is_refused_not_wrong(gram: bool) -> None:
    leaves = [z.requires_grad_() for z in batch_in("healthy", 8, 4)]
    ((on, off),) = cross_correlation_energies([standardize(z) for z in leaves], gram=gram)
    variance, energy = covariance_energies(leaves[0], gram=gram)
    turned = orthogonal_factor(leaves[0][:4])
    for value in (on + off, variance.sum() + energy, turned.sum()):
        with pytest.raises(RuntimeError, match="create_graph"):
            torch.autograd.grad(value, leaves[:1], create_graph=True)
