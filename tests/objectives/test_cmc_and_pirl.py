"""The two objectives that compare two embeddings of an image with memory banks; what a bank does is in test_npid.py."""

import pytest
import torch
from oracles import banks as oracle
from oracles.gradients import relative_error
from oracles.vectors import STATES, batch_in

from barlow.objectives._bank import TellingApart
from barlow.objectives.cmc import CMC
from barlow.objectives.npid import NPID
from barlow.objectives.pirl import PIRL

IMAGES, N, D = 24, 6, 5


def rows(*values: list[float]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(values, dtype=torch.float64), dim=1)


BANK = rows([1, 0], [0, 1], [1, 1], [-1, 1], [1, -2])
X, TILES = rows([2, 1], [0, -1]), rows([1, 1], [1, -1])
IDS, NEGATIVES = torch.tensor([0, 4]), torch.tensor([[1, 2, 3], [0, 0, 3]])
Z = 14.9086482276
MOVED = [[0.973248989468, 0.229752920547], [0.229752920547, -0.973248989468]]
IMAGE, OF_TILES, HALF_AND_HALF = 1.46196880226, 1.93204240342, 1.69700560284
CROSS_ENTROPY = 0.871861373275
OF_CMC = {"lightness": (3.24428484148, 14.8412848206), "colour": (1.92426931983, 19.7785649009)}
OPTIONS = {"nce": {"negatives": 3}, "cross_entropy": {"negatives": 3, "form": "cross_entropy"}, "all": {"negatives": 0}}


def pirl(bank: torch.Tensor, temperature: float = 0.5, **options: object) -> TellingApart:
    section = PIRL(**{"negatives": 3, "temperature": temperature} | options)
    module = section.build(width=bank.shape[1], images=len(bank), seed=0).double()
    module.bank.rows.copy_(bank)
    return module


def cmc(lightness: torch.Tensor, colour: torch.Tensor, temperature: float = 0.5, **options: object) -> TellingApart:
    section = CMC(**{"negatives": 3, "temperature": temperature} | options)
    module = section.build(width=colour.shape[1], images=len(colour), seed=0).double()
    module.lightness.rows.copy_(lightness)
    module.colour.rows.copy_(colour)
    return module


def drawing(module: TellingApart, monkeypatch: pytest.MonkeyPatch) -> TellingApart:
    monkeypatch.setattr(module, "negatives", lambda ids, images: NEGATIVES)
    return module


def bank_in(state: str, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(batch_in(state, IMAGES, D, seed=seed)[0], dim=1)


def some(step: int, state: str = "healthy") -> tuple[list[torch.Tensor], torch.Tensor]:
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(step))
    return list(batch_in(state, N, D, seed=step)), order[:N]


def test_pirls_published_values(monkeypatch: pytest.MonkeyPatch) -> None:
    module = drawing(pirl(BANK), monkeypatch)
    terms = module([(X, 2 * TILES)], ids=IDS)
    assert float(terms["image"]) == pytest.approx(IMAGE / 2, abs=1e-11)
    assert float(terms["tiles"]) == pytest.approx(OF_TILES / 2, abs=1e-11)
    assert float(sum(terms.values())) == pytest.approx(HALF_AND_HALF, abs=1e-11)
    assert float(module.bank.constant) == pytest.approx(Z, abs=1e-10), "of the images alone"
    assert torch.allclose(module.bank.rows[IDS], torch.tensor(MOVED, dtype=torch.float64), atol=1e-11), "images alone"
    found = drawing(pirl(BANK, form="cross_entropy"), monkeypatch)([(X, TILES)], ids=IDS)
    assert float(sum(found.values())) == pytest.approx(CROSS_ENTROPY, abs=1e-11)


def test_cmcs_published_values_and_both_its_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    module = drawing(cmc(BANK, BANK.flip(0)), monkeypatch)
    terms = module([(X, TILES)], ids=IDS)
    for name, (value, _) in OF_CMC.items():
        assert float(terms[name]) == pytest.approx(value, abs=1e-10)
    assert float(module.colour.constant) == pytest.approx(OF_CMC["lightness"][1], abs=1e-10)
    assert float(module.lightness.constant) == pytest.approx(OF_CMC["colour"][1], abs=1e-10)


def test_cmcs_banks_each_take_the_embeddings_of_their_own_half(monkeypatch: pytest.MonkeyPatch) -> None:
    module = drawing(cmc(BANK, BANK.flip(0)), monkeypatch)
    module([(X, TILES)], ids=IDS)
    for bank, before, own in ((module.lightness, BANK, X), (module.colour, BANK.flip(0), TILES)):
        expected = torch.stack(oracle.written(list(before), IDS.tolist(), own, 0.5))
        assert torch.allclose(bank.rows, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("form", OPTIONS)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", ["pirl", "cmc"])
def test_two_steps_equal_the_loops_in_values_gradients_and_banks(kind: str, state: str, form: str) -> None:
    banks = [list(bank_in(state, 9)), list(bank_in(state, 8))][: 1 if kind == "pirl" else 2]
    made = pirl if kind == "pirl" else cmc
    module = made(*(torch.stack(bank) for bank in banks), temperature=0.07, **OPTIONS[form])
    constants: list[torch.Tensor] | None = None
    for step in range(2):
        views, ids = some(step, state)
        drawn = module.negatives(ids, IMAGES)
        negatives, own = None if drawn is None else drawn.tolist(), ids.tolist()
        leaves, others = ([view.clone().requires_grad_() for view in views] for _ in range(2))
        found = module([tuple(leaves)], ids=ids)
        against = [banks[0], banks[0]] if kind == "pirl" else [banks[1], banks[0]]
        share = 0.5 if kind == "pirl" else 1.0
        if form == "nce":
            assert negatives is not None
            if constants is None:
                constants = [
                    oracle.constant(z, own, negatives, bank, 0.07) for z, bank in zip(others, against, strict=True)
                ]
                constants = [constants[0]] * 2 if kind == "pirl" else constants
            expected = [
                share * oracle.estimated(z, own, negatives, bank, 0.07, constant)
                for z, bank, constant in zip(others, against, constants, strict=True)
            ]
        else:
            expected = [
                share * oracle.softmax(z, own, negatives, bank, 0.07) for z, bank in zip(others, against, strict=True)
            ]
        assert [term.item() for term in found.values()] == pytest.approx([loss.item() for loss in expected], rel=1e-9)
        gradients = torch.autograd.grad(sum(found.values()), leaves), torch.autograd.grad(sum(expected), others)
        assert relative_error(*map(list, gradients)) < 1e-9
        banks = [oracle.written(bank, own, view, 0.5) for bank, view in zip(banks, views, strict=False)]
        there = [module.bank] if kind == "pirl" else [module.lightness, module.colour]
        for bank, rows_of in zip(banks, there, strict=True):
            assert torch.allclose(rows_of.rows, torch.stack(bank), rtol=0, atol=1e-14)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_the_tiles_weighs_both_terms_and_nothing_else(share: float) -> None:
    views, ids = some(0)
    half, other = pirl(bank_in("healthy", 9)), pirl(bank_in("healthy", 9), share=share)
    expected, found = half([tuple(views)], ids=ids), other([tuple(views)], ids=ids)
    assert float(found["tiles"]) == pytest.approx(2 * share * float(expected["tiles"]), rel=1e-12)
    assert float(found["image"]) == pytest.approx(2 * (1 - share) * float(expected["image"]), rel=1e-12)
    assert other.bank.rows.equal(half.bank.rows)


def test_pirl_without_tiles_is_npid_and_the_tiles_move_no_row() -> None:
    (image, tiles), ids = some(0)
    module = pirl(bank_in("healthy", 9), share=0.0)
    npid = NPID(negatives=3, temperature=0.5).build(width=D, images=IMAGES, seed=0).double()
    npid.bank.rows.copy_(bank_in("healthy", 9))
    assert float(module([(image, tiles)], ids=ids)["image"]) == pytest.approx(
        float(npid([(image,)], ids=ids)["instances"]), rel=1e-12
    )
    assert module.bank.rows.equal(npid.bank.rows)


def test_rows_start_as_random_directions_for_pirl_and_apart_for_both_halves_of_cmc() -> None:
    start = PIRL().build(width=16, images=50, seed=0).bank.rows
    assert torch.allclose(start.norm(dim=1), torch.ones(50), atol=1e-6)
    banks = CMC().build(width=16, images=50, seed=0)
    assert not torch.isclose(banks.lightness.rows, banks.colour.rows).any()


@pytest.mark.parametrize("kind", ["pirl", "cmc"])
def test_anything_but_one_group_of_two_is_refused(kind: str) -> None:
    (a, b), ids = some(0)
    module = (pirl if kind == "pirl" else cmc)(*[bank_in("healthy", 9)] * (1 if kind == "pirl" else 2))
    for groups in ([(a, b, a)], [(a, b), (a, b)], []):
        with pytest.raises(ValueError, match=rf"{kind.upper()} takes one group, give \[\("):
            module(groups, ids=ids)
    with pytest.raises(ValueError, match="two views"):
        module([(a,)], ids=ids)


@pytest.mark.parametrize("bad", [{"share": -0.1}, {"share": 1.1}, {"negatives": -1}, {"form": "softmax"}])
def test_hyper_parameters_out_of_range_are_refused_by_name(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        PIRL(**bad)
    if "share" not in bad:
        with pytest.raises(ValueError, match=next(iter(bad))):
            CMC(**bad)
