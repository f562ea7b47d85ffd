"""Jigsaw: the classes are the orders of a set that the objective keeps; against loops, with gradients."""

import math
from typing import Any

import pytest
import torch
from oracles import jigsaw as oracle
from oracles.gradients import loss_and_gradients, relative_error
from oracles.vectors import STATES, batch_in
from torch import Tensor

from barlow.objectives.jigsaw import Jigsaw
from barlow.orders import Distance, chosen_orders, orders_of, ranks_of

FOUR = Jigsaw(permutations=6, tiles=4)


def told_of(section: Jigsaw, classes: Tensor) -> Tensor:
    orders = chosen_orders(section.tiles, section.permutations, section.distance)
    return torch.from_numpy(ranks_of(orders))[classes]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("n", [1, 9])
def test_value_and_gradient_equal_the_loops_in_both_precisions(n: int, state: str) -> None:
    orders = [tuple(order) for order in chosen_orders(4, 6, "mean").tolist()]
    logits, _ = batch_in(state, n, 6)
    told = told_of(FOUR, torch.arange(n) * 5 % 6)
    value, reference = loss_and_gradients(lambda z: {"loss": oracle.jigsaw(z, told, orders)}, logits)
    for precision, error in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        module = FOUR.build()
        found, gradients = loss_and_gradients(lambda z, m=module: m([(z,)], permutation=told), logits.to(precision))
        assert found == pytest.approx(value, rel=error)
        assert relative_error(gradients, reference) < error


@pytest.mark.parametrize("distance", ["mean", "min"])
def test_each_order_of_the_set_is_a_class_by_its_rank(distance: Distance) -> None:
    section = Jigsaw(permutations=40, distance=distance)
    told = told_of(section, torch.arange(40))
    terms = section.build()([(50.0 * torch.eye(40),)], permutation=told)
    assert float(terms["cross_entropy"]) < 1e-12
    assert (told.diff() > 0).all()


def test_equal_logits_cost_the_logarithm_of_the_orders() -> None:
    told = told_of(FOUR, torch.arange(6))
    terms = FOUR.build()([(torch.zeros(6, 6),)], permutation=told)
    assert float(terms["cross_entropy"]) == pytest.approx(math.log(6))


def test_of_several_groups_the_mean_is_taken() -> None:
    module, told = FOUR.build(), told_of(FOUR, torch.arange(6))
    groups = [(batch_in("healthy", 6, 6, seed)[0],) for seed in (0, 1)]
    each = [float(module([group], permutation=told)["cross_entropy"]) for group in groups]
    assert float(module(groups, permutation=told)["cross_entropy"]) == pytest.approx(sum(each) / 2)


def test_the_set_of_orders_is_in_the_checkpoint_and_says_what_the_classes_are() -> None:
    module = FOUR.build()
    assert set(module.state_dict()) == {"orders"}
    other = module.state_dict() | {"orders": torch.from_numpy(orders_of(torch.tensor([1, 2, 3, 5, 8, 13]).numpy(), 4))}
    module.load_state_dict(other)
    logits = 50.0 * torch.eye(6)[[5]]
    assert float(module([(logits,)], permutation=torch.tensor([13]))["cross_entropy"]) < 1e-12
    with pytest.raises(ValueError, match="in orders that are not among the 6"):
        module([(logits,)], permutation=told_of(FOUR, torch.tensor([5])))


@pytest.mark.parametrize("rank", [0, 24, 10**12])
def test_an_order_that_is_not_in_the_set_is_refused(rank: int) -> None:
    module = Jigsaw(permutations=6, tiles=4).build()
    with pytest.raises(ValueError, match="give the op tiles order: chosen, and the objective's permutations"):
        module([(torch.zeros(1, 6),)], permutation=torch.tensor([rank]))


def test_logits_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="5 logits a row, where permutation has 6 classes"):
        FOUR.build()([(torch.zeros(2, 5),)], permutation=told_of(FOUR, torch.tensor([0, 1])))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"permutations": 24, "tiles": 4}, "give 2 to 23"), ({"tiles": 16}, "orders of 16 tiles: give 2 to 9")],
)
def test_a_set_that_there_is_not_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Jigsaw(**options)
