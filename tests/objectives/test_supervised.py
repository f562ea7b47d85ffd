import pytest
import torch
from oracles import classification as oracle
from oracles.gradients import loss_and_gradients, relative_error
from oracles.vectors import STATES, batch_in

from barlow.objectives.supervised import Supervised


@pytest.mark.parametrize("state", STATES)
def test_value_and_gradient_equal_the_loops_in_both_precisions(state: str) -> None:
    logits, _ = batch_in(state, 9, 5)
    labels = torch.arange(9) * 3 % 5
    value, reference = loss_and_gradients(lambda z: {"loss": oracle.cross_entropy(z, labels)}, logits)
    for precision, error in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        found, gradients = loss_and_gradients(lambda z: Supervised()(z, labels=labels), logits.to(precision))
        assert found == pytest.approx(value, rel=error)
        assert relative_error(gradients, reference) < error


def test_labels_that_the_classifier_has_no_output_for_are_refused() -> None:
    with pytest.raises(ValueError, match="labels has classes from 0 to 7: count them from 0 to 3"):
        Supervised()(torch.zeros(2, 4), labels=torch.tensor([0, 7]))
