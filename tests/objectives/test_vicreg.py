import itertools

import pytest
import torch
from oracles import vicreg as oracle
from oracles.gradients import loss_and_gradients, relative_error, terms_and_gradients
from oracles.vectors import STATES, batch_in, formula_batch

from barlow.objectives import _covariance
from barlow.objectives._covariance import covariance_energies
from barlow.objectives.vicreg import VICReg

# (n, d): distance; hinge of a, b; covariance of a, b; loss of the released code, of Algorithm 1, of equations 5-6.
PUBLISHED = {
    (8, 4): (
        *(0.0238565821, 0.1999020926, 0.1354276794, 0.3103139483, 0.4555196378),
        *(5.5538702874, 9.7454924370, 11.5347360921),
    ),
    (16, 6): (
        *(0.0289908686, 0.2428366325, 0.2240513457, 0.2272841814, 0.2766648331),
        *(7.0648204578, 12.9009201850, 16.5247787658),
    ),
    (6, 10): (
        *(0.0306552133, 0.2212753846, 0.1931616634, 0.9508978469, 1.1993635969),
        *(8.0971048776, 13.2775679782, 20.1749909760),
    ),
}
# Both sides of n = d, and the switch itself.
SIZES = [(24, 8), (25, 24), (24, 24), (12, 30)]


def total(terms: dict[str, torch.Tensor]) -> float:
    return float(sum(terms.values()))


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_vectors(size: tuple[int, int]) -> None:
    a, b = formula_batch(*size)
    distance, hinge_a, hinge_b, covariance_a, covariance_b, official, algorithm_1, equations = PUBLISHED[size]
    terms = VICReg(invariance=1, variance=1, covariance=1)(a, b)
    assert float(terms["invariance"]) == pytest.approx(distance, abs=1e-9)
    assert float(terms["variance"]) == pytest.approx((hinge_a + hinge_b) / 2, abs=1e-9)
    assert float(terms["covariance"]) == pytest.approx(covariance_a + covariance_b, abs=1e-9)
    assert float(VICReg(variance=1)(a, a)["variance"]) == pytest.approx(hinge_a, abs=1e-9)
    assert float(VICReg(covariance=1)(b, b)["covariance"]) == pytest.approx(2 * covariance_b, abs=1e-9)
    assert total(VICReg()(a, b)) == pytest.approx(official, abs=1e-8)
    assert total(VICReg(convention="code")(a, b)) == pytest.approx(official, abs=1e-8)
    assert total(VICReg(convention="algorithm_1")(a, b)) == pytest.approx(algorithm_1, abs=1e-8)
    assert total(VICReg(convention="equations")(a, b)) == pytest.approx(equations, abs=1e-8)


def test_the_conventions_differ_by_factors_of_terms_also_with_three_views() -> None:
    views = [*batch_in("healthy", 24, 8), batch_in("nearly one point", 24, 8)[0]]
    code = terms_and_gradients(VICReg(), *views)
    for convention, factors in (("algorithm_1", (1, 2, 1)), ("equations", (8, 2, 1))):
        other = terms_and_gradients(VICReg(convention=convention), *views)
        for name, factor in zip(("invariance", "variance", "covariance"), factors, strict=True):
            assert other[name][0] == pytest.approx(factor * code[name][0], rel=1e-12)
            assert relative_error(other[name][1], [factor * g for g in code[name][1]]) < 1e-12


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("size", SIZES)
def test_value_and_gradient_equal_the_loops_in_both_precisions(size: tuple[int, int], state: str) -> None:
    a, b = batch_in(state, *size)
    reference = terms_and_gradients(oracle.vicreg, a, b)
    for precision, value_error, gradient_error in ((torch.float64, 1e-9, 1e-9), (torch.float32, 1e-5, 1e-4)):
        found = terms_and_gradients(VICReg(), a.to(precision), b.to(precision))
        assert found.keys() == reference.keys()
        for name, (value, gradients) in found.items():
            assert value == pytest.approx(reference[name][0], rel=value_error, abs=1e-15), (name, precision)
            assert relative_error(gradients, reference[name][1]) < gradient_error, (name, precision)


def test_shifting_one_view_changes_the_invariance_only_and_shifting_both_nothing() -> None:
    a, b = batch_in("healthy", 20, 6)
    shift = torch.linspace(-2, 3, 6, dtype=torch.float64)
    terms, one, both = VICReg()(a, b), VICReg()(a + shift, b), VICReg()(a + shift, b + shift)
    for name in ("variance", "covariance"):
        assert float(one[name]) == pytest.approx(float(terms[name]), rel=1e-12)
    assert float(one["invariance"]) > 2 * float(terms["invariance"])
    for name in terms:
        assert float(both[name]) == pytest.approx(float(terms[name]), rel=1e-12)


def test_variance_and_covariance_of_a_view_do_not_depend_on_the_other() -> None:
    (a, b), (c, d) = batch_in("healthy", 20, 6), batch_in("healthy", 20, 6, seed=1)
    for name in ("variance", "covariance"):

        def term(za: torch.Tensor, zb: torch.Tensor, name: str = name) -> float:
            return float(VICReg()(za, zb)[name])

        assert term(a, c) - term(b, c) == pytest.approx(term(a, d) - term(b, d), rel=1e-9)


def test_views_collapsed_to_one_point_cost_what_the_code_says() -> None:
    # 25 · (1 - √1e-4), all of it variance.
    a, _ = batch_in("healthy", 8, 3)
    terms = VICReg()(0 * a + 0.7, 0 * a + 0.7)
    assert float(terms["variance"]) == pytest.approx(24.75, rel=1e-12)
    assert float(terms["invariance"]) == float(terms["covariance"]) == 0


@pytest.mark.parametrize("size", [(20, 5), (10, 30)])
def test_exchange_of_views_and_joint_permutations_change_nothing(size: tuple[int, int]) -> None:
    a, b = batch_in("healthy", *size)
    rows, columns = torch.randperm(size[0], generator=torch.Generator().manual_seed(1)), torch.arange(size[1]).roll(2)
    reference = total(VICReg()(a, b))
    for other in ((b, a), (a[rows], b[rows]), (a[:, columns], b[:, columns])):
        assert total(VICReg()(*other)) == pytest.approx(reference, rel=1e-12)
    assert total(VICReg()(a, b[rows])) > 2 * reference, "rows that do not belong together"


def test_the_gradient_goes_to_both_views_and_through_the_mean() -> None:
    a, b = batch_in("healthy", 24, 8)
    for name, (_, gradients) in terms_and_gradients(VICReg(), a, b).items():
        assert all(float(g.norm()) > 1e-3 for g in gradients), name
        if name != "invariance":
            assert all(float(g.sum(dim=0).abs().max()) < 1e-12 for g in gradients), f"{name} does not move the mean"

    def second_view_detached(za: torch.Tensor, zb: torch.Tensor) -> dict[str, torch.Tensor]:
        return VICReg()(za, zb.detach() + 0 * zb)

    value, right = loss_and_gradients(VICReg(), a, b)
    wrong_value, wrong = loss_and_gradients(second_view_detached, a, b)
    assert value == wrong_value
    assert relative_error(wrong, right) > 0.05


@pytest.mark.parametrize("size", [(8, 3), (4, 9)])
def test_gradient_equals_finite_differences(size: tuple[int, int]) -> None:
    views = batch_in("healthy", *size)
    assert all(float((z.std(dim=0) - 1).abs().min()) > 1e-3 for z in views), "away from the hinge's kink"
    views = [z.requires_grad_() for z in views]
    assert torch.autograd.gradcheck(lambda za, zb: sum(VICReg()(za, zb).values()), views, eps=1e-5, rtol=1e-6)


def test_views_beyond_two_give_the_mean_over_pairs_and_covary_once(monkeypatch: pytest.MonkeyPatch) -> None:
    views = [*batch_in("healthy", 12, 8), *batch_in("nearly one direction", 12, 8, seed=1)]
    pairs = [VICReg()(za, zb) for za, zb in itertools.combinations(views, 2)]
    calls = []
    monkeypatch.setattr(
        _covariance, "covariance_energies", lambda z, **how: calls.append(1) or covariance_energies(z, **how)
    )
    for name, term in VICReg()(*views).items():
        assert float(term) == pytest.approx(sum(float(p[name]) for p in pairs) / len(pairs), rel=1e-12)
    assert len(calls) == 4


def test_independent_features_of_unit_variance_have_the_covariance_of_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    for n, d in ((64, 40), (64, 300)):
        z = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
        assert float(VICReg()(*z)["covariance"]) / 2 == pytest.approx((d - 1) / (n - 1), rel=0.1)


def test_a_constant_feature_has_a_finite_gradient_or_with_eps_zero_an_error() -> None:
    a, b = batch_in("healthy", 10, 4)
    a[:, 2] = 0.1
    _, gradients = loss_and_gradients(VICReg(), a, b)
    assert all(g.isfinite().all() for g in gradients)
    with pytest.raises(ValueError, match="eps > 0"):
        VICReg(eps=0)(a, b)


@pytest.mark.parametrize("name", ["invariance", "variance", "covariance", "gamma", "eps"])
def test_hyper_parameters_out_of_range_are_refused_by_name(name: str) -> None:
    for value in (-1.0, float("inf")):
        with pytest.raises(ValueError, match=name):
            VICReg(**{name: value})
    with pytest.raises(ValueError, match="gamma"):
        VICReg(gamma=0)
