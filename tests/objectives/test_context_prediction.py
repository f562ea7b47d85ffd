"""Context prediction: the published numbers of the positions, and the loss against loops."""

import pytest
import torch
from oracles import classification as oracle
from oracles.gradients import loss_and_gradients, relative_error
from oracles.vectors import STATES, batch_in

from barlow.objectives.context_prediction import ContextPrediction


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("n", [1, 9])
def test_value_and_gradient_equal_the_loops_in_both_precisions(n: int, state: str) -> None:
    logits, _ = batch_in(state, n, 8)
    position = torch.arange(n) * 5 % 8
    value, reference = loss_and_gradients(lambda z: {"loss": oracle.cross_entropy(z, position)}, logits)
    for precision, error in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        found, gradients = loss_and_gradients(lambda z: ContextPrediction()(z, position=position), logits.to(precision))
        assert found == pytest.approx(value, rel=error)
        assert relative_error(gradients, reference) < error


def test_each_position_is_a_class() -> None:
    terms = ContextPrediction()(50.0 * torch.eye(8), position=torch.arange(8))
    assert float(terms["cross_entropy"]) < 1e-12


@pytest.mark.parametrize("width", [4, 9])
def test_logits_of_another_width_are_refused(width: int) -> None:
    with pytest.raises(ValueError, match=rf"{width} logits a row, where position has 8 classes"):
        ContextPrediction()(torch.zeros(2, width), position=torch.zeros(2, dtype=torch.int64))
