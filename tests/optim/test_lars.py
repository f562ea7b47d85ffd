import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import lars as oracle
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from barlow.optim.lars import LARS
from barlow.optim.optimizers import build_optimizer, load_state, state_tensors

RATES = [0.2 * step / 10 for step in range(10)] + [0.2 * (1 - step / 41) for step in range(40)]
"""A warm-up from 0 and a way down: with one rate for all steps, a rate inside of the buffer would not be noticed."""


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parameters(dtype: torch.dtype = torch.float64) -> dict[str, nn.Parameter]:
    """Weights of four, two and no dimensions, and two vectors, of very different lengths."""
    shapes = {"conv": (4, 3, 2, 2), "linear": (5, 7), "scale": (), "bias": (6,), "shift": (1,)}
    return {
        name: nn.Parameter((10.0 ** (i - 2) * draws(*shape, seed=i)).to(dtype))
        for i, (name, shape) in enumerate(shapes.items())
    }


def gradients(named: dict[str, nn.Parameter], steps: int) -> list[dict[str, Tensor]]:
    """Gradients whose size changes over the steps by factors of thousands."""
    return [
        {n: (10.0 ** (step % 5 - 2)) * draws(*p.shape, seed=97 * step + i) for i, (n, p) in enumerate(named.items())}
        for step in range(steps)
    ]


def run(
    optimizer: torch.optim.Optimizer,
    named: dict[str, nn.Parameter],
    given: list[dict[str, Tensor]],
    rates: list[float],
) -> None:
    for gradient, rate in zip(given, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        for name, p in named.items():
            p.grad = gradient[name].to(p.dtype)
        optimizer.step()


def moved(p: Tensor, g: Tensor, lr: float = 0.3, **options: Any) -> Tensor:
    """What one update with gradient g adds to p."""
    parameter = nn.Parameter(p.clone())
    parameter.grad = g.clone()
    LARS([parameter], lr=lr, **options).step()
    return parameter.detach() - p


# --- The equations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("weight_decay", "momentum"), [(0.0, 0.9), (1e-6, 0.9), (0.5, 0.9), (0.5, 0.6), (0.5, 0.0)])
def test_fifty_steps_are_those_of_the_loops(weight_decay: float, momentum: float, clip: bool, foreach: bool) -> None:
    named = parameters()
    start = {n: p.detach().clone() for n, p in named.items()}
    optimizer = build_optimizer(
        named, "lars", lr=0.2, weight_decay=weight_decay, momentum=momentum, trust=0.02, clip=clip
    )
    for group in optimizer.param_groups:
        group["foreach"] = foreach
    given = gradients(named, 50)
    run(optimizer, named, given, RATES)
    for name, p in named.items():
        expected = oracle.lars(
            start[name].flatten().tolist(),
            [g[name].flatten().tolist() for g in given],
            RATES,
            weight_decay=weight_decay,
            momentum=momentum,
            trust=0.02,
            adapt=p.ndim != 1,
            clip=clip,
        )
        way = torch.tensor(expected, dtype=torch.float64).view(p.shape) - start[name]
        assert way.norm() > 1e-3 * start[name].norm()
        assert (p.detach() - start[name] - way).norm() <= 1e-12 * (way.norm() + start[name].norm())


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-6, 1e-2, 10.0])
def test_the_first_update_of_a_weight_has_a_length_set_by_the_weight_alone(scale: float, weight_decay: float) -> None:
    p, g = draws(4, 5), scale * draws(4, 5, seed=1)
    update = moved(p, g, lr=0.3, trust=0.01, weight_decay=weight_decay)
    torch.testing.assert_close(update.norm(), 0.3 * 0.01 * p.norm(), rtol=1e-12, atol=0)
    direction = g + weight_decay * p
    torch.testing.assert_close(update / update.norm(), -direction / direction.norm(), rtol=0, atol=1e-12)


def test_doubling_the_loss_doubles_the_way_of_vectors_and_not_that_of_undecayed_weights() -> None:
    ways = {}
    for weight_decay in (0.0, 0.1):
        for factor in (1, 2):
            named = parameters()
            start = copy.deepcopy(named)
            given = [{n: factor * g for n, g in step.items()} for step in gradients(named, 10)]
            run(build_optimizer(named, "lars", lr=1.0, weight_decay=weight_decay), named, given, RATES[:10])
            ways[weight_decay, factor] = {n: p.detach() - start[n].detach() for n, p in named.items()}
    for name in ("conv", "linear", "scale"):
        assert torch.equal(ways[0.0, 2][name], ways[0.0, 1][name])
    assert not torch.allclose(ways[0.1, 2]["linear"], ways[0.1, 1]["linear"], rtol=1e-3)
    for name in ("bias", "shift"):
        torch.testing.assert_close(ways[0.0, 2][name], 2 * ways[0.0, 1][name], rtol=1e-12, atol=1e-12)
        assert torch.equal(ways[0.1, 2][name], ways[0.0, 2][name])


@pytest.mark.parametrize("weight_decay", [1e-8, 1e-4, 1.0])
def test_a_weight_without_a_gradient_shrinks_by_the_trust_coefficient_whatever_its_decay(weight_decay: float) -> None:
    p = draws(4, 5)
    update = moved(p, torch.zeros_like(p), lr=0.3, trust=0.01, weight_decay=weight_decay)
    torch.testing.assert_close(update, -0.3 * 0.01 * p, rtol=1e-12, atol=1e-14)


def test_where_a_norm_is_zero_the_gradient_is_taken_as_it_is() -> None:
    g, zero = draws(3, 2), torch.zeros(3, 2, dtype=torch.float64)
    for clip in (False, True):
        torch.testing.assert_close(moved(zero, g, lr=0.3, weight_decay=0.1, clip=clip), -0.3 * g, rtol=1e-15, atol=0)
        assert torch.equal(moved(g, zero, clip=clip), zero)
        assert torch.equal(moved(zero, zero, weight_decay=0.1, clip=clip), zero)
        # a rate above 1 must not clip the 1
        torch.testing.assert_close(moved(zero, g, lr=5.0, clip=clip), -5.0 * g, rtol=1e-15, atol=0)


def test_a_change_of_rate_acts_on_all_of_the_momentum() -> None:
    p = nn.Parameter(draws(3, 2))
    optimizer = LARS([p], lr=0.0, momentum=0.9)
    p.grad = draws(3, 2, seed=1)
    before = p.detach().clone()
    optimizer.step()
    assert torch.equal(p.detach(), before)
    optimizer.param_groups[0]["lr"] = 1.0
    m = optimizer.state[p]["momentum_buffer"].clone()
    p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(p.detach(), before - 0.9 * m, rtol=1e-14, atol=0)


# --- Vectors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("built", [True, False])
def test_vectors_are_neither_decayed_nor_adapted(built: bool) -> None:
    named = {"w": nn.Parameter(draws(3, 2)), "b": nn.Parameter(draws(4, seed=1))}
    plain = nn.Parameter(named["b"].detach().clone())
    optimizer = build_optimizer(named, "lars", lr=0.2, weight_decay=0.5) if built else LARS(named.values(), lr=0.2)
    optimizer.param_groups[0]["weight_decay"] = 0.5
    sgd = torch.optim.SGD([plain], lr=0.2, momentum=0.9)
    given = gradients(named, 20)
    run(optimizer, named, given, RATES[:20])
    run(sgd, {"b": plain}, given, RATES[:20])
    torch.testing.assert_close(named["b"], plain, rtol=1e-14, atol=1e-14)


def test_vectors_that_are_not_excluded_are_decayed_and_still_not_adapted() -> None:
    named = {"w": nn.Parameter(draws(3, 2)), "b": nn.Parameter(draws(4, seed=1))}
    plain = nn.Parameter(named["b"].detach().clone())
    optimizer = build_optimizer(named, "lars", lr=0.2, weight_decay=0.5, exclude_1d=False)
    sgd = torch.optim.SGD([plain], lr=0.2, momentum=0.9, weight_decay=0.5)
    given = gradients(named, 20)
    run(optimizer, named, given, RATES[:20])
    run(sgd, {"b": plain}, given, RATES[:20])
    torch.testing.assert_close(named["b"], plain, rtol=1e-14, atol=1e-14)


def test_the_groups_say_what_is_done_to_them() -> None:
    optimizer = build_optimizer(
        parameters(), "lars", lr=1.6, weight_decay=1e-6, momentum=0.8, trust=0.02, clip=True, vectors_lr=0.0384
    )
    keys = ("name", "lr", "momentum", "weight_decay", "trust", "adapt", "clip")
    assert [[group[key] for key in keys] for group in optimizer.param_groups] == [
        ["matrices", 1.6, 0.8, 1e-6, 0.02, True, True],
        ["vectors", 0.0384, 0.8, 0.0, 0.02, False, True],
    ]


# --- The clipped form -----------------------------------------------------------------------------------------------


def test_clipped_a_weight_has_the_smaller_of_its_trust_ratio_and_the_rate() -> None:
    p, g = draws(4, 5), draws(4, 5, seed=1)
    ratio = float(0.02 * p.norm() / g.norm())
    for lr, rate in ((10 * ratio, ratio), (ratio / 10, ratio / 10)):
        torch.testing.assert_close(moved(p, g, lr=lr, trust=0.02, clip=True), -rate * g, rtol=1e-12, atol=1e-14)


def test_clipped_at_rate_zero_nothing_moves_and_the_buffer_holds_the_gradient() -> None:
    p = nn.Parameter(draws(3, 2))
    before, p.grad = p.detach().clone(), draws(3, 2, seed=1)
    optimizer = LARS([p], lr=0.0, clip=True)
    optimizer.step()
    assert torch.equal(p.detach(), before)
    assert torch.equal(optimizer.state[p]["momentum_buffer"], p.grad)


def test_solo_learns_ratio_is_ours_where_the_gradient_points_along_the_weight() -> None:
    p = draws(4, 5)
    g = 3e-2 * p
    theirs = oracle.solo_learn(p.flatten().tolist(), [g.flatten().tolist()], [0.3], weight_decay=1e-2)
    way = torch.tensor(theirs, dtype=torch.float64).view(p.shape) - p
    torch.testing.assert_close(moved(p, g, trust=0.02, weight_decay=1e-2, clip=True), way, rtol=1e-6, atol=0)


def test_solo_learns_ratio_is_below_ours_by_at_most_what_the_docstring_says() -> None:
    weight_decay = 1e-2
    for seed in range(20):
        p, g = draws(4, 5, seed=seed), draws(4, 5, seed=100 + seed)
        theirs = oracle.solo_learn(
            p.flatten().tolist(), [g.flatten().tolist()], [1.0], weight_decay=weight_decay, clip=False, eps=0.0
        )
        length = (torch.tensor(theirs, dtype=torch.float64).view(p.shape) - p).norm()
        ours = moved(p, g, lr=1.0, trust=0.02, weight_decay=weight_decay).norm()
        bound = 2 * weight_decay * p.norm() / g.norm()
        assert 0 < (ours - length) / ours <= bound


def test_solo_learn_does_not_decay_a_weight_without_a_gradient_and_we_do() -> None:
    p = draws(4, 5)
    zero = [0.0] * p.numel()
    assert oracle.solo_learn(p.flatten().tolist(), [zero], [0.3], weight_decay=0.1) == p.flatten().tolist()
    assert moved(p, torch.zeros_like(p), weight_decay=0.1, clip=True).norm() > 0


# --- timm's Lars ----------------------------------------------------------------------------------------------------


def timm_lars(named: dict[str, nn.Parameter], weight_decay: float, **options: Any) -> torch.optim.Optimizer:
    """timm's, over our groups: it adapts what decays."""
    from timm.optim.lars import Lars  # behind barlow, which lets torchvision be imported beside a CPU build of torch

    groups = [
        {"params": [p for p in named.values() if p.ndim != 1], "weight_decay": weight_decay},
        {"params": [p for p in named.values() if p.ndim == 1], "weight_decay": 0.0},
    ]
    return Lars(groups, lr=0.2, momentum=0.9, trust_coeff=0.001, **options)


def against_timm(weight_decay: float, **options: Any) -> dict[str, float]:
    """Distance to timm's parameters after 50 steps, as a part of the way that ours went."""
    ours = parameters()
    theirs = copy.deepcopy(ours)
    start = {n: p.detach().clone() for n, p in ours.items()}
    run(build_optimizer(ours, "lars", lr=0.2, weight_decay=weight_decay), ours, gradients(ours, 50), RATES)
    given = gradients(ours, 50)
    optimizer = timm_lars(theirs, weight_decay, **options)
    if options.get("always_adapt"):
        optimizer.param_groups[1]["always_adapt"] = False
    run(optimizer, theirs, given, RATES)
    return {
        n: float((p.detach() - theirs[n].detach()).norm() / (p.detach() - start[n]).norm()) for n, p in ours.items()
    }


def test_without_decay_fifty_steps_are_those_of_timm_told_to_adapt() -> None:
    assert max(against_timm(0.0, always_adapt=True, eps=0.0).values()) < 1e-12


def test_at_the_papers_decay_timm_is_near_after_fifty_steps_and_not_the_same() -> None:
    # apart by about λ‖p‖ / ‖g‖: measured 5.4e-7 and 3.1e-6 of the way
    apart = against_timm(1e-6)
    assert apart["bias"] == apart["shift"] == 0.0
    assert 1e-7 < apart["conv"] < 1e-6 < apart["linear"] < 1e-5
    assert against_timm(1e-4)["linear"] == pytest.approx(100 * apart["linear"], rel=0.1)


def test_timm_adds_the_norm_of_the_decay_where_the_papers_code_has_the_norm_of_the_sum() -> None:
    p, g = draws(4, 5), draws(4, 5, seed=1)
    named = {"w": nn.Parameter(p.clone())}
    named["w"].grad = g.clone()
    timm_lars(named, 0.5, eps=0.0).step()
    theirs = (named["w"].detach() - p).norm()
    ours = moved(p, g, lr=0.2, weight_decay=0.5).norm()
    torch.testing.assert_close(theirs / ours, (g + 0.5 * p).norm() / (g.norm() + 0.5 * p.norm()), rtol=1e-12, atol=0)
    assert theirs < 0.95 * ours


def test_timm_does_not_adapt_a_weight_that_does_not_decay_and_we_do() -> None:
    p, g = draws(4, 5), draws(4, 5, seed=1)
    named = {"w": nn.Parameter(p.clone())}
    named["w"].grad = g.clone()
    timm_lars(named, 0.0).step()
    torch.testing.assert_close(named["w"].detach() - p, -0.2 * g, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(moved(p, g, lr=0.2).norm(), 0.2 * 0.001 * p.norm(), rtol=1e-12, atol=0)


def test_timm_shrinks_a_weight_without_a_gradient_by_its_decay_and_we_by_the_trust_coefficient() -> None:
    p = draws(4, 5)
    named = {"w": nn.Parameter(p.clone())}
    named["w"].grad = torch.zeros_like(p)
    timm_lars(named, 0.5).step()
    torch.testing.assert_close(named["w"].detach() - p, -0.2 * 0.5 * p, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        moved(p, torch.zeros_like(p), lr=0.2, weight_decay=0.5), -0.2 * 0.001 * p, rtol=1e-12, atol=1e-14
    )


def test_timm_adapts_a_vector_that_decays_and_we_never_do() -> None:
    from timm.optim.lars import Lars

    p, g = draws(5), draws(5, seed=1)
    theirs = nn.Parameter(p.clone())
    theirs.grad = g.clone()
    Lars([theirs], lr=0.2, weight_decay=0.5).step()
    assert (theirs.detach() - p).norm() < 0.01 * (0.2 * g).norm()
    torch.testing.assert_close(moved(p, g, lr=0.2, weight_decay=0.5), -0.2 * g, rtol=1e-12, atol=1e-14)


def test_timm_clips_the_one_of_a_zero_norm_where_the_rate_is_above_one_and_we_do_not() -> None:
    from timm.optim.lars import Lars

    zero, g = torch.zeros(4, 5, dtype=torch.float64), draws(4, 5)
    theirs = nn.Parameter(zero.clone())
    theirs.grad = g.clone()
    Lars([theirs], lr=5.0, always_adapt=True, trust_clip=True).step()
    torch.testing.assert_close(theirs.detach(), -g, rtol=1e-12, atol=0)
    torch.testing.assert_close(moved(zero, g, lr=5.0, clip=True), -5.0 * g, rtol=1e-12, atol=0)


# --- How a step is computed -----------------------------------------------------------------------------------------


class NoWaiting(TorchDispatchMode):
    """Counts calls, and fails on those that hand a tensor's value to Python or move it between devices."""

    WAIT = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal", "_to_copy", "copy_", "masked_select")

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        if func.overloadpacket.__name__ in self.WAIT:
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "look", [lambda x: x.item(), lambda x: bool(x > 0), lambda x: float(x.sum()), lambda x: x.to("meta")]
)
def test_the_guard_against_waiting_notices_it(look: Any) -> None:
    x = torch.ones(1)
    with NoWaiting(), pytest.raises(AssertionError, match="waits for the device"):
        look(x)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("clip", [False, True])
def test_a_step_never_waits_for_the_device(clip: bool, foreach: bool) -> None:
    named = parameters(torch.float32)
    optimizer = LARS(named.values(), lr=0.1, weight_decay=0.1, clip=clip, foreach=foreach)
    for p in named.values():
        p.grad = torch.zeros_like(p)
    with NoWaiting():
        optimizer.step()
        optimizer.step()


@pytest.mark.parametrize("clip", [False, True])
def test_a_step_reads_no_values_at_all(clip: bool) -> None:
    named = {name: nn.Parameter(p.detach().to("meta")) for name, p in parameters().items()}  # meta tensors have none
    optimizer = build_optimizer(named, "lars", lr=0.1, weight_decay=0.1, clip=clip)
    for p in named.values():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert set(optimizer.state) == set(named.values())


def test_off_the_cpu_a_step_makes_as_many_calls_for_many_tensors_as_for_few() -> None:
    def calls(tensors: int) -> int:
        weights = [nn.Parameter(torch.ones(2, 2, device="meta")) for _ in range(tensors)]
        biases = [nn.Parameter(torch.ones(2, device="meta")) for _ in range(tensors)]
        optimizer = LARS([*weights, *biases], lr=0.1, weight_decay=0.1, clip=True)
        for p in (*weights, *biases):
            p.grad = torch.zeros_like(p)
        optimizer.step()  # makes the buffers
        with NoWaiting() as mode:
            optimizer.step()
        return mode.calls

    assert calls(3) == calls(50) < 30


def test_one_tensor_at_a_time_or_many_are_bit_for_bit_the_same() -> None:
    ends = []
    for foreach in (False, True):
        named = parameters(torch.float32)
        optimizer = LARS(named.values(), lr=0.2, weight_decay=1e-2, foreach=foreach)
        run(optimizer, named, gradients(named, 20), RATES[:20])
        ends.append(named)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("foreach", [False, True])
def test_dtypes_and_devices_may_be_mixed(foreach: bool) -> None:
    alone = {}
    for dtype in (torch.float32, torch.float64):
        named = parameters(dtype)
        run(LARS(named.values(), lr=0.2, weight_decay=1e-2, foreach=foreach), named, gradients(named, 5), RATES[:5])
        alone |= {f"{dtype}.{name}": p for name, p in named.items()}
    mixed = {f"{dtype}.{n}": p for dtype in (torch.float32, torch.float64) for n, p in parameters(dtype).items()}
    elsewhere = nn.Parameter(torch.ones(2, 2, device="meta"))
    elsewhere.grad = torch.ones_like(elsewhere)
    given = [{name: step[name.rpartition(".")[2]] for name in mixed} for step in gradients(parameters(), 5)]
    optimizer = LARS([elsewhere, *mixed.values()], lr=0.2, weight_decay=1e-2, foreach=foreach)
    run(optimizer, mixed, given, RATES[:5])
    assert all(torch.equal(mixed[name], alone[name]) for name in mixed)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parameters_of_16_bits_are_rounded_once(dtype: torch.dtype, foreach: bool) -> None:
    p, g = draws(40, 50).to(dtype), (1e-2 * draws(40, 50, seed=1)).to(dtype)
    parameter = nn.Parameter(p.clone())
    parameter.grad = g.clone()
    optimizer = LARS([parameter], lr=0.5, weight_decay=1e-4, foreach=foreach)
    optimizer.step()
    total = g.double() + 1e-4 * p.double()
    expected = (0.001 * p.double().norm() / total.norm() * total).to(dtype)
    m = optimizer.state[parameter]["momentum_buffer"]
    assert m.dtype == dtype
    assert (m != expected).float().mean() < 0.01  # float32 and float64 may round a tie apart
    assert torch.equal(parameter.detach(), (p.float() - 0.5 * m.float()).to(dtype))


def test_a_trust_ratio_too_large_for_float16_is_not_infinite() -> None:
    p, g = torch.full((10, 10), 300.0, dtype=torch.float16), torch.full((10, 10), 6e-8, dtype=torch.float16)
    torch.testing.assert_close(moved(p, g, lr=1.0).float(), torch.full((10, 10), -0.25))  # 0.3, in steps of 0.25


def test_gradients_are_left_as_they_were() -> None:
    for foreach in (False, True):
        named = parameters()
        optimizer = LARS(named.values(), lr=0.2, weight_decay=0.1, foreach=foreach)
        given = gradients(named, 2)
        run(optimizer, named, given, [0.1, 0.1])
        assert all(torch.equal(p.grad, given[-1][name]) for name, p in named.items() if p.grad is not None)


def test_parameters_without_a_gradient_are_left_alone() -> None:
    named = parameters()
    before = copy.deepcopy(named)
    optimizer = build_optimizer(named, "lars", lr=0.2, weight_decay=0.1)
    named["linear"].grad = torch.ones_like(named["linear"])
    optimizer.step()
    assert set(optimizer.state) == {named["linear"]}
    assert all(torch.equal(named[n], before[n]) == (n != "linear") for n in named)
    LARS(parameters().values(), lr=0.1).step()


def test_sparse_gradients_are_refused_before_anything_has_changed() -> None:
    weight = nn.Parameter(torch.ones(3, 3))
    weight.grad = torch.ones_like(weight)
    table = nn.Embedding(3, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match=r"shape \(3, 2\) is sparse: build its layer with sparse=False"):
        LARS([{"params": [weight]}, {"params": table.parameters()}], lr=0.1).step()
    assert bool((weight == 1).all())


def test_a_closure_is_evaluated_with_gradients() -> None:
    p = nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([p], lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 4.0
    torch.testing.assert_close(p.detach(), torch.full((2, 2), 1 - 0.1 * 0.001))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"lr": -1.0}, "lr of LARS is -1.0; give a number from 0"),
        ({"lr": float("nan")}, "lr of LARS is nan"),
        ({"momentum": 1.0}, r"momentum of LARS is 1.0; give a number in \[0, 1\)"),
        ({"weight_decay": -1e-6}, "weight_decay of LARS is -1e-06"),
        ({"trust": 0.0}, "trust of LARS is 0.0; give a number above 0"),
    ],
)
def test_values_out_of_range_are_refused_by_name(bad: dict[str, float], message: str) -> None:
    p = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(ValueError, match=message):
        LARS([p], **{"lr": 0.1, **bad})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        LARS([{"params": [p], **bad}], lr=0.1)


# --- Resuming -------------------------------------------------------------------------------------------------------


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    return net.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_run_resumed_through_files_is_bit_for_bit_the_one_that_was_not(
    dtype: torch.dtype, clip: bool, tmp_path: Path
) -> None:
    def build(net: nn.Module, **options: Any) -> torch.optim.Optimizer:
        return build_optimizer(net, "lars", lr=0.1, weight_decay=0.1, **options)

    def moving(net: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
        for number in numbers:
            for i, p in enumerate(net.parameters()):
                p.grad = draws(*p.shape, seed=31 * number + i).to(p)
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * (number + 1) * group["lr_scale"]
            optimizer.step()

    straight = network().to(dtype)
    optimizer = build(straight, trust=0.02, clip=clip, vectors_lr=0.01)
    moving(straight, optimizer, range(3))
    tensors, scalars = state_tensors(optimizer, straight)
    assert set(tensors) == {f"{name}/momentum_buffer" for name, _ in straight.named_parameters()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "o.safetensors")
    text = json.dumps(scalars)
    resumed = copy.deepcopy(straight)
    moving(straight, optimizer, range(3, 8))

    other = build(resumed)  # trust, clip and the vectors' rate are part of the state
    load_state(other, resumed, load_file(tmp_path / "o.safetensors"), json.loads(text))
    moving(resumed, other, range(3, 8))
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))
    for p, q in zip(straight.parameters(), resumed.parameters(), strict=True):
        m, n = optimizer.state[p]["momentum_buffer"], other.state[q]["momentum_buffer"]
        assert torch.equal(m, n)
        assert m.stride() == n.stride() == p.stride()


def test_how_a_step_is_computed_is_no_part_of_the_state() -> None:
    net = network()
    optimizer = build_optimizer(net, "lars", lr=0.1)
    _, scalars = state_tensors(optimizer, net)
    assert all("foreach" not in group for group in scalars["groups"])


def test_the_rate_may_be_inside_of_the_momentum_or_outside_as_the_vector_says() -> None:
    expected = {True: [2.9939004, 3.9926997], False: [2.9963304, 3.9959397]}
    for inside, values in expected.items():
        p = nn.Parameter(torch.tensor([[3.0, 4.0]], dtype=torch.float64))  # a matrix: vectors are not adapted
        optimizer = LARS([p], lr=1.0, momentum=0.9, trust=0.001, rate_in_momentum=inside)
        for rate, gradient in ((1.0, [0.6, 0.8]), (0.1, [0.8, -0.6])):
            optimizer.param_groups[0]["lr"] = rate
            p.grad = torch.tensor([gradient], dtype=torch.float64)
            optimizer.step()
            if rate == 1.0:
                assert p[0].tolist() == pytest.approx([2.997, 3.996], rel=1e-12)
        assert p[0].tolist() == pytest.approx(values, rel=1e-9)


@pytest.mark.parametrize("clip", [False, True])
def test_with_the_rate_inside_of_the_momentum_it_equals_the_loops(clip: bool) -> None:
    named = parameters()
    given = gradients(named, len(RATES))
    start = {name: p.detach().flatten().tolist() for name, p in named.items()}
    optimizer = build_optimizer(
        named, "lars", lr=0.2, weight_decay=1e-2, momentum=0.9, trust=0.02, clip=clip, rate_in_momentum=True
    )
    run(optimizer, named, given, RATES)
    for name, p in named.items():
        expected = oracle.lars(
            start[name],
            [step[name].flatten().tolist() for step in given],
            RATES,
            weight_decay=1e-2,
            trust=0.02,
            adapt=p.ndim != 1,
            clip=clip,
            rate_in_momentum=True,
        )
        assert p.detach().flatten().tolist() == pytest.approx(expected, rel=1e-9), name
