import math

import pytest
import torch
from oracles import cpc as oracle
from oracles.gradients import loss_and_gradients, relative_error
from oracles.vectors import STATES, batch_in

from barlow.objectives.cpc import CPC

PUBLISHED = {1: [2, 3, 4, 5, 8, 9, 10, 11], 2: [4, 5, 10, 11]}
"""Of two images with three rows of two patches: by distance, the patches that are predicted."""


@pytest.mark.parametrize("ahead", PUBLISHED)
def test_each_prediction_is_of_the_published_patch(ahead: int) -> None:
    assert oracle.labels(2, 3, 2, ahead) == PUBLISHED[ahead]
    # Twelve patches in twelve directions, and each prediction in that of the patch that it should be of.
    patches = torch.eye(12)
    predictions = patches[PUBLISHED[ahead]].reshape(2, -1)
    objective = CPC(width=12, scale=30.0)
    assert float(objective(predictions, patches.reshape(2, -1))["contrast"]) < 1e-9
    for wrong in (1, 2, 6):
        turned = patches.roll(wrong, 0)[PUBLISHED[ahead]].reshape(2, -1)
        assert float(objective(turned, patches.reshape(2, -1))["contrast"]) > 20


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("n", "ahead"), [(1, 1), (2, 2), (5, 1), (5, 3)])
def test_value_and_gradient_equal_the_loops_in_both_precisions(n: int, ahead: int, state: str) -> None:
    rows, columns, width = 4, 2, 3
    a, t = batch_in(state, max(2, n), rows * columns * width, 1)
    p, t = a[:n, ahead * columns * width :], t[:n]
    for scale in (0.1, 1.0):
        value, reference = loss_and_gradients(lambda p, t, s=scale: oracle.cpc(p, t, width, s), p, t)
        for precision, error in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
            found, gradients = loss_and_gradients(CPC(width=width, scale=scale), p.to(precision), t.to(precision))
            assert found == pytest.approx(value, rel=error)
            assert relative_error(gradients, reference) < error


def test_the_gradient_equals_finite_differences() -> None:
    a, t = batch_in("healthy", 3, 12)
    p = a[:, 4:].contiguous().requires_grad_()
    objective = CPC(width=2, scale=0.7)
    assert torch.autograd.gradcheck(lambda p, t: objective(p, t)["contrast"], (p, t.requires_grad_()))


def test_a_prediction_that_says_nothing_costs_the_logarithm_of_all_patches_of_all_images() -> None:
    t = torch.randn(7, 64 * 6, generator=torch.Generator().manual_seed(0))
    assert float(CPC()(torch.zeros(7, 64 * 4), t)["contrast"]) == pytest.approx(math.log(7 * 6), rel=1e-6)


def test_negatives_are_the_patches_of_other_images_and_those_that_nothing_predicts() -> None:
    t = torch.randn(3, 8 * 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = t[:, 8 * 2 :].clone()
    _, (_, gradient) = loss_and_gradients(CPC(width=8, scale=1.0), p, t)
    assert (gradient.view(3, 4, 8).norm(dim=2) > 0).all(), "of every patch, also of the first rows"


def test_a_vector_added_to_all_patches_changes_nothing_and_the_scale_is_that_of_the_products() -> None:
    a, t = batch_in("healthy", 6, 12)
    p = a[:, 6:]
    objective = CPC(width=3, scale=0.5)
    value, gradients = loss_and_gradients(objective, p, t)
    shifted, again = loss_and_gradients(objective, p, t + torch.tensor([3.0, -50.0, 7.0]).repeat(4))
    assert shifted == pytest.approx(value, rel=1e-12)
    assert relative_error(again, gradients) < 1e-12
    assert float(CPC(width=3, scale=1.0)(p / 2, t)["contrast"]) == pytest.approx(value, rel=1e-12)


def test_patches_far_from_the_origin_keep_their_digits_in_float32() -> None:
    a, t = batch_in("healthy", 6, 12)
    near = (64 * t).round() / 64  # and so exact in float32 also far from the origin
    p, objective = a[:, 6:].float(), CPC(width=3, scale=0.5)
    value, gradients = loss_and_gradients(objective, p, near.float())
    found, far = loss_and_gradients(objective, p, (near + 8192).float())
    assert found == pytest.approx(value, rel=1e-6)
    assert relative_error(far, gradients) < 1e-6


@pytest.mark.parametrize(
    ("p", "t"), [((2, 128), (2, 100)), ((2, 100), (2, 128)), ((2, 256), (2, 128)), ((2, 64), (3, 64))]
)
def test_widths_that_are_no_predictions_and_patches_are_refused(p: tuple[int, int], t: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 64 wide, and no more predictions than patches"):
        CPC()(torch.zeros(p), torch.zeros(t))


@pytest.mark.parametrize(("options", "message"), [({"width": 0}, "width is 0"), ({"scale": 0.0}, "scale is 0.0")])
def test_hyper_parameters_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CPC(**options)
