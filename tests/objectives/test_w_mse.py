import itertools

import pytest
import torch
from oracles import w_mse as oracle
from oracles.gradients import loss_and_gradients, relative_error
from oracles.vectors import STATES, batch_in, formula_batch

from barlow.linalg import SingularCovarianceError
from barlow.objectives import w_mse
from barlow.objectives._whitening import whiten
from barlow.objectives.w_mse import WMSE

FROZEN_ORDER = [0, 2, 6, 7, 1, 4, 3, 5]


def distance(objective: WMSE, *views: torch.Tensor) -> float:
    return float(objective(*views)["distance"])


# (n, d): Cholesky; ZCA; Cholesky with the Euclidean distance summed over features.
PUBLISHED = {
    (8, 4): (0.0467824014, 0.0296666648, 0.1663370857),
    (16, 6): (0.0820090631, 0.0753141676, 0.4937875751),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_vectors(size: tuple[int, int]) -> None:
    n, d = size
    cholesky, zca, squared = PUBLISHED[size]
    views = formula_batch(n, d)
    assert distance(WMSE(slice_rows=n), *views) == pytest.approx(cholesky, abs=1e-9)
    assert distance(WMSE(slice_rows=n, whitening="zca"), *views) == pytest.approx(zca, abs=1e-9)
    assert d * distance(WMSE(slice_rows=n, distance="euclidean"), *views) == pytest.approx(squared, abs=1e-9)


def test_published_singular_case_names_its_remedies() -> None:
    with pytest.raises(ValueError, match=r"slice_rows above 10.*shrinkage > 0"):
        WMSE(slice_rows=6)(*formula_batch(6, 10))
    assert 0 < distance(WMSE(slice_rows=6, shrinkage=0.1), *formula_batch(6, 10)) < 4


def test_published_value_with_the_features_permuted() -> None:
    a, b = formula_batch(8, 4)
    permuted = [
        round(distance(WMSE(), a[:, list(order)], b[:, list(order)]), 4) for order in itertools.permutations(range(4))
    ]
    assert 0.0342 in permuted
    assert 0.0468 in permuted


@pytest.mark.parametrize("kind", [*itertools.product(("cholesky", "zca"), ("cosine", "euclidean"))])
@pytest.mark.parametrize("shrinkage", [0.0, 0.1])
@pytest.mark.parametrize("state", STATES)
def test_value_and_gradient_equal_the_loops_in_both_precisions(
    state: str, shrinkage: float, kind: tuple[str, str]
) -> None:
    a, b = batch_in(state, 24, 5)

    def loops(za: torch.Tensor, zb: torch.Tensor) -> dict[str, torch.Tensor]:
        return oracle.w_mse(za, zb, 12, shrinkage, *kind)

    value, reference = loss_and_gradients(loops, a, b)
    objective = WMSE(slice_rows=12, shrinkage=shrinkage, whitening=kind[0], distance=kind[1])
    # Nearly one direction: the loops whiten by a covariance of condition number 1e7 and lose as much.
    exact = 1e-8 if state == "nearly one direction" else 1e-9
    for precision, error in ((torch.float64, exact), (torch.float32, 1e-4)):
        found, gradients = loss_and_gradients(objective, a.to(precision), b.to(precision))
        assert found == pytest.approx(value, rel=error)
        assert relative_error(gradients, reference) < error


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("whitening", ["cholesky", "zca"])
def test_a_constant_covariance_or_a_detached_view_is_another_gradient(whitening: str, distance: str) -> None:
    a, b = batch_in("healthy", 12, 5)
    objective = WMSE(slice_rows=12, whitening=whitening, distance=distance)
    value, right = loss_and_gradients(objective, a, b)

    def constant_covariance(za: torch.Tensor, zb: torch.Tensor) -> dict[str, torch.Tensor]:
        return oracle.w_mse(za, zb, 12, 0.0, whitening, distance, constant_covariance=True)

    def second_view_detached(za: torch.Tensor, zb: torch.Tensor) -> dict[str, torch.Tensor]:
        return objective(za, zb.detach() + 0 * zb)

    for wrong in (constant_covariance, second_view_detached):
        wrong_value, gradients = loss_and_gradients(wrong, a, b)
        assert wrong_value == pytest.approx(value, rel=1e-9), "values do not tell them apart"
        assert relative_error(gradients, right) > 0.05


@pytest.mark.parametrize(
    "objective",
    [
        WMSE(),
        WMSE(slice_rows=4, shrinkage=0.2),
        WMSE(slice_rows=4, slicings=2),
        WMSE(whitening="zca"),
        WMSE(distance="euclidean"),
        WMSE(slice_rows=4, shrinkage=0.2, slicings=2, whitening="zca", distance="euclidean"),
    ],
)
@pytest.mark.parametrize("state", ["healthy", "nearly converged"])
def test_gradient_equals_finite_differences(objective: WMSE, state: str) -> None:
    views = [z.requires_grad_() for z in batch_in(state, 12, 3)]
    assert torch.autograd.gradcheck(lambda za, zb: objective(za, zb)["distance"], views, eps=1e-5, rtol=1e-6)


def test_shifts_and_lower_triangular_maps_of_each_view_change_nothing() -> None:
    a, b = batch_in("healthy", 20, 5)
    generator = torch.Generator().manual_seed(0)
    lower = [torch.randn(5, 5, generator=generator, dtype=torch.float64).tril(-1) + 2 * torch.eye(5) for _ in "ab"]
    moved = distance(WMSE(), a @ lower[0].T + 3, b @ lower[1].T - 1)
    assert moved == pytest.approx(distance(WMSE(), a, b), rel=1e-10)
    upper = distance(WMSE(), a @ lower[0], b @ lower[1])
    assert upper != pytest.approx(distance(WMSE(), a, b), rel=1e-3), "Cholesky whitening depends on the features' order"


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
@pytest.mark.parametrize("whitening", ["cholesky", "zca"])
def test_distance_is_zero_for_equal_views_two_for_unrelated_ones_and_four_at_most(whitening: str, kind: str) -> None:
    objective = WMSE(whitening=whitening, distance=kind)
    # Of k rows whose covariance (divisor k - 1) is I, the mean square is (k - 1) / k.
    scale = 15 / 16 if kind == "euclidean" else 1
    a, b = batch_in("healthy", 800, 8)
    assert distance(objective, a, a) == 0
    assert distance(objective, a, -a) == pytest.approx(4 * scale)
    other, _ = batch_in("healthy", 800, 8, seed=1)
    assert distance(objective, a, other) == pytest.approx(2 * scale, abs=0.1)  # four standard errors
    rows = torch.randperm(800, generator=torch.Generator().manual_seed(1))
    assert distance(objective, a, b[rows]) > 5 * distance(objective, a, b), "rows that do not belong together"


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
def test_zca_sees_no_rotation_or_permutation_of_both_views_but_cholesky_does(kind: str) -> None:
    a, b = batch_in("healthy", 20, 5)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    permutation = torch.eye(5, dtype=torch.float64)[[3, 1, 4, 0, 2]]
    cholesky, zca = WMSE(distance=kind), WMSE(whitening="zca", distance=kind)
    for turn in (rotation, permutation):
        assert distance(zca, a @ turn, b @ turn) == pytest.approx(distance(zca, a, b), rel=1e-12)
        assert distance(cholesky, a @ turn, b @ turn) != pytest.approx(distance(cholesky, a, b), rel=1e-3)
        assert distance(zca, a, b @ turn) > 2 * distance(zca, a, b), "of one view it does"
    assert distance(zca, 3 * a + 1, b / 2) == pytest.approx(distance(zca, a, b), rel=1e-12)
    stretched = torch.linspace(0.2, 4, 5, dtype=torch.float64)
    assert distance(zca, a * stretched, b) != pytest.approx(distance(zca, a, b), rel=1e-3)
    assert distance(cholesky, a * stretched, b) == pytest.approx(distance(cholesky, a, b), rel=1e-12)


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
def test_views_that_are_white_already_have_equal_eigenvalues_and_the_right_gradient(kind: str) -> None:
    # Every pattern of signs once, times a power of 2: a covariance that is a multiple of I to the bit.
    a = 2 * torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)), dtype=torch.float64)
    covariance = a.T @ a / 15
    assert (covariance == covariance[0, 0] * torch.eye(4, dtype=torch.float64)).all()
    b = a.roll(1, 1)

    def loops(za: torch.Tensor, zb: torch.Tensor) -> dict[str, torch.Tensor]:
        return oracle.w_mse(za, zb, 16, 0.0, "zca", kind)

    value, reference = loss_and_gradients(loops, a, b)
    found, gradients = loss_and_gradients(WMSE(slice_rows=16, whitening="zca", distance=kind), a, b)
    assert found == pytest.approx(value, rel=1e-12)
    assert all(g.isfinite().all() for g in gradients)
    assert float(gradients[0].norm()) > 1e-3
    assert relative_error(gradients, reference) < 1e-12


def test_slices_are_contiguous_rows_and_each_is_whitened_apart() -> None:
    a, b = batch_in("healthy", 36, 4)
    parts = [distance(WMSE(slice_rows=12), a[s : s + 12], b[s : s + 12]) for s in (0, 12, 24)]
    assert distance(WMSE(slice_rows=12), a, b) == pytest.approx(sum(parts) / 3, rel=1e-12)
    within = torch.cat([torch.arange(12).flip(0) + s for s in (0, 12, 24)])
    assert distance(WMSE(slice_rows=12), a[within], b[within]) == pytest.approx(sum(parts) / 3, rel=1e-12)


def test_the_default_slice_is_twice_the_width() -> None:
    a, b = batch_in("healthy", 32, 4)
    assert distance(WMSE(), a, b) == distance(WMSE(slice_rows=8), a, b) != distance(WMSE(slice_rows=16), a, b)


@pytest.mark.parametrize(("n", "k"), [(8, 8), (16, 8), (20, 10), (7, 7), (26, 13), (30, 10), (10, 10)])
def test_the_default_slice_is_near_twice_the_width_where_that_does_not_divide_the_batch(n: int, k: int) -> None:
    a, b = batch_in("healthy", n, 4)
    assert distance(WMSE(), a, b) == distance(WMSE(slice_rows=k), a, b)


def test_with_shrinkage_a_slice_may_have_fewer_rows_than_features() -> None:
    a, b = batch_in("healthy", 6, 4)
    shrunk = WMSE(shrinkage=0.01)
    assert distance(shrunk, a, b) == distance(WMSE(shrinkage=0.01, slice_rows=6), a, b)
    few = [z[:3] for z in (a, b)]
    assert 0 < distance(shrunk, *few) < 4
    few = [z.requires_grad_() for z in few]
    assert torch.autograd.gradcheck(lambda za, zb: shrunk(za, zb)["distance"], few, eps=1e-6, rtol=1e-5)


def test_further_slicings_are_fixed_permutations_shared_by_the_views() -> None:
    a, b = batch_in("healthy", 24, 4)
    orders = [w_mse._row_order(24, slicing) for slicing in range(3)]
    assert orders[0].tolist() == list(range(24))
    assert all(sorted(order.tolist()) == list(range(24)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 3
    # Frozen: a run that is resumed elsewhere must find the same slices.
    assert w_mse._row_order(8, 1).tolist() == FROZEN_ORDER
    apart = [distance(WMSE(), a[order], b[order]) for order in orders]
    assert distance(WMSE(slicings=3), a, b) == pytest.approx(sum(apart) / 3, rel=1e-12)
    assert distance(WMSE(slicings=3), a, a) == 0


def test_slicings_make_no_difference_when_one_slice_is_the_batch() -> None:
    a, b = batch_in("healthy", 24, 4)
    one, four = WMSE(slice_rows=24), WMSE(slice_rows=24, slicings=4)
    assert distance(four, a, b) == pytest.approx(distance(one, a, b), rel=1e-12)


def test_views_beyond_two_give_the_mean_over_pairs_and_are_whitened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    views = [*batch_in("healthy", 24, 4), *batch_in("healthy", 24, 4, seed=1)]
    pairs = [distance(WMSE(slicings=2), za, zb) for za, zb in itertools.combinations(views, 2)]
    whitened = []
    monkeypatch.setattr(w_mse, "whiten", lambda z, *how, **more: whitened.append(z.numel()) or whiten(z, *how, **more))
    assert distance(WMSE(slicings=2), *views) == pytest.approx(sum(pairs) / 6, rel=1e-12)
    assert sum(whitened) == 4 * 2 * 24 * 4


@pytest.mark.parametrize(
    ("n", "objective", "remedy"),
    [
        (20, WMSE(slice_rows=8), "batch of 16 or 24"),
        (6, WMSE(slice_rows=8), "use a batch of 8"),
        (4, WMSE(), "use a batch of 8 or a projector of 2"),
        (16, WMSE(slice_rows=4), "slice_rows above 4"),
    ],
)
def test_a_batch_that_cannot_be_sliced_is_refused_with_one_that_can(n: int, objective: WMSE, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        objective(*batch_in("healthy", n, 4))


@pytest.mark.parametrize("whitening", ["cholesky", "zca"])
@pytest.mark.parametrize("collapse", ["a point", "a dead feature", "two equal features", "few directions"])
def test_a_collapsed_embedding_is_an_error_that_names_shrinkage_which_helps(collapse: str, whitening: str) -> None:
    views = [z.float() for z in batch_in("healthy", 24, 6)]
    for z in views:
        if collapse == "a point":
            z[:] = 0.1
        elif collapse == "a dead feature":
            z[:, 3] = 0.1
        elif collapse == "two equal features":
            z[:, 3] = z[:, 0]
        else:
            z[:] = z[:, :1] * z[0]
    with pytest.raises(SingularCovarianceError, match="shrinkage"):
        WMSE(whitening=whitening)(*views)
    value, gradients = loss_and_gradients(WMSE(shrinkage=1e-3, whitening=whitening), *views)
    assert 0 <= value <= 4
    assert all(g.isfinite().all() for g in gradients)


def test_views_that_are_one_point_do_not_look_like_agreement() -> None:
    z = torch.full((12, 3), 0.1)
    assert distance(WMSE(shrinkage=0.1), z, z) == 2


def test_embeddings_that_are_not_finite_are_named() -> None:
    a, b = batch_in("healthy", 12, 3)
    a[3, 1] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        WMSE()(a, b)


@pytest.mark.parametrize(
    "bad", [{"slice_rows": 1}, {"shrinkage": -0.1}, {"shrinkage": 1.0}, {"shrinkage": float("nan")}, {"slicings": 0}]
)
def test_hyper_parameters_out_of_range_are_refused_by_name(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        WMSE(**bad)
