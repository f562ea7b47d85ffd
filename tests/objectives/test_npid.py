import math

import numpy as np
import pytest
import torch
from oracles import banks as oracle
from oracles.gradients import relative_error
from oracles.vectors import STATES, batch_in

from barlow.objectives import _bank
from barlow.objectives._bank import Bank
from barlow.objectives._draws import NEGATIVES as PURPOSE
from barlow.objectives._draws import indices
from barlow.objectives.npid import NPID, Instances
from barlow.views.keys import hashed

IMAGES, N, D = 24, 8, 5


def rows(*values: list[float]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(values, dtype=torch.float64), dim=1)


BANK = rows([1, 0], [0, 1], [1, 1], [-1, 1], [1, -2])
X, IDS, NEGATIVES = rows([2, 1], [0, -1]), torch.tensor([0, 4]), torch.tensor([[1, 2, 3], [0, 0, 3]])
Z = 14.9086482276
P = (0.401283515407, 0.164061442566, 0.447278039054, 0.0356360684767)
PUBLISHED = {"nce": 1.46196880226, "full softmax": 0.631041371835, "cross_entropy": 0.639314125943}
WITHOUT_EPS = 1.46196827951
MOVED = [[0.973248989468, 0.229752920547], [0.229752920547, -0.973248989468]]
OPTIONS = {
    "nce": {"negatives": 3},
    "cross_entropy": {"negatives": 3, "form": "cross_entropy"},
    "full softmax": {"negatives": 0},
}


def holding(bank: torch.Tensor, form: str = "nce", temperature: float = 0.5, **options: object) -> Instances:
    """An objective in float64 whose bank holds these rows."""
    section = NPID(**OPTIONS[form] | {"temperature": temperature} | options)
    module = section.build(width=bank.shape[1], images=len(bank), seed=0).double()
    module.bank.rows.copy_(bank)
    return module


def drawing(module: Instances, negatives: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> Instances:
    monkeypatch.setattr(module, "negatives", lambda ids, images: negatives if module.how.negatives else None)
    return module


def loss(module: Instances, z: torch.Tensor, ids: torch.Tensor) -> float:
    return float(module([(z,)], ids=ids)["instances"])


def some(step: int = 0, state: str = "healthy") -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings in a state, and the ids of as many images."""
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(step))
    return batch_in(state, N, D, seed=step)[0], order[:N]


def bank_in(state: str) -> torch.Tensor:
    return torch.nn.functional.normalize(batch_in(state, IMAGES, D, seed=9)[0], dim=1)


@pytest.mark.parametrize("form", PUBLISHED)
def test_published_values(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = drawing(holding(BANK, form), NEGATIVES, monkeypatch)
    assert loss(module, 3 * X, IDS) == pytest.approx(PUBLISHED[form], abs=1e-11)
    assert torch.allclose(module.bank.rows[IDS], torch.tensor(MOVED, dtype=torch.float64), atol=1e-11)
    assert module.bank.rows[1:4].equal(BANK[1:4]), "the others stay"
    assert float(module.bank.constant) == (pytest.approx(Z, abs=1e-10) if form == "nce" else 0)


def test_published_probabilities_and_the_value_without_eps(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = list(BANK)
    z_constant = oracle.constant(X, IDS.tolist(), NEGATIVES.tolist(), bank, 0.5)
    assert float(z_constant) == pytest.approx(Z, abs=1e-10)
    found = [float(s.exp() / z_constant) for s in oracle.scores(X[0], 0, [1, 2, 3], bank, 0.5)]
    assert found == pytest.approx(P, abs=1e-12)
    plain = oracle.estimated(X, IDS.tolist(), NEGATIVES.tolist(), bank, 0.5, z_constant, eps=0.0)
    assert float(plain) == pytest.approx(WITHOUT_EPS, abs=1e-11)
    monkeypatch.setattr(_bank, "EPS", 0.0)
    assert loss(drawing(holding(BANK), NEGATIVES, monkeypatch), X, IDS) == pytest.approx(WITHOUT_EPS, abs=1e-11)


def test_before_anything_is_known_the_loss_is_that_of_equal_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """ln(1 + k) + k ln(1 + 1/k): 9.3178882271 of 4,096 negatives."""
    alike = rows([1, 1]).expand(5000, 2).clone()
    module = holding(alike, negatives=4096, temperature=0.07)
    monkeypatch.setattr(_bank, "EPS", 0.0)
    assert loss(module, alike[:3], torch.arange(3)) == pytest.approx(9.3178882271, abs=1e-9)


def every_way(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Scores as products with all rows, or with copies of those that are drawn, one row of the batch at a time."""
    if way == "copies, in parts":
        monkeypatch.setattr(_bank, "WORTH_ALL", 0)
        monkeypatch.setattr(_bank, "AT_A_TIME", 3)


@pytest.mark.parametrize("form", OPTIONS)
@pytest.mark.parametrize(
    ("state", "way"), [*((state, "whole") for state in STATES), ("nearly one direction", "copies, in parts")]
)
def test_three_steps_equal_the_loops_in_value_gradient_and_bank(
    state: str, form: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    every_way(monkeypatch, way)
    module = holding(bank_in(state), form, 0.07)
    bank, z_constant = list(module.bank.rows.clone()), None
    for step in range(3):
        z, ids = some(step, state)
        negatives = module.negatives(ids, IMAGES)
        drawn_ids = None if negatives is None else negatives.tolist()
        leaf, other = z.clone().requires_grad_(), z.clone().requires_grad_()
        found = module([(leaf,)], ids=ids)["instances"]
        if form == "nce":
            if z_constant is None:
                z_constant = oracle.constant(other, ids.tolist(), drawn_ids, bank, 0.07)
            expected = oracle.estimated(other, ids.tolist(), drawn_ids, bank, 0.07, z_constant)
        else:
            expected = oracle.softmax(other, ids.tolist(), drawn_ids, bank, 0.07)
        assert found.item() == pytest.approx(expected.item(), rel=1e-9)
        gradients = torch.autograd.grad(found, leaf), torch.autograd.grad(expected, other)
        assert relative_error(*map(list, gradients)) < 1e-9
        bank = oracle.written(bank, ids.tolist(), z, 0.5)
        assert torch.allclose(module.bank.rows, torch.stack(bank), rtol=0, atol=1e-14)


@pytest.mark.parametrize("form", OPTIONS)
@pytest.mark.parametrize("state", STATES)
def test_in_float32_values_and_gradients_are_those_of_the_loops(state: str, form: str) -> None:
    z, ids = some(0, state)
    module = NPID(**OPTIONS[form]).build(width=D, images=IMAGES, seed=3)
    module.bank.rows.copy_(bank_in(state))
    assert module.bank.rows.dtype == torch.float32
    bank = [row.double() for row in module.bank.rows.clone()]
    negatives = module.negatives(ids, IMAGES)
    drawn_ids = None if negatives is None else negatives.tolist()
    leaf, other = z.float().requires_grad_(), z.clone().requires_grad_()
    found = module([(leaf,)], ids=ids)["instances"]
    if form == "nce":
        assert drawn_ids is not None
        z_constant = oracle.constant(other, ids.tolist(), drawn_ids, bank, 0.07)
        expected = oracle.estimated(other, ids.tolist(), drawn_ids, bank, 0.07, z_constant)
        assert float(module.bank.constant) == pytest.approx(float(z_constant), rel=1e-6)
    else:
        expected = oracle.softmax(other, ids.tolist(), drawn_ids, bank, 0.07)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    to_leaf = torch.autograd.grad(found, leaf)[0].double()
    assert relative_error([to_leaf], list(torch.autograd.grad(expected, other))) < 1e-4


def test_the_constant_is_that_of_the_first_batch_and_stays() -> None:
    module = holding(bank_in("healthy"))
    z, ids = some(0)
    loss(module, z, ids)
    first = module.bank.constant.clone()
    assert float(first) > 0
    for step in (1, 2):
        loss(module, *some(step))
        assert module.bank.constant.equal(first)


def test_a_step_is_scored_against_the_rows_that_the_step_before_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    module = drawing(holding(BANK), NEGATIVES, monkeypatch)
    first = loss(module, X, IDS)
    constant = module.bank.constant.clone()
    second = loss(module, X, IDS)
    assert second < first - 0.1, "their own rows have come nearer"
    again = drawing(holding(BANK), NEGATIVES, monkeypatch)
    again.bank.constant.copy_(constant)
    assert loss(again, X, IDS) == pytest.approx(first, rel=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_row_keeps_its_share_and_has_length_1_after_a_step(momentum: float) -> None:
    module = holding(bank_in("healthy"), momentum=momentum)
    z, ids = some()
    before = module.bank.rows.clone()
    loss(module, z, ids)
    u = torch.nn.functional.normalize(z, dim=1)
    expected = torch.nn.functional.normalize(momentum * before[ids] + (1 - momentum) * u, dim=1)
    assert torch.allclose(module.bank.rows[ids], expected, rtol=0, atol=1e-15)


def test_an_image_that_comes_twice_moves_its_row_once_towards_the_mean_in_any_order_of_the_rows() -> None:
    z, ids = some()
    ids = ids.clone()
    ids[5], ids[7] = ids[2], ids[2]
    module, other = holding(bank_in("healthy")), holding(bank_in("healthy"))
    before = module.bank.rows.clone()
    loss(module, z, ids)
    u = torch.nn.functional.normalize(z, dim=1)[[2, 5, 7]].mean(dim=0)
    expected = torch.nn.functional.normalize(0.5 * before[ids[2]] + 0.5 * u, dim=0)
    assert torch.allclose(module.bank.rows[ids[2]], expected, rtol=0, atol=1e-15)
    order = torch.tensor([7, 3, 5, 0, 2, 6, 1, 4])
    loss(other, z[order], ids[order])
    assert torch.allclose(module.bank.rows, other.bank.rows, rtol=0, atol=1e-15)
    written = torch.isin(torch.arange(IMAGES), ids)
    assert module.bank.rows[~written].equal(before[~written]), "what is not in the batch stays"


def test_two_equal_rows_of_one_image_move_it_as_one_does() -> None:
    """So it is where one image stands in for another that cannot be read: both rows are the same image."""
    bank, once, twice = bank_in("healthy"), *(holding(bank_in("healthy"), "full softmax") for _ in range(2))
    z, ids = some()
    loss(once, z, ids)
    loss(twice, torch.cat([z, z[:2]]), torch.cat([ids, ids[:2]]))
    assert torch.allclose(once.bank.rows, twice.bank.rows, rtol=0, atol=1e-15)
    assert not once.bank.rows.equal(bank)


def test_several_views_are_each_told_apart_and_move_the_row_together() -> None:
    module, ids = holding(bank_in("healthy"), "full softmax"), some()[1]
    views = batch_in("healthy", N, D)
    apart = [loss(holding(bank_in("healthy"), "full softmax"), view, ids) for view in views]
    assert float(module([views], ids=ids)["instances"]) == pytest.approx(sum(apart) / 2, rel=1e-12)
    u = sum(torch.nn.functional.normalize(view, dim=1) for view in views) / 2
    expected = torch.nn.functional.normalize(0.5 * bank_in("healthy")[ids] + 0.5 * u, dim=1)
    assert torch.allclose(module.bank.rows[ids], expected, rtol=0, atol=1e-15)


def test_rows_start_uniform_and_nearly_of_length_1_as_the_released_code_has_them() -> None:
    start = NPID().build(width=128, images=2000, seed=0).bank.rows
    assert float(start.abs().max()) == pytest.approx(math.sqrt(3 / 128), rel=1e-3)
    assert float(start.norm(dim=1).mean()) == pytest.approx(1.0, abs=2e-3)
    assert float(start.norm(dim=1).std()) == pytest.approx(0.04, abs=3e-3)
    assert start.equal(NPID().build(width=128, images=2000, seed=0).bank.rows)
    assert not start.equal(NPID().build(width=128, images=2000, seed=1).bank.rows)


# --- Draws ------------------------------------------------------------------------------------------------------------


def test_draws_are_the_hashes_of_their_keys() -> None:
    seed, step, ids, images = 5, 9, torch.tensor([0, 7, 123_456]), 1_281_167
    found = indices(torch.tensor(seed), torch.tensor(step), ids, 4, images)
    for j in range(4):
        bits = hashed((PURPOSE, seed, step, j), ids.numpy())
        assert found[:, j].tolist() == [int(b >> np.uint64(22)) * images >> 42 for b in bits]


@pytest.mark.parametrize("images", [2, 10, 2**20, 2**31 - 1])
def test_draws_are_spread_evenly_over_all_images(images: int) -> None:
    found = indices(torch.tensor(0), torch.tensor(0), torch.arange(500), 200, images)
    assert int(found.min()) >= 0
    assert int(found.max()) < images
    share = found.double() / images
    tenths = (share * min(images, 10)).long().flatten().bincount(minlength=min(images, 10))
    assert float((tenths * min(images, 10) / found.numel() - 1).abs().max()) < 0.03


def test_draws_depend_on_seed_step_and_image_and_on_nothing_else() -> None:
    def draws(seed: int, step: int, ids: list[int]) -> torch.Tensor:
        return indices(torch.tensor(seed), torch.tensor(step), torch.tensor(ids), 50, 1000)

    first = draws(0, 0, [3, 4])
    assert first.equal(draws(0, 0, [4, 3]).flip(0))
    assert first[:1].equal(draws(0, 0, [3]))
    for other in (draws(1, 0, [3, 4]), draws(0, 1, [3, 4]), draws(0, 0, [5, 6]), first.flip(0)):
        assert float((other == first).double().mean()) < 0.05


def test_a_later_step_draws_others() -> None:
    module, (_, ids) = holding(bank_in("healthy"), negatives=20), some()
    first = module.negatives(ids, IMAGES)
    loss(module, *some())
    second = module.negatives(ids, IMAGES)
    assert first is not None
    assert second is not None
    assert float((first == second).double().mean()) < 0.2


# --- What is refused --------------------------------------------------------------------------------------------------


def test_a_row_without_direction_is_like_nothing_gets_no_gradient_and_leaves_its_image_where_it_was() -> None:
    z, ids = some()
    z[1] = 1e-13
    z.requires_grad_()
    module = holding(bank_in("healthy"))
    before = module.bank.rows.clone()
    (gradient,) = torch.autograd.grad(module([(z,)], ids=ids)["instances"], z)
    assert gradient.isfinite().all()
    assert float(gradient[1].norm()) == 0
    assert torch.allclose(module.bank.rows[ids[1]], before[ids[1]], rtol=0, atol=1e-15)


def test_what_is_no_batch_of_the_banks_images_is_refused() -> None:
    z, ids = some()
    module = holding(bank_in("healthy"))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for groups, about, message in (
        ([(z,), (z,)], ids, r"groups of \[1, 1\]: NPID takes one group, give \[\(z,\)\]"),
        ([], ids, r"groups of \[\]"),
        ([(z[:, :3],)], ids, r"embeddings of 3 features, and a bank built for 5"),
        ([(z,)], ids[:3], r"ids is torch.int64 of shape \(3,\): give one int64 for each of the 8 rows"),
        ([(z,)], ids.int(), r"ids is torch.int32"),
        ([(z,)], ids + IMAGES, r"and a bank of 24 images"),
        ([(z,)], ids - IMAGES, r"and a bank of 24 images"),
    ):
        with pytest.raises(ValueError, match=message):
            module(groups, ids=about)
    assert all(value.equal(before[name]) for name, value in module.state_dict().items()), "a refusal changes nothing"


@pytest.mark.parametrize(
    "bad",
    [
        {"negatives": -1},
        {"negatives": 2**21},
        {"temperature": 0.0},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"form": "softmax"},
    ],
)
def test_hyper_parameters_out_of_range_are_refused_by_name(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        NPID(**bad)


def test_its_state_is_the_bank_its_constant_and_what_draws_depend_on() -> None:
    module = NPID().build(width=3, images=5, seed=7)
    assert set(module.state_dict()) == {"bank.rows", "bank.constant", "seed", "steps"}
    assert list(module.parameters()) == []
    assert isinstance(module.bank, Bank)
    assert int(module.seed) == 7
