import pytest
import torch
from oracles import counting as oracle
from oracles.gradients import relative_error
from oracles.vectors import STATES, batch_in
from torch import Tensor

from barlow.objectives.counting import Counting

X, Y, OF_X = [1.0, 2.0], [2.0, 3.0], [1.1, 2.2]
"""The whole x, the whole y, and the sum of x's quarters."""
FAR = [100.0, 100.0]


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def terms(whole: Tensor, summed: Tensor, ids: list[int] | None = None, **options: float) -> dict[str, float]:
    images = torch.arange(len(whole)) if ids is None else torch.tensor(ids)
    return {name: float(term) for name, term in Counting(**options)(whole, summed, ids=images).items()}


def loss_and_gradients(loss: object, whole: Tensor, summed: Tensor) -> tuple[float, list[Tensor]]:
    leaves = [z.detach().clone().requires_grad_() for z in (whole, summed)]
    value = sum(loss(*leaves).values())
    return value.item(), [gradient.double() for gradient in torch.autograd.grad(value, leaves)]


def of_other_rows(whole: Tensor, summed: Tensor) -> dict[str, Tensor]:
    return Counting()(whole, summed, ids=torch.arange(len(whole)))


def test_published_values_are_those_of_whole_vectors() -> None:
    # Of y it counts right, and its sum is far from x: that row costs nothing.
    found = terms(rows(X, Y), rows(OF_X, FAR))
    of_y = (97**2 + 98**2) / 2
    assert found["distance"] == pytest.approx(0.05 / 2 + of_y, rel=1e-12)
    assert found["contrast"] == pytest.approx(8.55 / 2, rel=1e-12)
    by_feature = (0.025 / 2, 9.275 / 2)
    assert found["contrast"] != pytest.approx(by_feature[1], abs=0.1), "the hinge of each feature by itself"


def test_published_gradient_of_one_image_beside_another() -> None:
    # w_y pushes s_x away by 2 (w_y - s_x), w_x pulls it by 2 (s_x - w_x): over two rows, half of each.
    whole, summed = rows(X, Y), rows(OF_X, FAR)
    _, (to_whole, to_summed) = loss_and_gradients(of_other_rows, whole, summed)
    assert to_summed[0].tolist() == pytest.approx([0.1 + 0.9, 0.2 + 0.8])
    assert to_whole[0].tolist() == pytest.approx([-0.1, -0.2])
    assert to_whole[1].tolist() == pytest.approx([-0.9 - 98, -0.8 - 97])


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("size", [(2, 3), (9, 4), (5, 12)])
def test_value_and_gradient_equal_the_loops_in_both_precisions(size: tuple[int, int], state: str) -> None:
    whole, summed = batch_in(state, *size)
    value, reference = loss_and_gradients(oracle.counting, whole, summed)
    for precision, error in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        found, gradients = loss_and_gradients(of_other_rows, whole.to(precision), summed.to(precision))
        assert found == pytest.approx(value, rel=error)
        assert relative_error(gradients, reference) < error


def test_a_row_of_the_same_image_is_no_other_image() -> None:
    whole, summed = batch_in("healthy", 7, 4)
    ids = [5, 0, 5, 9, 5, 0, 2]
    loops = {name: float(term) for name, term in oracle.counting(whole, summed, ids).items()}
    assert terms(whole, summed, ids) == pytest.approx(loops, rel=1e-12)
    assert terms(whole, summed, ids)["contrast"] != pytest.approx(terms(whole, summed)["contrast"], rel=1e-4)


def test_every_row_weighs_the_same_however_many_other_images_it_has() -> None:
    whole, summed = torch.zeros(4, 2), rows([0, 0], [0, 0], [0, 0], [3, 0]).float()
    # Ten for each of three rows that are near all others, and one for the row of a squared distance of nine.
    assert terms(whole, summed, [1, 1, 1, 2])["contrast"] == pytest.approx((3 * 10 + 1) / 4)


def test_wholes_and_sums_are_interchangeable_where_no_image_is_there_twice() -> None:
    whole, summed = batch_in("healthy", 7, 4)
    assert terms(whole, summed) == pytest.approx(terms(summed, whole), rel=1e-12)
    twice = [5, 0, 5, 9, 5, 0, 2]
    assert terms(whole, summed, twice)["contrast"] != pytest.approx(terms(summed, whole, twice)["contrast"], rel=1e-6)


def test_a_shift_of_all_vectors_and_the_order_of_rows_change_nothing() -> None:
    whole, summed = batch_in("healthy", 12, 5)
    value, gradients = loss_and_gradients(of_other_rows, whole, summed)
    shifted, same = loss_and_gradients(of_other_rows, whole + 1000, summed + 1000)
    assert shifted == pytest.approx(value, rel=1e-9)
    assert relative_error(same, gradients) < 1e-9
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    permuted, moved = loss_and_gradients(of_other_rows, whole[order], summed[order])
    assert permuted == pytest.approx(value, rel=1e-12)
    assert relative_error(moved, [gradient[order] for gradient in gradients]) < 1e-12


def test_counting_nothing_costs_the_margin_and_counting_right_and_apart_costs_nothing() -> None:
    nothing = torch.zeros(6, 3)
    assert terms(nothing, nothing) == {"distance": 0, "contrast": 10}
    apart = 3.2 * torch.eye(6)
    assert terms(apart, apart) == {"distance": 0, "contrast": 0}
    assert terms(nothing, nothing, margin=0.0) == {"distance": 0, "contrast": 0}


def test_what_is_further_than_the_margin_gets_no_gradient() -> None:
    whole, summed = rows([0, 0], [4, 0]).requires_grad_(), rows([0, 0], [4, 0])
    (gradient,) = torch.autograd.grad(Counting(margin=15.0)(whole, summed, ids=torch.arange(2))["contrast"], whole)
    assert float(gradient.norm()) == 0
    (gradient,) = torch.autograd.grad(Counting(margin=17.0)(whole, summed, ids=torch.arange(2))["contrast"], whole)
    assert gradient.tolist() == [[4.0, 0.0], [-4.0, 0.0]]


def test_of_unrelated_narrow_embeddings_the_hinge_is_seen_in_the_levels() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(2, 2000, 4, generator=generator, dtype=torch.float64)
    for margin in (0.0, 10.0, 400.0):
        loss = sum(terms(*drawn, margin=margin).values())
        assert loss == pytest.approx(Counting(margin=margin).levels(2000, 4).unrelated, rel=0.03)
    # Where the margin is far above all distances, the two terms add up to it.
    assert Counting(margin=1e4).levels(8, 1000).unrelated == pytest.approx(1e4)
    assert Counting(margin=1e9).levels(8, 10).unrelated == pytest.approx(1e9)
    assert Counting(margin=10).levels(8, 2**17).unrelated == 2**18


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (torch.tensor([3, 3, 3]), "all 3 rows are of image 3, .*use a batch of two images or more"),
        (torch.tensor([1, 2]), r"ids is torch.int64 of shape \(2,\): give one int64 for each of the 3 rows"),
        (torch.tensor([1.0, 2.0, 3.0]), r"ids is torch.float32 of shape \(3,\)"),
        (torch.tensor([[1, 2, 3]]), r"of shape \(1, 3\)"),
    ],
)
def test_ids_that_do_not_tell_images_apart_are_refused(ids: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Counting()(torch.zeros(3, 2), torch.zeros(3, 2), ids=ids)


def test_a_negative_margin_is_refused() -> None:
    with pytest.raises(ValueError, match="margin is -1: give a finite number of 0 or more"):
        Counting(margin=-1)
