import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from barlow.optim.optimizers import (
    build_optimizer,
    can_skip,
    has_fused_kernels,
    load_state,
    state_tensors,
    update_if,
)

KINDS = ("adamw", "adam", "sgd")
"""torch's; LARS has tests of its own beside."""


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    return net.to(memory_format=torch.channels_last)


def step(net: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    x = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(number))
    net(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def rested(kind: str, exclude_1d: bool) -> tuple[Tensor, Tensor]:
    """What one step with zero gradients makes of a matrix and a vector of ones: weight decay alone."""
    named = {"w": nn.Parameter(torch.ones(2, 2)), "b": nn.Parameter(torch.ones(2))}
    optimizer = build_optimizer(named, kind, lr=0.1, weight_decay=0.01, exclude_1d=exclude_1d)
    for p in named.values():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    return named["w"].detach(), named["b"].detach()


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_of_one_dimension_are_not_decayed_when_excluded(kind: str) -> None:
    w, b = rested(kind, exclude_1d=True)
    assert bool((b == 1).all())
    assert bool((w < 1).all())
    w, b = rested(kind, exclude_1d=False)
    torch.testing.assert_close(b, w[0])


def test_adamw_decays_the_weights_and_adam_and_sgd_the_gradient() -> None:
    torch.testing.assert_close(rested("adamw", False)[1], torch.full((2,), 1 - 0.1 * 0.01))
    # L2: the gradient is 0.01 · 1; Adam's first step is the rate in its direction, SGD's the rate times it
    torch.testing.assert_close(rested("adam", False)[1], torch.full((2,), 1 - 0.1))
    torch.testing.assert_close(rested("sgd", False)[1], torch.full((2,), 1 - 0.1 * 0.01))


def test_momentum_betas_and_eps_are_used() -> None:
    p = nn.Parameter(torch.zeros(1, 1))
    optimizer = build_optimizer({"p": p}, "sgd", lr=1.0, momentum=0.5)
    for _ in range(2):
        p.grad = torch.ones_like(p)
        optimizer.step()
    assert p.item() == -(1 + 1.5)
    q = nn.Parameter(torch.zeros(1, 1))
    optimizer = build_optimizer({"q": q}, "adam", lr=1.0, betas=(0.0, 0.0), eps=1.0)
    q.grad = torch.ones_like(q)
    optimizer.step()
    assert q.item() == pytest.approx(-0.5)  # g / (|g| + eps)


def test_a_group_says_its_scale_of_the_rate() -> None:
    optimizer = build_optimizer(network(), "adamw", lr=0.1, weight_decay=0.5)
    assert [(g["name"], g["lr_scale"], g["weight_decay"]) for g in optimizer.param_groups] == [
        ("matrices", 1.0, 0.5),
        ("vectors", 1.0, 0.0),
    ]
    assert optimizer.param_groups[1]["param_names"] == ["0.bias", "1.weight", "1.bias", "3.bias"]


@pytest.mark.parametrize("kind", [*KINDS, "lars"])
def test_vectors_have_a_rate_of_their_own_when_asked(kind: str) -> None:
    def ways(lr: float, vectors_lr: float | None) -> tuple[float, float]:
        named = {"w": nn.Parameter(torch.ones(2, 2)), "b": nn.Parameter(torch.ones(2))}
        optimizer = build_optimizer(named, kind, lr=lr, vectors_lr=vectors_lr)
        for p in named.values():
            p.grad = torch.full_like(p, 0.5)
        optimizer.step()
        return 1 - named["w"][0, 0].item(), 1 - named["b"][0].item()

    w, b = ways(0.16, None)
    assert ways(0.16, 0.16) == (w, b)
    assert ways(0.16, 0.04) == (w, pytest.approx(b / 4, rel=1e-4))
    assert ways(0.16, 0.0) == (w, 0.0)
    optimizer = build_optimizer(network(), kind, lr=0.16, vectors_lr=0.04)
    assert [(g["lr"], g["lr_scale"]) for g in optimizer.param_groups] == [(0.16, 1.0), (0.04, 0.25)]


@pytest.mark.parametrize(("lr", "vectors_lr"), [(0.0, 0.1), (0.1, -0.1)])
def test_a_rate_of_vectors_that_is_no_part_of_the_rate_is_refused(lr: float, vectors_lr: float) -> None:
    with pytest.raises(ValueError, match="give vectors_lr from 0 and lr above 0, or neither"):
        build_optimizer(network(), "lars", lr=lr, vectors_lr=vectors_lr)


def test_a_fused_lars_is_refused() -> None:
    with pytest.raises(ValueError, match="lars has no fused kernel; leave fused at None"):
        build_optimizer(network(), "lars", lr=0.1, fused=True)
    build_optimizer(network(), "lars", lr=0.1, fused=False)


def test_frozen_parameters_are_left_out() -> None:
    net = network()
    net[0].requires_grad_(False)
    names = [n for group in build_optimizer(net, "sgd", lr=0.1).param_groups for n in group["param_names"]]
    assert names == ["3.weight", "1.weight", "1.bias", "3.bias"]
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizer(net.requires_grad_(False), "sgd", lr=0.1)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown optimizer 'lamb'; allowed: adamw, adam, sgd, lars"):
        build_optimizer(network(), "lamb", lr=0.1)


@pytest.mark.parametrize(
    ("kind", "fused"), [(kind, fused) for kind in KINDS for fused in (None, True)] + [("lars", None)]
)
def test_a_run_resumed_through_files_is_bit_for_bit_the_one_that_was_not(
    kind: str, fused: bool | None, tmp_path: Path
) -> None:
    def build(net: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(net, kind, lr=0.01, weight_decay=0.1, vectors_lr=0.003, fused=fused)

    straight = network()
    optimizer = build(straight)
    for number in range(3):
        step(straight, optimizer, number)
    optimizer.param_groups[0]["lr"] = 1 / 3
    tensors, scalars = state_tensors(optimizer, dict(straight.named_parameters()))
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "o.safetensors")
    (tmp_path / "o.json").write_text(json.dumps(scalars))
    resumed = network()
    resumed.load_state_dict({name: value.clone() for name, value in straight.state_dict().items()})
    for number in range(3, 6):
        step(straight, optimizer, number)

    other = build(resumed)
    load_state(
        other,
        dict(resumed.named_parameters()),
        load_file(tmp_path / "o.safetensors"),
        json.loads((tmp_path / "o.json").read_text()),
    )
    for number in range(3, 6):
        step(resumed, other, number)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))
    again, _ = state_tensors(other, resumed)
    now, _ = state_tensors(optimizer, straight)
    assert now.keys() == again.keys()
    assert all(torch.equal(now[key], again[key]) for key in now)
    for p, q in zip(straight.parameters(), resumed.parameters(), strict=True):
        for slot, value in optimizer.state[p].items():
            if isinstance(value, Tensor):
                assert value.stride() == other.state[q][slot].stride()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "lars"])
def test_an_update_that_is_not_wanted_changes_neither_parameters_nor_state(kind: str) -> None:
    fused = has_fused_kernels(kind, torch.device("cpu"))
    net, other = network(), network()
    optimizer = build_optimizer(net, kind, lr=0.01, weight_decay=0.1, fused=fused)
    plain = build_optimizer(other, kind, lr=0.01, weight_decay=0.1, fused=fused)
    assert can_skip(optimizer)
    assert not can_skip(build_optimizer(net, "lars", lr=0.01))
    step(other, plain, 0)
    step(net, optimizer, 0)
    _poisoned(net, optimizer)
    _poisoned(net, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    ours, theirs = state_tensors(optimizer, net)[0], state_tensors(plain, other)[0]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def _poisoned(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for p in net.parameters():
        p.grad = torch.full_like(p, float("nan"))
    update_if(optimizer, torch.tensor(False))


def test_a_wanted_update_is_the_plain_one() -> None:
    net, other = network(), network()
    optimizer, plain = (build_optimizer(n, "adamw", lr=0.01, fused=True) for n in (net, other))
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        p.grad = torch.ones_like(p)
        q.grad = torch.ones_like(q)
    update_if(optimizer, torch.tensor(True))
    plain.step()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


def test_tensors_are_filed_under_the_parameters_names() -> None:
    net = network()
    optimizer = build_optimizer(net, "adamw", lr=0.01)
    step(net, optimizer, 0)
    tensors, _ = state_tensors(optimizer, net)
    assert {"0.weight/exp_avg", "3.bias/exp_avg_sq", "1.weight/step"} <= tensors.keys()


def test_a_state_before_the_first_step_can_be_put_back() -> None:
    net = network()
    tensors, scalars = state_tensors(build_optimizer(net, "adam", lr=0.01), net)
    assert tensors == {}
    load_state(build_optimizer(net, "adam", lr=0.01), net, tensors, scalars)


def test_loading_does_not_tie_the_optimizer_to_the_tensors_given() -> None:
    net = network()
    optimizer = build_optimizer(net, "adamw", lr=0.01)
    step(net, optimizer, 0)
    tensors, scalars = state_tensors(optimizer, net)
    kept = {name: value.clone() for name, value in tensors.items()}
    given = {name: value.clone() for name, value in tensors.items()}
    other = build_optimizer(net, "adamw", lr=0.01)
    load_state(other, net, given, scalars)
    step(net, other, 1)
    assert all(torch.equal(given[name], kept[name]) for name in kept)


Change = Callable[[dict[str, Tensor], dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, s: t.pop("0.weight/exp_avg"), "state of 1 parameters is not whole, of 0.weight first"),
        (lambda t, s: [t.pop(f"0.weight/{slot}") for slot in ("step", "exp_avg", "exp_avg_sq")], "not whole"),
        (lambda t, s: t.update({"9.weight/exp_avg": torch.zeros(1)}), "'9.weight/exp_avg' is of no parameter here"),
        (lambda t, s: t.update({"0.weight/exp_avg": torch.zeros(2, 2)}), r"has shape \(2, 2\), its parameter \(4, 3"),
        (lambda t, s: s.update({"class": "SGD"}), "the state is of SGD, the optimizer is AdamW"),
        (lambda t, s: s["groups"][0]["parameters"].remove("0.weight"), r"1 without state \(0.weight\)"),
        (lambda t, s: s["groups"][0]["parameters"].append("9.weight"), r"1 unknown here \(9.weight\)"),
        (lambda t, s: s["groups"].reverse(), "grouped or ordered otherwise"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change: Change, message: str) -> None:
    net = network()
    optimizer = build_optimizer(net, "adamw", lr=0.01)
    step(net, optimizer, 0)
    tensors, scalars = state_tensors(optimizer, net)
    tensors, scalars = dict(tensors), json.loads(json.dumps(scalars))
    change(tensors, scalars)
    other = build_optimizer(net, "adamw", lr=0.5)
    with pytest.raises(ValueError, match=message):
        load_state(other, net, tensors, scalars)
    assert not other.state
    assert other.param_groups[0]["lr"] == 0.5


def test_an_optimizer_over_nameless_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="without a name here"):
        state_tensors(build_optimizer(network(), "sgd", lr=0.1), network())
