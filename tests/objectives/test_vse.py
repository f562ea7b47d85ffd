import math

import pytest
import torch
from oracles import vse as oracle
from oracles.gradients import loss_and_gradients, relative_error, terms_and_gradients
from oracles.vectors import STATES, batch_in

from barlow.objectives.vse import VSE


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


IMAGES = rows([1, 0.2], [0.9, 0.5], [-1, 0.5])
TEXTS = rows([0.9, 0.4], [0.7, 0.6], [0.3, 1])


def hinge(objective: VSE, *views: torch.Tensor) -> float:
    return float(objective(*views)["hinge"])


def test_published_values_of_all_hinges_and_of_the_hardest() -> None:
    assert hinge(VSE(hinges="all"), IMAGES, TEXTS) == pytest.approx(1.86871576269, abs=1e-11)
    assert hinge(VSE(), IMAGES, TEXTS) == pytest.approx(1.37044396446, abs=1e-11)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("parameters", [{}, {"hinges": "all"}, {"margin": 0.05}])
@pytest.mark.parametrize("size", [(2, 2), (9, 4), (5, 12)])
def test_value_and_gradient_equal_the_loops_in_both_precisions(
    size: tuple[int, int], parameters: dict[str, object], state: str
) -> None:
    a, b = batch_in(state, *size)
    reference = terms_and_gradients(lambda *z: oracle.vse(*z, **parameters), a, b)["hinge"]
    for precision, error in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        found = terms_and_gradients(VSE(**parameters), a.to(precision), b.to(precision))["hinge"]
        assert found[0] == pytest.approx(reference[0], rel=error)
        assert relative_error(found[1], reference[1]) < error


def test_the_gradient_of_the_published_rows_is_that_of_finite_differences_on_both_sides() -> None:
    for hinges in ("hardest", "all"):
        objective = VSE(hinges=hinges)  # type: ignore[arg-type]
        _, gradients = loss_and_gradients(objective, IMAGES, TEXTS)
        for side, gradient in enumerate(gradients):
            for place in range(IMAGES.numel()):
                moved = []
                for step in (1e-6, -1e-6):
                    views = [IMAGES.clone(), TEXTS.clone()]
                    views[side].view(-1)[place] += step
                    moved.append(hinge(objective, *views))
                assert gradient.view(-1)[place] == pytest.approx((moved[0] - moved[1]) / 2e-6, abs=1e-8)


def test_it_is_a_sum_over_the_batch_and_over_both_directions() -> None:
    z = torch.ones(8, 3)
    assert hinge(VSE(), z, z) == pytest.approx(2 * 8 * 0.2)
    assert hinge(VSE(hinges="all"), z, z) == pytest.approx(2 * 8 * 7 * 0.2)


def test_the_hinge_is_at_rest_where_everything_is_nearer_by_the_margin() -> None:
    turned = torch.eye(4, dtype=torch.float64)
    value, gradients = loss_and_gradients(VSE(), turned, turned)
    assert value == 0
    assert all(float(g.abs().max()) == 0 for g in gradients)
    assert hinge(VSE(margin=1.5), turned, turned) == pytest.approx(8 * 0.5)


def test_one_direction_alone_is_not_enough() -> None:
    # The first text is the nearest for both images, and each image for its own text: only images have the wrong text.
    images, texts = rows([1, 0], [0.8, 0.6]), rows([0.9, 0.3], [0.1, 1])
    value = hinge(VSE(margin=0.0), images, texts)
    assert value > 0
    assert value == pytest.approx(float(oracle.vse(images, texts, margin=0.0)["hinge"]), rel=1e-12)


def test_positive_scales_of_rows_a_rotation_and_the_order_of_sides_and_rows_change_nothing() -> None:
    a, b = batch_in("healthy", 12, 6)
    scale = torch.linspace(0.1, 9, 12, dtype=torch.float64)[:, None]
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    for objective in (VSE(), VSE(hinges="all")):
        value = hinge(objective, a, b)
        for other in ((scale * a, b / scale), (a @ turn, b @ turn), (b, a), (a[order], b[order])):
            assert hinge(objective, *other) == pytest.approx(value, rel=1e-12)
        assert hinge(objective, a, b[order]) > value, "rows that do not belong together"


def test_equally_hard_negatives_share_the_gradient() -> None:
    z = torch.ones(4, 3, dtype=torch.float64) + 0.1 * torch.eye(4, 3, dtype=torch.float64)
    z[2] = z[1]
    _, (to_a, to_b) = loss_and_gradients(VSE(), z, z)
    assert torch.allclose(to_a[1], to_a[2], rtol=0, atol=1e-14)
    assert torch.allclose(to_b[1], to_b[2], rtol=0, atol=1e-14)


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-13])
def test_a_row_without_direction_is_like_nothing_and_gets_no_gradient(length: float) -> None:
    a, b = (z.float() for z in batch_in("healthy", 6, 4))
    a[2] = length / 2
    for objective in (VSE(), VSE(hinges="all")):
        value, (to_a, to_b) = loss_and_gradients(objective, a, b)
        assert math.isfinite(value)
        assert float(to_a[2].abs().max()) == 0
        assert all(g.isfinite().all() for g in (to_a, to_b))
    point = torch.zeros(6, 4)
    assert hinge(VSE(), point, point) == pytest.approx(12 * 0.2)


def test_a_nan_in_an_embedding_is_seen_in_the_loss() -> None:
    a, b = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    b[1, 1] = float("nan")
    assert math.isnan(hinge(VSE(), a, b))


@pytest.mark.parametrize("margin", [-0.1, float("inf"), float("nan")])
def test_a_margin_below_zero_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match=r"margin is .*: give a finite number of 0 or more"):
        VSE(margin=margin)


def test_an_unknown_kind_of_hinges_is_refused() -> None:
    with pytest.raises(ValueError, match="hinges is 'semi': choose one of hardest, all"):
        VSE(hinges="semi")  # type: ignore[arg-type]
