import math
from functools import partial

import pytest
import torch
from contracts.own_groups import OWN_GROUPS
from oracles import colorization as oracle
from oracles.gradients import loss_and_gradients, relative_error
from oracles.vectors import STATES
from torch import Tensor, nn

from barlow.objectives._colour_bins import BINS, REACH, rebalancing, smoothed, soft_codes
from barlow.objectives.colorization import Colorization

GROUP = OWN_GROUPS["colorization"].inputs
PUBLISHED = {
    (10, -10): 0.52249020162,
    (20, -10): 0.177435334664,
    (10, 0): 0.163793457854,
    (20, 0): 0.0556235254173,
    (10, -20): 0.0305268379896,
    (0, -10): 0.0281798231517,
    (20, -20): 0.0103667775933,
    (0, 0): 0.00883398513777,
    (0, -20): 0.0016464249344,
    (30, -10): 0.00110363163782,
}
"""The soft code of (12.3, -7.9)."""

OCCURRING = [0.5, 0.3, 0.2, 0.0]


def colours(n: int, seed: int = 0) -> Tensor:
    """a and b all over what sRGB has, and a little beyond."""
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 1) * REACH


def _loss(objective: nn.Module, ab: Tensor, logits: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = objective([(logits, ab)])
    return found


def test_there_are_313_bins_and_grey_is_the_120th() -> None:
    assert len(BINS) == len(set(BINS)) == 313
    assert BINS[120] == (0, 0)
    assert all(a % 10 == 0 and b % 10 == 0 for a, b in BINS)


def test_the_soft_code_is_the_published_one() -> None:
    (which,), (shares,) = soft_codes(torch.tensor([[12.3, -7.9]], dtype=torch.float64))
    found = {BINS[i]: share for i, share in zip(which.tolist(), shares.tolist(), strict=True)}
    assert found == pytest.approx(PUBLISHED, abs=1e-11)
    assert list(found) == list(PUBLISHED), "the nearest first"


def test_the_bins_of_a_colour_are_the_nearest_of_all_of_them() -> None:
    ab = torch.cat([colours(500), torch.tensor([[98.2, -60.8], [-86.2, 83.2], [79.2, -107.9]], dtype=torch.float64)])
    which, shares = soft_codes(ab)
    for i, (a, b) in enumerate(ab.tolist()):
        expected = oracle.soft_code(a, b)
        found = dict(zip(which[i].tolist(), shares[i].tolist(), strict=True))
        assert found == pytest.approx(expected, abs=1e-12)


def test_colours_that_there_are_not_are_moved_to_where_colours_are() -> None:
    far, near = torch.tensor([[1e4, -1e4]], dtype=torch.float64), torch.tensor([[REACH, -REACH]], dtype=torch.float64)
    assert soft_codes(far)[0].equal(soft_codes(near)[0])


@pytest.mark.parametrize(
    ("convention", "published"),
    [
        ("code", [0.828337874659, 1.08991825613, 1.29427792916, math.inf]),
        ("paper", [0.80487804878, 1.09756097561, 1.34146341463, 2.41463414634]),
    ],
)
def test_the_weights_are_the_published_ones(convention: str, published: list[float]) -> None:
    found = rebalancing(torch.tensor(OCCURRING, dtype=torch.float64), 0.5, convention)
    assert found.tolist() == pytest.approx(published, rel=1e-11)
    assert oracle.weights(OCCURRING, convention=convention) == pytest.approx(published, rel=1e-11)


def test_the_weights_have_an_expectation_of_one_whatever_the_share_of_the_uniform_distribution() -> None:
    prior = torch.rand(len(BINS), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prior = prior / prior.sum()
    for uniform in (0.0, 0.5, 1.0):
        assert float((prior * rebalancing(prior, uniform, "paper")).sum()) == pytest.approx(1)
    assert rebalancing(prior, 1.0, "paper").tolist() == pytest.approx([1.0] * len(BINS))


def test_a_smoothed_prior_is_that_of_the_loops_and_adds_up_to_one() -> None:
    counts = torch.zeros(len(BINS), dtype=torch.float64)
    counts[[3, 120, 121, 300]] = torch.tensor([5.0, 100.0, 20.0, 1.0], dtype=torch.float64)
    found = smoothed(counts, 5.0)
    assert found.tolist() == pytest.approx(oracle.smoothed(counts.tolist(), 5.0), rel=1e-12)
    assert float(found.sum()) == pytest.approx(1)
    assert smoothed(counts, 0.0).equal(counts / counts.sum())


@pytest.mark.parametrize("convention", ["paper", "code"])
@pytest.mark.parametrize("state", STATES)
def test_value_and_gradient_equal_the_loops_in_both_precisions(state: str, convention: str) -> None:
    prior = [float(1 + i % 7) if i > 9 else 0.0 for i in range(len(BINS))]
    objective = Colorization(prior=tuple(prior), convention=convention).build().double()
    prior = objective.prior.tolist()  # kept in float32
    weight = oracle.weights(prior, convention=convention)
    weight = [min(w, max(v for v in weight if math.isfinite(v))) for w in weight]
    logits, ab = GROUP(state, 3, 0, 1)
    ab[1] = ab[1].clamp(-5, 5)  # an image without colour
    value, reference = loss_and_gradients(lambda z: oracle.colorization(z, ab, weight), logits)
    for precision, error in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        seen = ab.to(precision)
        found, gradients = loss_and_gradients(partial(_loss, objective, seen), logits.to(precision))
        assert found == pytest.approx(value, rel=error)
        assert relative_error(gradients, reference) < error


def test_the_gradient_equals_finite_differences() -> None:
    objective = Colorization().build().double()
    logits, ab = GROUP("healthy", 4, 0, 0)
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, (gradient,) = loss_and_gradients(lambda z: objective([(z, ab)]), logits)
    step = 1e-5
    ahead, behind = (float(objective([(logits + s * direction, ab)])["cross_entropy"]) for s in (step, -step))
    assert float((gradient * direction).sum()) == pytest.approx((ahead - behind) / (2 * step), rel=1e-7)


def test_the_printed_loss_has_the_weights_in_it() -> None:
    rare, common = BINS.index((50, 50)), BINS.index((20, 20))
    prior = [0.0] * len(BINS)
    prior[rare], prior[common] = 0.01, 0.99
    objective = Colorization(prior=tuple(prior)).build().double()
    logits = torch.zeros(1, len(BINS), dtype=torch.float64)
    losses = {
        bin: float(objective([(logits, torch.tensor([BINS[bin]], dtype=torch.float64))])["cross_entropy"])
        for bin in (rare, common)
    }
    expected = oracle.weights(objective.prior.tolist())
    for bin, loss in losses.items():
        assert loss == pytest.approx(expected[bin] * math.log(len(BINS)), rel=1e-9)
    assert losses[rare] > 50 * losses[common]


def test_an_image_without_colour_gets_no_gradient_and_stays_in_the_mean() -> None:
    objective = Colorization().build().double()
    logits, ab = GROUP("healthy", 4, 0, 0)
    ab[2:] = 5.0
    value, (gradient,) = loss_and_gradients(lambda z: objective([(z, ab)]), logits)
    assert gradient[2:].abs().max() == 0
    assert gradient[:2].abs().min() > 0
    halved = float(objective([(logits[:2], ab[:2])])["cross_entropy"])
    assert value == pytest.approx(halved / 2)
    ab[2:, 0] = 5.1
    assert float(objective([(logits, ab)])["cross_entropy"]) > value


def test_a_colour_that_did_not_occur_has_the_largest_weight_of_those_that_did() -> None:
    prior = [0.0] * len(BINS)
    prior[0], prior[1] = 0.9, 0.1
    weights = Colorization(prior=tuple(prior), convention="code", smoothing=0.0).build().double().weights()
    assert weights.isfinite().all()
    assert float(weights[2]) == float(weights[1]) > float(weights[0])


def test_the_prior_is_found_in_all_images_before_the_run_and_saved() -> None:
    objective = Colorization(smoothing=0.0).build()
    bins = [(10, 20), (10, 20), (-30, 40), (0, 0)]
    ab = torch.tensor([[float(a), float(b)] for a, b in bins])
    batches = [[(torch.zeros(2, len(BINS)), part)] for part in ab.split(2)]
    objective.before_run(lambda: iter(batches))
    expected = torch.zeros(len(BINS))
    for colour in bins:
        expected[BINS.index(colour)] += 0.25
    assert objective.prior.equal(expected)
    assert objective.state_dict()["prior"].equal(expected)
    whole = Colorization(smoothing=0.0).build()
    whole.before_run(lambda: iter([[(torch.zeros(4, len(BINS)), ab)]]))
    assert whole.prior.equal(objective.prior)


def test_images_of_which_none_has_a_colour_are_refused_before_the_first_step() -> None:
    grey = [[(torch.zeros(2, len(BINS)), torch.full((2, 2), 4.9))]] * 3
    with pytest.raises(ValueError, match=r"none of 6 images has a colour \(all a and b are from -5 to 5\)"):
        Colorization().build().before_run(lambda: iter(grey))


def test_a_prior_that_is_given_is_not_looked_for() -> None:
    given = tuple(range(len(BINS)))
    objective = Colorization(prior=given).build()
    objective.before_run(lambda: pytest.fail("it looked at the images"))
    assert objective.prior.tolist() == pytest.approx([i / sum(given) for i in given], rel=1e-6)


def test_two_views_give_the_mean_of_both() -> None:
    objective = Colorization().build().double()
    one, other = (tuple(GROUP("healthy", 3, 0, seed)) for seed in (0, 1))
    apart = [float(objective([group])["cross_entropy"]) for group in (one, other)]
    assert float(objective([one, other])["cross_entropy"]) == pytest.approx(sum(apart) / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"uniform": 1.5}, "give a share from 0 to 1"),
        ({"prior": (0.5, 0.5)}, r"prior has 2 numbers, from 0.5 to 0.5: give 313 shares"),
        ({"prior": (0.0,) * 313}, "of which some are above 0"),
        ({"prior": (-1.0,) + (1.0,) * 312}, "prior has 313 numbers, from -1.0 to 1.0"),
        ({"smoothing": -1.0}, "smoothing is -1.0"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Colorization(**options)


def test_logits_and_colours_of_other_places_are_refused() -> None:
    objective = Colorization().build()
    with pytest.raises(ValueError, match="logits are 626 wide and colours 2: give 313 logits and 2 numbers"):
        objective([(torch.zeros(2, 626), torch.zeros(2, 2))])
