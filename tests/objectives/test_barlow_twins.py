import itertools
import math

import pytest
import torch
from oracles import barlow_twins as oracle
from oracles.gradients import loss_and_gradients, relative_error, terms_and_gradients
from oracles.vectors import STATES, batch_in, formula_batch

from barlow.linalg import center, standardize
from barlow.objectives import barlow_twins
from barlow.objectives._whitening import whiten
from barlow.objectives.barlow_twins import BarlowTwins

# (n, d): sums of a and b; diagonal part, off-diagonal sum before its weight, loss at eps 0; loss at eps 1e-5.
PUBLISHED = {
    (8, 4): (1.8275408464, 0.7044442913, 0.0008913106, 3.4730935852, 0.0186040879, 0.0186053413),
    (16, 6): (4.1654649037, -2.8134170382, 0.0027324808, 4.5795453118, 0.0260881619, 0.0260915868),
    (6, 10): (1.5650478197, -0.4250733041, 0.0086981079, 25.5305650180, 0.1389039895, 0.1389097153),
}
# Both sides of n = d/2, and the switch itself.
SIZES = [(24, 8), (17, 32), (16, 32), (12, 30)]


def total(terms: dict[str, torch.Tensor]) -> float:
    return float(sum(terms.values()))


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_vectors(size: tuple[int, int]) -> None:
    a, b = formula_batch(*size)
    sum_a, sum_b, diagonal, off_diagonal, without_eps, official = PUBLISHED[size]
    assert float(a.sum()) == pytest.approx(sum_a, abs=1e-9)
    assert float(b.sum()) == pytest.approx(sum_b, abs=1e-9)
    terms = BarlowTwins(redundancy=0.0051, eps=0)(a, b)
    assert float(terms["invariance"]) == pytest.approx(diagonal, abs=1e-9)
    assert float(terms["redundancy"]) / 0.0051 == pytest.approx(off_diagonal, abs=1e-8)
    assert total(terms) == pytest.approx(without_eps, abs=1e-9)
    assert total(BarlowTwins()(a, b)) == pytest.approx(official, abs=1e-9)


def test_published_value_for_a_view_of_opposite_sign() -> None:
    a, b = formula_batch(8, 4)
    assert total(BarlowTwins(eps=0)(a, -b)) == pytest.approx(15.8019081076, abs=1e-9)


def test_opposite_sign_turns_agreement_round_and_leaves_redundancy() -> None:
    a, b = formula_batch(16, 6)
    agreement = (standardize(a, 1e-5).x * standardize(b, 1e-5).x).mean(dim=0)
    terms, turned = BarlowTwins()(a, b), BarlowTwins()(a, -b)
    assert float(turned["invariance"]) == pytest.approx(float((1 + agreement).square().sum()), rel=1e-12)
    assert float(turned["redundancy"]) == pytest.approx(float(terms["redundancy"]), rel=1e-12)


def test_loss_is_zero_for_equal_whitened_views_and_only_there() -> None:
    a, _ = batch_in("healthy", 20, 5)
    white = whiten(a)
    assert total(BarlowTwins(eps=0)(white, white)) < 1e-25
    assert total(BarlowTwins(eps=0)(a, a)) > 1e-4, "equal views that are not white"
    assert total(BarlowTwins(eps=0)(white, white.flip(0))) > 0.1, "white views that do not agree"


@pytest.mark.parametrize("size", [(20, 5), (10, 30)])
def test_shift_and_positive_scale_of_a_feature_change_nothing(size: tuple[int, int]) -> None:
    a, b = batch_in("healthy", *size)
    scale = torch.linspace(0.1, 7, size[1], dtype=torch.float64)
    objective = BarlowTwins(eps=0)
    assert total(objective(a * scale + 3, b / scale - scale)) == pytest.approx(total(objective(a, b)), rel=1e-11)


@pytest.mark.parametrize("size", [(20, 5), (10, 30)])
def test_exchange_of_views_and_joint_permutations_change_nothing(size: tuple[int, int]) -> None:
    a, b = batch_in("healthy", *size)
    rows, columns = torch.randperm(size[0], generator=torch.Generator().manual_seed(1)), torch.arange(size[1]).roll(2)
    reference = total(BarlowTwins()(a, b))
    for other in ((b, a), (a[rows], b[rows]), (a[:, columns], b[:, columns])):
        assert total(BarlowTwins()(*other)) == pytest.approx(reference, rel=1e-12)
    assert total(BarlowTwins()(a, b[rows])) > 2 * reference, "rows that do not belong together"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("size", SIZES)
def test_value_and_gradient_equal_the_loops_in_both_precisions(size: tuple[int, int], state: str) -> None:
    a, b = batch_in(state, *size)
    reference = terms_and_gradients(oracle.barlow_twins, a, b)
    for precision, value_error, gradient_error in ((torch.float64, 1e-9, 1e-9), (torch.float32, 1e-5, 1e-4)):
        found = terms_and_gradients(BarlowTwins(), a.to(precision), b.to(precision))
        assert found.keys() == reference.keys()
        for name, (value, gradients) in found.items():
            assert value == pytest.approx(reference[name][0], rel=value_error), (name, precision)
            assert relative_error(gradients, reference[name][1]) < gradient_error, (name, precision)


@pytest.mark.parametrize("normalization", ["samples", "none"])
@pytest.mark.parametrize("size", SIZES)
def test_gram_and_direct_form_of_the_variants_are_one_loss(size: tuple[int, int], normalization: str) -> None:
    # Features whose scales differ by orders of magnitude: the diagonal holds nearly all of the energy.
    scale = torch.logspace(-2, 2, size[1], dtype=torch.float64)
    a, b = ((scale * z).float().double() for z in batch_in("healthy", *size))
    reference = terms_and_gradients(lambda *z: oracle.barlow_twins(*z, normalization=normalization), a, b)
    for precision, error in ((torch.float64, 1e-9), (torch.float32, 1e-6)):
        found = terms_and_gradients(BarlowTwins(normalization=normalization), a.to(precision), b.to(precision))
        for name, (value, gradients) in found.items():
            assert value == pytest.approx(reference[name][0], rel=error), (name, precision)
            assert relative_error(gradients, reference[name][1]) < error, (name, precision)


def test_the_gradient_goes_to_both_views_and_through_the_statistics() -> None:
    a, b = batch_in("healthy", 24, 8)
    _, right = loss_and_gradients(BarlowTwins(), a, b)
    assert all(float(g.norm()) > 1e-3 for g in right)

    def second_view_detached(za: torch.Tensor, zb: torch.Tensor) -> dict[str, torch.Tensor]:
        return BarlowTwins()(za, zb.detach() + 0 * zb)

    def statistics_detached(za: torch.Tensor, zb: torch.Tensor) -> dict[str, torch.Tensor]:
        xa, xb = (center(z) / z.detach().std(dim=0, correction=0) for z in (za, zb))
        c = xa.T @ xb / len(za)
        return {"loss": (1 - c.diagonal()).square().sum() + 0.0051 * (c - c.diagonal().diag()).square().sum()}

    for wrong in (second_view_detached, statistics_detached):
        value, gradients = loss_and_gradients(wrong, a, b)
        assert value == pytest.approx(total(BarlowTwins()(a, b)), rel=1e-3), "values do not tell them apart"
        assert relative_error(gradients, right) > 0.05


@pytest.mark.parametrize("size", [(8, 3), (4, 9)])
def test_gradient_equals_finite_differences(size: tuple[int, int]) -> None:
    views = [z.requires_grad_() for z in batch_in("healthy", *size)]
    assert torch.autograd.gradcheck(lambda za, zb: sum(BarlowTwins()(za, zb).values()), views, eps=1e-5, rtol=1e-6)


def test_views_beyond_two_give_the_mean_over_pairs_and_are_standardised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    views = [*batch_in("healthy", 12, 8), *batch_in("healthy", 12, 8, seed=1)]
    pairs = [BarlowTwins()(za, zb) for za, zb in itertools.combinations(views, 2)]
    calls = []
    monkeypatch.setattr(barlow_twins, "standardize", lambda z, eps: calls.append(1) or standardize(z, eps))
    for name, term in BarlowTwins()(*views).items():
        assert float(term) == pytest.approx(sum(float(p[name]) for p in pairs) / len(pairs), rel=1e-12)
    assert len(calls) == 4


def test_each_sum_has_a_weight_and_may_be_left_out() -> None:
    a, b = batch_in("healthy", 24, 8)
    whole = terms_and_gradients(BarlowTwins(redundancy=0.01), a, b)
    weighted = terms_and_gradients(BarlowTwins(invariance=3, redundancy=0.04), a, b)
    for name, weight in (("invariance", 3), ("redundancy", 4)):
        assert weighted[name][0] == pytest.approx(weight * whole[name][0], rel=1e-12)
        without = terms_and_gradients(BarlowTwins(**{name: 0}), a, b)
        assert without[name][0] == 0
        assert all(float(g.norm()) == 0 for g in without[name][1])
        (other,) = whole.keys() - {name}
        assert without[other][0] > 0


def test_the_off_diagonal_sum_alone_does_not_ask_for_agreement() -> None:
    a, b = batch_in("healthy", 256, 8)
    objective = BarlowTwins(invariance=0)
    right, wrong = total(objective(a, b)), total(objective(a, b.roll(1, 0)))
    assert wrong < 1.5 * right
    assert total(BarlowTwins(redundancy=0)(a, b.roll(1, 0))) > 20 * total(BarlowTwins(redundancy=0)(a, b))


def test_samples_of_equal_length_reach_the_target_that_unit_length_cannot() -> None:
    # Rows of ±1, every pattern of signs once: features are white and samples have length √d.
    z = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)), dtype=torch.float64)
    assert total(BarlowTwins(normalization="samples", eps=0)(z, z)) < 1e-25
    unit = z / z.norm(dim=1, keepdim=True)
    assert total(BarlowTwins(normalization="none", redundancy=0)(unit, unit)) == pytest.approx(4 * (1 - 1 / 4) ** 2)


def test_samples_are_standardised_over_the_batch_first_and_keep_their_mean_over_features() -> None:
    a, b = batch_in("healthy", 20, 5)
    scale = torch.linspace(0.1, 7, 5, dtype=torch.float64)
    objective = BarlowTwins(normalization="samples", eps=0)
    assert total(objective(a * scale + 3, b / scale - scale)) == pytest.approx(total(objective(a, b)), rel=1e-11)
    x = standardize(a).x
    without_mean = x - x.mean(dim=1, keepdim=True)
    assert total(objective(without_mean, without_mean)) != pytest.approx(total(objective(x, x)), rel=1e-2)


def test_a_sample_at_the_mean_of_its_batch_has_no_direction() -> None:
    a, b = batch_in("healthy", 9, 4)
    a = torch.cat([a - a.mean(dim=0), torch.zeros(1, 4)])
    a[-1] = a[:-1].mean(dim=0)
    b = torch.cat([b, b[:1]])
    point = torch.full((10, 4), 0.3, dtype=torch.float64)
    for views in ((a, b), (point, b), (point, point)):
        value, gradients = loss_and_gradients(BarlowTwins(normalization="samples"), *views)
        assert math.isfinite(value)
        assert all(g.isfinite().all() for g in gradients)
    assert total(BarlowTwins(normalization="samples")(point, point)) == 4


def test_without_normalization_the_scales_count_together() -> None:
    a, b = batch_in("healthy", 20, 5)
    objective = BarlowTwins(normalization="none")
    value = total(objective(a, b))
    assert total(objective(4 * a + 3, b / 4 - 1)) == pytest.approx(value, rel=1e-12)
    assert total(objective(2 * a, b)) > 2 * value
    assert total(objective(0 * a, 0 * b)) == 5, "collapse costs 1 a feature"
    a[:, 2] = 0.1
    assert math.isfinite(total(BarlowTwins(normalization="none", eps=0)(a, b))), "eps is not used"


def test_unrelated_embeddings_have_the_redundancy_of_chance() -> None:
    # The squared correlation of n independent pairs is 1/(n-1) on average.
    generator = torch.Generator().manual_seed(0)
    for n, d in ((64, 40), (64, 300)):
        z = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
        off_diagonal = float(BarlowTwins(redundancy=1)(*z)["redundancy"])
        assert off_diagonal == pytest.approx(d * (d - 1) / (n - 1), rel=0.1)  # three standard errors


def test_fewer_rows_than_features_bound_the_redundancy_from_below() -> None:
    a, _ = formula_batch(6, 10)
    n, d = a.shape
    assert d * (d - n + 1) / (n - 1) == 10  # the published bound
    assert float(BarlowTwins(redundancy=1, eps=0)(a, a)["redundancy"]) > 10


def test_a_constant_feature_has_a_finite_gradient_or_with_eps_zero_an_error() -> None:
    a, b = batch_in("healthy", 10, 4)
    a[:, 2] = 0.1
    _, gradients = loss_and_gradients(BarlowTwins(), a, b)
    assert all(g.isfinite().all() for g in gradients)
    with pytest.raises(ValueError, match="eps > 0"):
        BarlowTwins(eps=0)(a, b)


@pytest.mark.parametrize(
    "bad", [{"invariance": -1.0}, {"redundancy": -1.0}, {"redundancy": float("nan")}, {"eps": -1e-5}]
)
def test_hyper_parameters_out_of_range_are_refused_by_name(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        BarlowTwins(**bad)
