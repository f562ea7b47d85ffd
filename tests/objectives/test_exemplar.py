"""Exemplar: every image a class by its id, or triplets; published numbers, and loops with gradients."""

import math

import pytest
import torch
from oracles import exemplar as oracle
from oracles.gradients import loss_and_gradients, relative_error
from oracles.vectors import STATES, batch_in
from torch.nn.functional import normalize

from barlow.objectives.exemplar import Exemplar
from barlow.objectives.exemplar_triplets import ExemplarTriplets

# V18: u[1 0; .9 .3; 0 1; .3 1] of the classes 0, 0, 1, 1: two views of two images.
FIRST = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
SECOND = normalize(torch.tensor([[0.9, 0.3], [0.3, 1.0]], dtype=torch.float64), dim=1)


def test_semi_hard_triplets_have_the_published_value() -> None:
    assert float(ExemplarTriplets(margin=2.0)(FIRST, SECOND)["triplets"]) == pytest.approx(0.970771648695, rel=1e-11)
    assert float(ExemplarTriplets(margin=2.0)(3 * SECOND, FIRST)["triplets"]) == pytest.approx(
        0.970771648695, rel=1e-11
    )


@pytest.mark.parametrize("views", [2, 4])
@pytest.mark.parametrize("margin", [0.2, 2.0])
@pytest.mark.parametrize("state", STATES)
def test_triplets_and_their_gradients_equal_the_loops(state: str, margin: float, views: int) -> None:
    z = [batch_in(state, 7, 4, seed)[seed % 2] for seed in range(views)]
    value, reference = loss_and_gradients(lambda *v: {"loss": oracle.triplets(*v, margin=margin)}, *z)
    for precision, error in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        found, gradients = loss_and_gradients(ExemplarTriplets(margin=margin), *(v.to(precision) for v in z))
        assert found == pytest.approx(value, rel=error)
        assert relative_error(gradients, reference) < error


def test_of_no_further_negative_the_furthest_is_taken() -> None:
    anchor_and_copy = torch.tensor([[1.0, 0.0], [1.0, 0.1]]), torch.tensor([[-1.0, 0.0], [1.0, -0.1]])
    found = float(ExemplarTriplets(margin=0.5)(*anchor_and_copy)["triplets"])
    assert found == pytest.approx(float(oracle.triplets(*anchor_and_copy, margin=0.5)), rel=1e-6)
    assert found > 1.0


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("views", [2, 3])
def test_the_classifier_and_its_gradients_equal_the_loops(views: int, state: str) -> None:
    ids = torch.tensor([4, 0, 9, 3, 7])
    z = [batch_in(state, 5, 4, seed)[0] for seed in range(views)]
    module = Exemplar().build(width=4, images=10, seed=3)
    weight, bias = module.weight.detach().double(), module.bias.detach().double()
    value, reference = loss_and_gradients(
        lambda *v: {"loss": oracle.exemplar(*v[:-2], ids=ids, weight=v[-2], bias=v[-1])}, *z, weight, bias
    )
    module = module.double()
    leaves = [v.clone().requires_grad_() for v in z]
    loss = module([tuple(leaves)], ids=ids)["cross_entropy"]
    gradients = torch.autograd.grad(loss, [*leaves, module.weight, module.bias])
    assert float(loss.detach()) == pytest.approx(value, rel=1e-9)
    assert relative_error(list(gradients), reference) < 1e-9


def test_an_image_is_told_by_its_id_and_not_by_its_place_in_the_batch() -> None:
    module = Exemplar().build(width=6, images=6, seed=0)
    with torch.no_grad():
        module.weight.copy_(50 * torch.eye(6))
        module.bias.zero_()
    ids = torch.tensor([5, 2])
    z = torch.eye(6)[ids]
    assert module([(z, z)], ids=ids)["cross_entropy"].item() < 1e-12
    assert module([(z, z)], ids=torch.tensor([0, 1]))["cross_entropy"].item() > 40


def test_a_classifier_of_zeros_costs_the_logarithm_of_the_images() -> None:
    module = Exemplar().build(width=3, images=50, seed=0)
    for parameter in module.parameters():
        parameter.data.zero_()
    z = torch.randn(4, 3)
    assert module([(z, z)], ids=torch.arange(4))["cross_entropy"].item() == pytest.approx(math.log(50))


def test_more_images_than_a_classifier_has_room_for_are_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"2,000,001 images.*--objective exemplar_triplets"):
        Exemplar().build(width=2, images=2_000_001, seed=0)


@pytest.mark.parametrize("margin", [0.0, -1.0, math.inf])
def test_a_margin_that_holds_nothing_apart_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="margin is"):
        ExemplarTriplets(margin=margin)
