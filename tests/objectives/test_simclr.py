import itertools
import math

import pytest
import torch
from oracles import simclr as oracle
from oracles.gradients import loss_and_gradients, relative_error, terms_and_gradients
from oracles.vectors import STATES, batch_in

from barlow import objectives
from barlow.objectives import simclr
from barlow.objectives.simclr import SimCLR


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


A, B = rows([1, 0], [0, 1]), rows([0.8, 0.6], [0.6, 0.8])
A2, B2 = rows([1, 0.5], [0.2, 1]), rows([0.8, 0.6], [-0.3, 0.9])


def contrast(objective: SimCLR, *views: torch.Tensor) -> float:
    return float(objective(*views)["contrast"])


def test_published_values_of_rows_of_the_papers_mean_and_of_the_codes_sum() -> None:
    of_rows = [float(loss) for loss in oracle.losses_of_rows(A, B, 0.5)]
    assert of_rows == pytest.approx([0.627123057278] * 2 + [1.11430445684] * 2, abs=1e-11)
    assert contrast(SimCLR(temperature=0.5, convention="paper"), A, B) == pytest.approx(0.870713757057, abs=1e-12)
    assert contrast(SimCLR(temperature=0.5), A, B) == pytest.approx(1.74142751411, abs=1e-11)
    assert contrast(SimCLR(temperature=0.1, convention="paper"), A, B) == pytest.approx(0.966801729697, abs=1e-12)


def test_published_value_and_gradient_of_unequal_lengths() -> None:
    value, (to_a, to_b) = loss_and_gradients(SimCLR(temperature=0.5, convention="paper"), A2, B2)
    assert value == pytest.approx(0.614522024976, abs=1e-12)
    published = (
        rows([-0.105749017476, 0.211498034951], [0.640030920103, -0.128006184021]),
        rows([-0.278122646433, 0.370830195244], [0.0622781308367, 0.0207593769456]),
    )
    assert torch.allclose(to_a, published[0], rtol=0, atol=1e-12)
    assert torch.allclose(to_b, published[1], rtol=0, atol=1e-12)


def test_negatives_without_a_gradient_are_another_gradient() -> None:
    # What a gather without gradient makes of two processes with a row each.
    published = rows([-0.0363526061851, 0.0727052123702], [0.42551158569, -0.085102317138])

    def losses_of_own_rows(za: torch.Tensor, zb: torch.Tensor) -> dict[str, torch.Tensor]:
        total = za.new_zeros(())
        for i in range(2):
            own = [torch.where(torch.arange(2)[:, None] == i, z, z.detach()) for z in (za, zb)]
            losses = oracle.losses_of_rows(*own, 0.5)
            total = total + (losses[i] + losses[i + 2]) / 2
        return {"contrast": total / 2}

    _, (to_a, _) = loss_and_gradients(losses_of_own_rows, A2, B2)
    assert torch.allclose(to_a, published, rtol=0, atol=1e-11)
    value, right = loss_and_gradients(SimCLR(temperature=0.5, convention="paper"), A2, B2)
    wrong_value, wrong = loss_and_gradients(losses_of_own_rows, A2, B2)
    assert wrong_value == pytest.approx(value, rel=1e-12), "values do not tell them apart"
    assert relative_error(wrong, right) > 0.3


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("parameters", [{}, {"temperature": 0.5, "convention": "paper"}, {"temperature": 0.05}])
@pytest.mark.parametrize("size", [(2, 2), (9, 4), (5, 12)])
def test_value_and_gradient_equal_the_loops_in_both_precisions(
    size: tuple[int, int], parameters: dict[str, object], state: str
) -> None:
    a, b = batch_in(state, *size)
    reference = terms_and_gradients(lambda *z: oracle.simclr(*z, **parameters), a, b)["contrast"]
    for precision, error in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        found = terms_and_gradients(SimCLR(**parameters), a.to(precision), b.to(precision))["contrast"]
        assert found[0] == pytest.approx(reference[0], rel=error)
        assert relative_error(found[1], reference[1]) < error


@pytest.mark.parametrize("size", [(2, 3), (8, 5), (64, 128)])
def test_equal_embeddings_cost_what_chance_does(size: tuple[int, int]) -> None:
    z = torch.full(size, 0.3)
    value, gradients = loss_and_gradients(SimCLR(), z, z)
    assert value / 2 == pytest.approx(math.log(2 * size[0] - 1), rel=1e-6)
    assert all(float(g.abs().max()) < 1e-6 for g in gradients)


def test_positive_scales_of_rows_a_rotation_and_the_order_of_views_and_rows_change_nothing() -> None:
    a, b = batch_in("healthy", 12, 6)
    scale = torch.linspace(0.1, 9, 12, dtype=torch.float64)[:, None]
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    value = contrast(SimCLR(), a, b)
    for other in ((scale * a, b / scale), (a @ turn, b @ turn), (b, a), (a[order], b[order])):
        assert contrast(SimCLR(), *other) == pytest.approx(value, rel=1e-12)
    assert contrast(SimCLR(), a, b[order]) > 2 * value, "rows that do not belong together"
    assert contrast(SimCLR(), a @ turn, b) > 2 * value, "a rotation of one view"


def test_rows_of_its_own_view_are_negatives_too() -> None:
    a, b = batch_in("healthy", 8, 6)
    nearer = a.clone()
    nearer[1] = a[0] + 0.01 * a[1]
    across_only = torch.nn.functional.normalize(a, dim=1) @ torch.nn.functional.normalize(b, dim=1).T / 0.1
    assert contrast(SimCLR(), a, b) > float(torch.nn.functional.cross_entropy(across_only, torch.arange(8)))
    assert contrast(SimCLR(), nearer, b) > contrast(SimCLR(), a, b)


def test_a_lower_temperature_leaves_the_most_similar_negative_without_overflow() -> None:
    a, b = batch_in("healthy", 6, 8)
    u = torch.nn.functional.normalize(torch.cat([a, b]), dim=1)
    similarities = u @ u.T
    right = similarities.diagonal(6).repeat(2)
    negatives = similarities - 3 * (torch.eye(12) + torch.eye(12).roll(6, 0))
    for temperature in (1e-3, 1e-5):
        value, gradients = loss_and_gradients(SimCLR(temperature=temperature), a, b.flip(0))
        assert math.isfinite(value)
        assert all(g.isfinite().all() for g in gradients)
    hinge = (negatives.amax(dim=1) - right).relu().mean()
    assert 1e-5 * contrast(SimCLR(temperature=1e-5, convention="paper"), a, b) == pytest.approx(float(hinge), abs=1e-4)


def test_the_gradient_goes_to_both_views() -> None:
    a, b = batch_in("healthy", 8, 4)
    _, right = loss_and_gradients(SimCLR(), a, b)
    assert all(float(g.norm()) > 1e-2 for g in right)
    _, wrong = loss_and_gradients(lambda za, zb: SimCLR()(za, zb.detach() + 0 * zb), a, b)
    assert relative_error(wrong, right) > 0.3


def test_views_beyond_two_give_the_mean_over_pairs_and_are_compared_with_themselves_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    views = [*batch_in("healthy", 8, 5), *batch_in("healthy", 8, 5, seed=1)]
    pairs = [contrast(SimCLR(), *pair) for pair in itertools.combinations(views, 2)]
    calls = []
    compare = simclr.SimCLR._similarities
    monkeypatch.setattr(simclr.SimCLR, "_similarities", lambda self, a, b: calls.append(a is b) or compare(self, a, b))
    assert contrast(SimCLR(), *views) == pytest.approx(sum(pairs) / 6, rel=1e-12)
    assert (calls.count(True), calls.count(False)) == (4, 6)


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-13])
def test_a_row_without_direction_is_like_nothing_and_gets_no_gradient(length: float) -> None:
    a, b = (z.float() for z in batch_in("healthy", 6, 4))
    a[2] = length / 2
    value, (to_a, to_b) = loss_and_gradients(SimCLR(), a, b)
    assert math.isfinite(value)
    assert float(to_a[2].abs().max()) == 0
    assert all(g.isfinite().all() for g in (to_a, to_b))
    assert float(to_b[2].norm()) > 0, "what it is compared with gets one"
    point = torch.zeros(6, 4)
    assert contrast(SimCLR(convention="paper"), point, point) == pytest.approx(math.log(11), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -0.1, float("inf"), float("nan")])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"temperature is .*: give a finite number above 0"):
        SimCLR(temperature=temperature)


@pytest.mark.parametrize("kind", ["simclr", "byol", "moco"])
def test_a_nan_in_an_embedding_is_seen_in_the_loss(kind: str) -> None:
    a, b = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    b[1, 1] = float("nan")
    if kind == "moco":
        terms = objectives.load(kind)(queue=8).build(width=3, seed=0)([(a, b)])
    else:
        terms = objectives.load(kind)()(a, b)
    assert all(term.isnan() for term in terms.values())
