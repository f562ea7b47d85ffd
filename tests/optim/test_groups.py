"""Parameters with rules of their own: against loops, while they are frozen, and through a state."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import lars, updates
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from barlow.optim.groups import GroupRule
from barlow.optim.optimizers import build_optimizer, can_skip, freeze, load_state, set_rate, state_tensors, update_if

KINDS = [(kind, fused) for kind in ("adamw", "adam", "sgd") for fused in (None, True)] + [("lars", None)]
TOTAL, PEAK, DECAY = 10, 0.1, 0.2
RATES = [PEAK * (1 - step / TOTAL) for step in range(TOTAL)]
RULES = (
    GroupRule(parameters="prototypes.*", frozen_until=0.3),
    GroupRule(parameters="predictor.*", constant_rate=True, weight_decay=False, trust_ratio=False),
    GroupRule(parameters="*.scale", weight_decay=False, rate=0.3),
)


def draws(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parameters() -> dict[str, nn.Parameter]:
    shapes = {
        "encoder.weight": (3, 2),
        "encoder.bias": (3,),
        "encoder.scale": (2, 2),
        "predictor.weight": (2, 3),
        "predictor.bias": (2,),
        "prototypes.weight": (4, 2),
        "prototypes.scale": (3,),
    }
    return {name: nn.Parameter(draws(*shape, seed=i)) for i, (name, shape) in enumerate(shapes.items())}


def gradients(named: dict[str, nn.Parameter], step: int) -> dict[str, Tensor]:
    return {name: draws(*p.shape, seed=100 * step + i) for i, (name, p) in enumerate(named.items())}


def build(named: dict[str, nn.Parameter], kind: str, fused: bool | None = None, **options: Any) -> Any:
    return build_optimizer(named, kind, lr=PEAK, weight_decay=DECAY, fused=fused, rules=RULES, **options)


def update(optimizer: torch.optim.Optimizer, named: dict[str, nn.Parameter], step: int) -> None:
    for name, gradient in gradients(named, step).items():
        named[name].grad = gradient
    set_rate(optimizer, RATES[step])
    freeze(optimizer, step / TOTAL)
    update_if(optimizer, torch.tensor(True)) if can_skip(optimizer) else optimizer.step()


# --- Against loops --------------------------------------------------------------------------------------------------


def by_loops(kind: str, name: str, start: Tensor, given: list[Tensor], vectors_lr: float) -> Tensor:
    """One parameter after all steps, with what `RULES` say of it, each spelled out."""
    steps = range(TOTAL)
    rates = [rate * (vectors_lr / PEAK if start.ndim == 1 else 1) for rate in RATES]
    decay = DECAY if start.ndim != 1 else 0.0
    adapt = start.ndim != 1
    if name.startswith("prototypes."):
        steps = range(3, TOTAL)
    elif name.startswith("predictor."):
        rates, decay, adapt = [vectors_lr if start.ndim == 1 else PEAK] * TOTAL, 0.0, False
    elif name.endswith(".scale"):
        rates, decay = [0.3 * rate for rate in rates], 0.0
    p, g = start.flatten().tolist(), [given[step].flatten().tolist() for step in steps]
    rates = [rates[step] for step in steps]
    if kind == "lars":
        moved = lars.lars(p, g, rates, weight_decay=decay, adapt=adapt)
    elif kind == "sgd":
        moved = updates.sgd(p, g, rates, weight_decay=decay)
    else:
        moved = updates.adam(p, g, rates, weight_decay=decay, decoupled=kind == "adamw")
    return torch.tensor(moved, dtype=torch.float64).view(start.shape)


@pytest.mark.parametrize("vectors_lr", [PEAK, 0.05])
@pytest.mark.parametrize(("kind", "fused"), KINDS)
def test_every_parameter_moves_as_its_rule_says(kind: str, fused: bool | None, vectors_lr: float) -> None:
    named = parameters()
    start = {name: p.detach().clone() for name, p in named.items()}
    optimizer = build(named, kind, fused, vectors_lr=vectors_lr)
    given = [gradients(named, step) for step in range(TOTAL)]
    for step in range(TOTAL):
        update(optimizer, named, step)
    for name, p in named.items():
        expected = by_loops(kind, name, start[name], [of_step[name] for of_step in given], vectors_lr)
        assert not torch.allclose(expected, start[name], atol=1e-4), name
        assert torch.allclose(p.detach(), expected, rtol=1e-10, atol=1e-12), name


def test_without_a_trust_ratio_lars_decays_and_moves_a_weight_as_sgd_does() -> None:
    ways = []
    for kind, rules in (("lars", [GroupRule(parameters="w", trust_ratio=False)]), ("sgd", [])):
        named = {"w": nn.Parameter(draws(3, 2, seed=0))}
        optimizer = build_optimizer(named, kind, lr=PEAK, weight_decay=DECAY, rules=rules)
        for step in range(3):
            named["w"].grad = draws(3, 2, seed=step)
            optimizer.step()
        ways.append(named["w"].detach())
    torch.testing.assert_close(*ways, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["sgd", "lars"])
def test_a_rule_without_momentum_takes_it_from_sgd_and_lars(kind: str) -> None:
    named = {"top.weight": nn.Parameter(draws(3, 2, seed=0)), "encoder.bias": nn.Parameter(draws(3, seed=1))}
    rules = [GroupRule(parameters="top.*", momentum=False, trust_ratio=False)]
    optimizer = build_optimizer(named, kind, lr=0.1, rules=rules)
    before, pushed = named["top.weight"].detach().clone(), torch.zeros(3, 2, dtype=torch.float64)
    for step in range(3):
        for name, p in named.items():
            p.grad = draws(*p.shape, seed=10 * step + len(name))
        pushed += named["top.weight"].grad
        optimizer.step()
    torch.testing.assert_close(named["top.weight"].detach(), before - 0.1 * pushed)
    assert [group["momentum"] for group in optimizer.param_groups] == [0.9, 0.0]


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_averages_of_adam_are_no_momentum_to_take_away(kind: str) -> None:
    with pytest.raises(ValueError, match=r"takes the momentum away, and Adam's averages are none"):
        build_optimizer(parameters(), kind, lr=0.1, rules=[GroupRule(parameters="*", momentum=False)])


def test_a_rule_without_decay_takes_it_from_biases_too_where_they_have_it() -> None:
    optimizer = build(parameters(), "adam", exclude_1d=False)
    decays = {name: group["weight_decay"] for group in optimizer.param_groups for name in group["param_names"]}
    undecayed = {"predictor.weight", "predictor.bias", "encoder.scale"}
    assert decays == {name: 0.0 if name in undecayed else DECAY for name in parameters()}


# --- Frozen ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "fused"), KINDS)
def test_a_frozen_parameter_neither_moves_nor_gathers_state(kind: str, fused: bool | None) -> None:
    named = parameters()
    start = {name: p.detach().clone() for name, p in named.items()}
    optimizer = build(named, kind, fused)
    for step in range(4):
        moved = {name for name, p in named.items() if not torch.equal(p, start[name])}
        frozen = {"prototypes.weight", "prototypes.scale"}
        assert moved == (set(named) - frozen if step else set())
        assert not any(optimizer.state.get(named[name]) for name in frozen)
        update(optimizer, named, step)
    assert not torch.equal(named["prototypes.weight"], start["prototypes.weight"])


@pytest.mark.parametrize(("kind", "fused"), KINDS)
def test_what_is_frozen_until_the_end_never_moves_even_if_it_is_all_there_is(kind: str, fused: bool | None) -> None:
    named = {"w": nn.Parameter(torch.ones(2, 2)), "b": nn.Parameter(torch.ones(2))}
    rules = [GroupRule(parameters="*", frozen_until=1.0)]
    optimizer = build_optimizer(named, kind, lr=0.1, weight_decay=0.1, rules=rules, fused=fused)
    for step in range(5):
        for p in named.values():
            p.grad = torch.ones_like(p)
        freeze(optimizer, step / 5)
        optimizer.step()
    assert all(bool((p == 1).all()) for p in named.values())
    assert not optimizer.state


@pytest.mark.parametrize(("until", "total", "steps"), [(0.1, 100, 10), (0.3, 10, 3), (0.05, 10, 1), (0.7, 30, 21)])
def test_a_share_of_the_run_is_so_many_of_its_steps(until: float, total: int, steps: int) -> None:
    p = nn.Parameter(torch.ones(2, 2))
    optimizer = build_optimizer({"p": p}, "sgd", lr=0.1, rules=[GroupRule(parameters="p", frozen_until=until)])
    frozen = 0
    for step in range(total):
        p.grad = torch.ones_like(p)
        freeze(optimizer, step / total)
        frozen += p.grad is None
    assert frozen == steps


def test_without_a_rule_nothing_is_ever_frozen() -> None:
    p = nn.Parameter(torch.ones(2, 2))
    optimizer = build_optimizer({"p": p}, "sgd", lr=0.1)
    for progress in (0.0, 0.5, 1.0):
        p.grad = torch.ones_like(p)
        freeze(optimizer, progress)
        assert p.grad is not None


# --- Groups ---------------------------------------------------------------------------------------------------------


def settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    own = ("name", "weight_decay", "lr", "lr_scale", "adapt", "schedule", "frozen_until", "param_names")
    return [{key: group[key] for key in own if key in group} for group in optimizer.param_groups]


def test_each_rule_has_groups_of_its_own_with_plain_values_and_only_what_it_asks_for() -> None:
    named = parameters()
    found = settings(build(named, "lars", vectors_lr=0.05))
    assert found == json.loads(json.dumps(found))
    plain = {"weight_decay": DECAY, "lr": PEAK, "lr_scale": 1.0, "adapt": True}
    vectors = {"weight_decay": 0.0, "lr": 0.05, "lr_scale": 0.5, "adapt": False}
    constant = {"schedule": "constant", "weight_decay": 0.0, "adapt": False}
    frozen = {"frozen_until": 0.3}
    slow = {"weight_decay": 0.0, "lr": 0.3 * PEAK, "lr_scale": 0.3}
    assert found == [
        {**plain, "name": "matrices", "param_names": ["encoder.weight"]},
        {**vectors, "name": "vectors", "param_names": ["encoder.bias"]},
        {**plain, **frozen, "name": "prototypes.* matrices", "param_names": ["prototypes.weight"]},
        {**vectors, **frozen, "name": "prototypes.* vectors", "param_names": ["prototypes.scale"]},
        {**plain, **constant, "name": "predictor.* matrices", "param_names": ["predictor.weight"]},
        {**vectors, **constant, "name": "predictor.* vectors", "param_names": ["predictor.bias"]},
        {**plain, **slow, "name": "*.scale matrices", "param_names": ["encoder.scale"]},
    ]


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lars"])
def test_without_rules_the_groups_have_the_keys_of_older_states(kind: str) -> None:
    _, scalars = state_tensors(build_optimizer(named := parameters(), kind, lr=0.1), named)
    older = {
        "adamw": ["amsgrad", "betas", "decoupled_weight_decay", "eps", "maximize"],
        "sgd": ["dampening", "maximize", "momentum", "nesterov"],
        "lars": ["adapt", "clip", "momentum", "rate_in_momentum", "trust"],
    }[kind]
    for group, name in zip(scalars["groups"], ("matrices", "vectors"), strict=True):
        assert group["name"] == name
        assert sorted(group) == sorted([*older, "lr", "lr_scale", "name", "parameters", "weight_decay"])


def test_every_group_gets_the_rate_times_its_own_scale_but_a_constant_one() -> None:
    p, q, r = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    groups = [{"params": [p], "lr_scale": 0.2}, {"params": [q]}, {"params": [r], "lr": 0.3, "schedule": "constant"}]
    optimizer = torch.optim.SGD(groups, lr=9.0)
    set_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.5, 0.3]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (
            ["predicter.*"],
            r"no trained parameter matches 'predicter\.\*'; nearest: predictor\.bias, predictor\.weight",
        ),
        (["Predictor.*"], r"no trained parameter matches 'Predictor\.\*'"),
        (["*.bias", "predictor.b*"], r"the rule for 'predictor\.b\*' comes after rules .*, predictor\.bias first"),
    ],
)
def test_a_rule_that_matches_nothing_is_refused_and_the_nearest_names_are_given(
    patterns: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build_optimizer(parameters(), "sgd", lr=0.1, rules=[GroupRule(parameters=pattern) for pattern in patterns])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"parameters": ""}, "empty pattern"),
        ({"frozen_until": 1.5}, r"frozen_until 1.5 of 'w': give a share of the run, from 0 to 1"),
        ({"frozen_until": -0.1}, "share of the run"),
        ({"rate": -0.1}, r"rate -0.1 of 'w': give a factor of the learning rate, 0 or more"),
        ({"rate": float("inf")}, "a factor of the learning rate"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GroupRule(**{"parameters": "w", **values})


# --- State ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 3, 6])
@pytest.mark.parametrize(("kind", "fused"), KINDS)
def test_a_run_resumed_while_frozen_or_later_is_bit_for_bit_the_one_that_was_not(
    kind: str, fused: bool | None, at: int, tmp_path: Path
) -> None:
    straight = parameters()
    optimizer = build(straight, kind, fused)
    for step in range(at):
        update(optimizer, straight, step)
    tensors, scalars = state_tensors(optimizer, straight)
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "o.safetensors")
    (tmp_path / "o.json").write_text(json.dumps(scalars))
    resumed = {name: nn.Parameter(p.detach().clone()) for name, p in straight.items()}
    other = build(resumed, kind, fused)
    load_state(other, resumed, load_file(tmp_path / "o.safetensors"), json.loads((tmp_path / "o.json").read_text()))
    assert settings(other) == settings(optimizer)
    for step in range(at, TOTAL):
        update(optimizer, straight, step)
        update(other, resumed, step)
    assert all(torch.equal(p, resumed[name]) for name, p in straight.items())
    now, again = state_tensors(optimizer, straight), state_tensors(other, resumed)
    assert now[1] == again[1]
    assert now[0].keys() == again[0].keys()
    assert all(torch.equal(value, again[0][key]) for key, value in now[0].items())


def test_a_state_without_rules_does_not_fit_an_optimizer_with_them() -> None:
    named = parameters()
    tensors, scalars = state_tensors(build_optimizer(named, "sgd", lr=PEAK), named)
    with pytest.raises(ValueError, match="the same names, grouped or ordered otherwise"):
        load_state(build(named, "sgd"), named, tensors, scalars)
