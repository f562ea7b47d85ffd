"""OBoW: published values, loops, lists of words from step to step, and what is refused."""

import pytest
import torch
from oracles import obow as oracle
from oracles.gradients import relative_error
from oracles.vectors import STATES, batch_in

from barlow.objectives._words import Words, divergence, window_mean
from barlow.objectives.obow import OBoW, WordLists

MAPS = [(2, 3, 4), (1, 2, 5)]
"""Of two levels: 34 numbers an image."""


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


TRAINED = ["first", "scale", "shift", "second", "bias"]

POSITIONS = rows([1, 0, 0, 1], [1, 1, 0.5, 0]).view(2, 1, 2, 2)
WORDS = rows([1, 0], [0, 2], [0.5, 0.5])
BAGS = rows([0.45227411, 0.09945877, 0.44826713], [0.37878033, 0.00671191, 0.61450776])
PREDICTIONS = rows([2, 0, 1], [0.5, 0.5, 0.5])


def holding(words: torch.Tensor) -> Words:
    made = Words(*words.shape, 4, 3, torch.Generator().manual_seed(0)).double()
    made.words.copy_(words)
    return made


def built(**options: object) -> WordLists:
    return OBoW(**{"words": 12, "hidden": 7, **options}).build(width=3, maps=MAPS, seed=0).double()


def step_of(number: int, crops: int = 2, n: int = 4, state: str = "healthy") -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Features of some crops, and the maps that they share."""
    maps = batch_in(state, n, 34, seed=100 + number)[0]
    return [(batch_in(state, n, 3, seed=10 * number + crop)[0], maps) for crop in range(crops)]


def loss(module: WordLists, groups: list[tuple[torch.Tensor, torch.Tensor]], first_id: int = 0) -> torch.Tensor:
    return module(groups, ids=torch.arange(first_id, first_id + len(groups[0][0])))["bags"]


def of_levels(module: WordLists) -> list[dict[str, torch.Tensor]]:
    return [{name: value.clone() for name, value in level.state_dict().items()} for level in module.levels]


def laid_out(maps: torch.Tensor) -> list[torch.Tensor]:
    return [maps[:, :24].unflatten(1, MAPS[0]), maps[:, 24:].unflatten(1, MAPS[1])]


def test_published_bags_and_the_mean_distance_that_they_are_made_with() -> None:
    (bags,), distance = holding(WORDS).bags([POSITIONS], 1.5, 0.99)
    assert oracle.mean_distance(POSITIONS, WORDS) == 0.3125
    assert distance.item() == pytest.approx(0.498125, abs=1e-12)
    assert torch.allclose(bags, BAGS, rtol=0, atol=5e-9)
    loops = [torch.stack(oracle.bag(image, WORDS, 1.5 / 0.498125)) for image in POSITIONS]
    assert torch.allclose(bags, torch.stack(loops), rtol=0, atol=1e-14)


def test_published_divergence_and_the_cross_entropy_that_differs_by_the_bags_entropy() -> None:
    (bags,), _ = holding(WORDS).bags([POSITIONS], 1.5, 0.99)
    found = divergence(PREDICTIONS, torch.eye(3, dtype=torch.float64), bags, 1.0)
    assert found.item() == pytest.approx(0.252391248819, abs=1e-12)
    entropy = -(bags * bags.log()).sum(dim=1).mean()
    assert (found + entropy).item() == pytest.approx(1.07670145533, abs=1e-11)


@pytest.mark.parametrize("state", STATES)
def test_value_gradients_and_mean_distances_equal_the_loops(state: str) -> None:
    groups = step_of(0, 3, state=state)
    module = built(words=8, hidden=5, crops=[1, 2])
    levels = of_levels(module)
    trained = [level[name].requires_grad_() for level in levels for name in TRAINED]
    leaves = [p.clone().requires_grad_() for p, _ in groups]
    found = loss(module, [(leaf, t) for leaf, (_, t) in zip(leaves, groups, strict=True)])
    others = [p.clone().requires_grad_() for p, _ in groups]
    expected, moved = oracle.obow(others, laid_out(groups[0][1]), levels, kinds=[1, 2])
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    assert relative_error(torch.autograd.grad(found, leaves, retain_graph=True), _to(expected, others)) < 1e-9
    ours = torch.autograd.grad(found, list(module.parameters()))
    assert relative_error(list(ours), _to(expected, trained)) < 1e-9
    assert [level.distance.item() for level in module.levels] == pytest.approx(moved, rel=1e-12)


def _to(value: torch.Tensor, leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    return list(torch.autograd.grad(value, leaves, retain_graph=True))


@pytest.mark.parametrize("state", STATES)
def test_in_float32_the_value_and_the_gradient_are_those_of_float64(state: str) -> None:
    groups = [(p.float(), t.float()) for p, t in step_of(0, state=state)]
    module = OBoW(words=12, hidden=7).build(width=3, maps=MAPS, seed=0)
    exact = OBoW(words=12, hidden=7).build(width=3, maps=MAPS, seed=0).double()
    leaves, others = ([p.to(kind).requires_grad_() for p, _ in groups] for kind in (torch.float32, torch.float64))
    found = loss(module, [(leaf, groups[0][1]) for leaf in leaves])
    expected = loss(exact, [(leaf, groups[0][1].double()) for leaf in others])
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    ours = [g.double() for g in torch.autograd.grad(found, leaves)]
    assert relative_error(ours, list(torch.autograd.grad(expected, others))) < 1e-5


def test_many_products_are_computed_in_float32_a_few_images_at_a_time_and_nearly_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups = [(p.float(), 100 + t.float()) for p, t in step_of(0)]
    exact = built().float()
    expected = loss(exact, groups).item()
    monkeypatch.setattr("barlow.objectives._words.FEW", 0)
    monkeypatch.setattr("barlow.objectives._words.TOGETHER", 80)  # one image of the first map
    found = built().float()
    assert loss(found, groups).item() == pytest.approx(expected, rel=1e-3)
    assert all(a.words.equal(b.words) for a, b in zip(found.levels, exact.levels, strict=True))


def test_losses_are_means_over_the_crops_of_a_kind_and_sums_over_kinds() -> None:
    groups = step_of(0, 3)
    each = [loss(built(), [group]).item() for group in groups]
    assert loss(built(), groups).item() == pytest.approx(sum(each) / 3, rel=1e-12)
    assert loss(built(crops=[1, 2]), groups).item() == pytest.approx(each[0] + (each[1] + each[2]) / 2, rel=1e-12)


def test_bags_and_directions_are_made_of_the_lists_before_the_steps_words_come_in() -> None:
    module = built()
    before = of_levels(module)
    expected, _ = oracle.obow([p for p, _ in step_of(0)], laid_out(step_of(0)[0][1]), before, kinds=[2])
    assert loss(module, step_of(0)).item() == pytest.approx(expected.item(), rel=1e-12)
    assert not module.levels[0].words.equal(before[0]["words"])


def test_every_image_leaves_a_word_in_each_list_in_the_place_of_the_oldest_and_the_list_wraps() -> None:
    module = built(window=1)
    for number in range(4):
        before = of_levels(module)
        groups = step_of(number)
        loss(module, groups)
        places = [(4 * number + i) % 12 for i in range(4)]
        others = [i for i in range(12) if i not in places]
        for level, maps, old in zip(module.levels, laid_out(groups[0][1]), before, strict=True):
            assert level.words[others].equal(old["words"][others])
            for i, place in enumerate(places):
                assert any(level.words[place].equal(position) for position in maps[i].flatten(0, 1))
        assert int(module.oldest) == 4 * (number + 1) % 12
        assert int(module.steps) == number + 1


def test_a_word_is_the_mean_of_a_window_that_its_bits_choose_or_of_a_smaller_map() -> None:
    maps = torch.arange(2 * 3 * 4 * 2, dtype=torch.float64).view(2, 3, 4, 2)
    found = window_mean(maps, torch.tensor([0, 3]), 2)
    assert found[0].equal(maps[0, 0:2, 0:2].mean(dim=(0, 1)))
    assert found[1].equal(maps[1, 1:3, 0:2].mean(dim=(0, 1)))
    assert window_mean(maps, torch.tensor([5, 9]), 5).allclose(maps.mean(dim=(1, 2)))


def test_places_of_windows_are_drawn_evenly_for_each_step_level_and_id_whatever_the_batch() -> None:
    maps = torch.arange(6.0).repeat_interleave(4).repeat(600, 1)  # position u of the first map is full of u
    maps = torch.cat([maps, torch.zeros(600, 10)], dim=1)
    module = OBoW(words=600, hidden=2, window=1).build(width=3, maps=MAPS, seed=0)
    p = torch.ones(600, 3)
    module([(p, maps)], ids=torch.arange(600))
    first = module.levels[0].words[:, 0].clone()
    assert torch.bincount(first.long(), minlength=6).min() > 70
    again = OBoW(words=600, hidden=2, window=1).build(width=3, maps=MAPS, seed=0)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(1))
    again([(p, maps)], ids=order)
    assert again.levels[0].words[:, 0].equal(first[order])
    module([(p, maps)], ids=torch.arange(600))
    assert not module.levels[0].words[:, 0].equal(first), "another step"


def test_crops_that_share_their_maps_are_as_those_with_copies_of_them() -> None:
    shared, apart = built(), built()
    groups = step_of(0)
    copies = [(p, t.clone()) for p, t in groups]
    assert loss(shared, groups).item() == pytest.approx(loss(apart, copies).item(), rel=1e-12)
    assert shared.levels[0].words.equal(apart.levels[0].words)


def test_maps_get_no_gradient_and_words_are_no_parameters() -> None:
    ((p, t),) = step_of(0, 1)
    module = built()
    found = loss(module, [(p.requires_grad_(), t.requires_grad_())])
    assert torch.autograd.grad(found, t, allow_unused=True)[0] is None
    assert {name.split(".")[-1] for name, _ in module.named_parameters()} == set(TRAINED)
    assert set(dict(module.named_buffers())) == {
        "seed",
        "steps",
        "oldest",
        *(f"levels.{i}.{name}" for i in (0, 1) for name in ("words", "distance")),
    }


def test_words_start_as_normal_numbers_without_their_negative_half_and_the_distance_at_a_half() -> None:
    module = OBoW(words=4096, hidden=2).build(width=3, maps=[(1, 1, 16)], seed=0)
    words = module.levels[0].words
    assert words.min() == 0
    assert float((words > 0).float().mean()) == pytest.approx(0.5, abs=0.01)
    assert float(words[words > 0].square().mean()) == pytest.approx(1, abs=0.02)
    assert module.levels[0].distance.item() == 0.5


def test_equal_features_of_all_images_still_leave_finite_bags() -> None:
    module = built(memory=0.0)
    for _ in range(4):
        found = loss(module, [(torch.zeros(4, 3), torch.ones(4, 34))] * 2)
        assert found.isfinite()
    assert all(level.distance > 0 for level in module.levels)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([(torch.ones(5, 3), torch.ones(5, 34))], r"a batch of 5 .* a list of 12 .* or 10 words"),
        ([(torch.ones(4, 2), torch.ones(4, 34))], r"features of 2, and it was built for 3"),
        ([(torch.ones(4, 3), torch.ones(4, 33))], r"maps of 33 .* built for 34 \(2 × 3 × 4 and 1 × 2 × 5\)"),
        ([(torch.ones(4, 3),)], r"give \[\(p, t\)\]"),
        ([(torch.ones(4, 3), torch.ones(3, 34))], r"4 rows of features and 3 of maps"),
    ],
)
def test_groups_that_it_was_not_built_for_are_refused_and_change_nothing(groups: list, message: str) -> None:
    module = built().float()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        loss(module, groups)
    assert all(value.equal(before[name]) for name, value in module.state_dict().items())


def test_crops_that_are_not_as_many_as_said_are_refused() -> None:
    with pytest.raises(ValueError, match=r"crops is \[1, 2\], .* a step has 2"):
        loss(built(crops=[1, 2]), step_of(0, 2))


@pytest.mark.parametrize(
    "bad",
    [
        {"words": 1},
        {"hidden": 0},
        {"window": 0},
        {"inverse_temperature": 0.0},
        {"kappa": -1.0},
        {"memory": 1.0},
        {"crops": []},
        {"crops": [2, 0]},
    ],
)
def test_hyper_parameters_out_of_range_are_refused_by_name(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        OBoW(**bad)
