import math

import numpy as np
import pytest
import torch
from oracles import classification as oracle
from oracles.gradients import loss_and_gradients, relative_error
from oracles.vectors import STATES, batch_in

from barlow.objectives._classification import cross_entropy
from barlow.objectives.rotation import Rotation

PUBLISHED = [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]]]
"""[1 2; 3 4], and rotated by one, two and three quarter turns."""


def loss(logits: torch.Tensor, rotation: torch.Tensor) -> float:
    return float(Rotation()(logits, rotation=rotation)["cross_entropy"])


def test_the_classes_are_quarter_turns_counter_clockwise() -> None:
    turned = np.array([np.rot90(PUBLISHED[0], k) for k in range(4)])
    assert turned.tolist() == PUBLISHED
    # Templates of the four rotations: each image is most like the template of its own.
    logits = -torch.tensor([[float(np.square(image - template).sum()) for template in PUBLISHED] for image in turned])
    assert loss(logits, torch.arange(4)) < 1e-4
    for wrong in (1, 2, 3):
        assert loss(logits, (torch.arange(4) + wrong) % 4) > 5


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("n", [1, 9])
def test_value_and_gradient_equal_the_loops_in_both_precisions(n: int, state: str) -> None:
    logits, _ = batch_in(state, n, 4)
    rotation = torch.arange(n) * 3 % 4
    value, reference = loss_and_gradients(lambda z: {"loss": oracle.cross_entropy(z, rotation)}, logits)
    for precision, error in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        found, gradients = loss_and_gradients(lambda z: Rotation()(z, rotation=rotation), logits.to(precision))
        assert found == pytest.approx(value, rel=error)
        assert relative_error(gradients, reference) < error


@pytest.mark.parametrize("classes", [2, 4, 1000])
def test_equal_logits_cost_the_logarithm_of_the_classes(classes: int) -> None:
    right = torch.arange(6) % classes
    assert float(cross_entropy(torch.full((6, classes), 3.0), right, name="labels")) == pytest.approx(math.log(classes))


def test_it_is_torchs_cross_entropy_and_keeps_more_digits_of_a_small_one() -> None:
    logits, _ = batch_in("healthy", 32, 4)
    rotation = torch.arange(32) % 4
    assert loss(logits, rotation) == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, rotation)), rel=1e-12
    )
    sure = torch.tensor([[20.0, 0, 0, 0]])
    assert loss(sure, torch.tensor([0])) == pytest.approx(math.log1p(3 * math.exp(-20)), rel=1e-6)
    assert float(torch.nn.functional.cross_entropy(sure, torch.tensor([0]))) == 0


def test_large_logits_have_a_finite_value_and_gradient() -> None:
    logits = torch.tensor([[1e30, 0, 0, 0], [0, 1e30, 0, 0], [-1e30, 0, 0, 0]])
    value, (gradient,) = loss_and_gradients(lambda z: Rotation()(z, rotation=torch.tensor([0, 0, 0])), logits)
    assert value == pytest.approx(2e30 / 3, rel=1e-6)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("width", [1, 3, 5])
def test_logits_of_another_width_are_refused(width: int) -> None:
    with pytest.raises(ValueError, match=rf"{width} logits a row, where rotation has 4 classes: give .* as many"):
        loss(torch.zeros(2, width), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("rotation", [[0, 4], [-1, 0], [-100, 3]])
def test_rotations_that_there_are_not_are_refused(rotation: list[int]) -> None:
    with pytest.raises(ValueError, match="count them from 0 to 3"):
        loss(torch.zeros(2, 4), torch.tensor(rotation))


@pytest.mark.parametrize(
    "rotation", [torch.zeros(3, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2)]
)
def test_rotations_that_are_not_one_int64_a_row_are_refused(rotation: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="give one int64 for each of the 2 rows"):
        loss(torch.zeros(2, 4), rotation)
