"""Batch norm in groups in one process, against loops over the groups; several are in `tests/equivalence`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations

import numpy as np
import pytest
import torch
from oracles.grouped_norm import normalized
from small_encoders import Tailed
from torch import Tensor, nn

from barlow.distributed import World
from barlow.nets import group_normalized
from barlow.nets.building import build_encoder
from barlow.nets.grouped_norms import GroupedBatchNorm, Grouping, Groups, grouped
from barlow.nets.norms import SynchronizedBatchNorm, statistics_kept, synchronized
from barlow.nets.recompute import recomputed

SINGLE = World(torch.device("cpu"))
TWO = World(torch.device("cpu"), 0, 2)
ALLOWED = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}
QUERY = Grouping(rows=4, seed=0, network="query")
KEY = Grouping(rows=4, seed=0, network="key")


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(grouping: Grouping, step: int, batch_size: int, world: World = SINGLE) -> Groups:
    groups = Groups(grouping, world)
    groups.draw(step, batch_size)
    return groups


def by_hook(norm: nn.Module, grouping: Grouping, step: int, x: Tensor) -> Tensor:
    """Through a network that sorts the rows by their groups before the norm, and puts them back."""
    network = nn.Sequential(norm)
    with grouped(network, SINGLE, grouping) as groups:
        groups.draw(step, len(x))
        made: Tensor = network(x)
    return made


def where_they_are(norm: nn.Module, grouping: Grouping, step: int, x: Tensor) -> Tensor:
    """By the arithmetic for rows that lie anywhere."""
    made: Tensor = GroupedBatchNorm(norm, drawn(grouping, step, len(x)))(x)
    return made


HOW = pytest.mark.parametrize("how", [by_hook, where_they_are])


def sets(grouping: Grouping, step: int, batch_size: int = 24) -> set[frozenset[int]]:
    """The groups, whatever their order and that of their rows."""
    return {frozenset(group) for group in grouping.members(step, batch_size).tolist()}


# --- Which rows go together -----------------------------------------------------------------------------------------


def test_every_row_of_the_batch_is_in_one_group() -> None:
    for rows, batch_size in ((2, 6), (32, 256), (5, 5)):
        members = Grouping(rows=rows, seed=1, network="key").members(3, batch_size)
        assert members.shape == (batch_size // rows, rows)
        assert sorted(members.flatten().tolist()) == list(range(batch_size))


def test_groups_are_a_function_of_seed_step_and_network_that_never_changes() -> None:
    assert Grouping(rows=4, seed=0, network="key").members(7, 24).tolist() == KEY.members(7, 24).tolist()
    # The numbers of the first version: with others, a resumed run would not go on as it was.
    assert Grouping(rows=3, seed=5, network="key").members(2, 9).tolist() == [[7, 5, 4], [6, 2, 8], [1, 3, 0]]


def test_query_and_key_network_have_other_groups_in_every_step() -> None:
    for step in range(200):
        assert sets(QUERY, step) != sets(KEY, step)


def test_rows_that_share_a_query_group_share_a_key_group_no_more_often_than_by_chance() -> None:
    together: list[bool] = []
    for step in range(400):
        query, key = (
            {frozenset(pair) for group in sets(grouping, step) for pair in combinations(sorted(group), 2)}
            for grouping in (QUERY, KEY)
        )
        together += [pair in key for pair in query]
    chance = (QUERY.rows - 1) / (24 - 1)
    assert np.mean(together) == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / len(together)))


def test_groups_differ_between_steps_and_between_seeds() -> None:
    steps = [frozenset(sets(KEY, step)) for step in range(100)]
    seeds = [frozenset(sets(Grouping(rows=4, seed=seed, network="key"), 0)) for seed in range(100)]
    assert len(set(steps)) == len(set(seeds)) == 100


@pytest.mark.parametrize(("batch_size", "allowed"), [(100, "96 or 128"), (20, "32"), (0, "32")])
def test_a_batch_that_is_no_multiple_of_the_groups_is_refused_with_the_arithmetic(
    batch_size: int, allowed: str
) -> None:
    with pytest.raises(ValueError, match=rf"a batch of {batch_size} .* groups of 32 rows .*--batch-size {allowed},"):
        Grouping(rows=32, seed=0, network="key").members(0, batch_size)


def test_groups_of_one_row_are_refused() -> None:
    with pytest.raises(ValueError, match="groups of 1 rows: give 2 or more"):
        Grouping(rows=1, seed=0, network="key")


# --- Values, gradients and running statistics -----------------------------------------------------------------------


def norm_of(channels: int, kind: str, momentum: float | None = 0.1) -> nn.BatchNorm2d:
    """A batch norm with trained-looking weights and running statistics, which takes an input of any shape."""
    norm = nn.BatchNorm2d(channels, momentum=momentum, affine=kind != "plain").double()
    with torch.no_grad():
        norm.running_mean.copy_(draws(channels, seed=1))
        norm.running_var.copy_(draws(channels, seed=2).square() + 0.5)
        if kind != "plain":
            norm.weight.copy_(draws(channels, seed=3))
            norm.bias.copy_(draws(channels, seed=4))
    if kind == "scale":
        norm.register_parameter("bias", None)
    return norm


@pytest.mark.parametrize("cached", [1, 50, 1 << 18, None])
@pytest.mark.parametrize("kind", ["affine", "scale", "plain"])
@pytest.mark.parametrize("shape", [(12, 3), (12, 3, 5), (12, 3, 4, 2), (12, 3, 1, 1), (12, 3, 2, 2, 3)])
def test_values_gradients_and_statistics_are_those_of_the_loops(
    shape: tuple[int, ...], kind: str, cached: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = by_hook if cached is None else where_they_are
    if cached is not None:  # rows are cut into many parts, and into one
        monkeypatch.setattr(group_normalized, "CACHED_VALUES", cached)
    x = (5 + 2 * draws(*shape)).requires_grad_()
    towards = draws(*shape, seed=9)
    norm = norm_of(3, kind)
    expected, mean, variance = normalized(x, KEY.members(1, 12).tolist(), norm.eps)
    over = (1, -1, *[1] * (len(shape) - 2))
    if norm.weight is not None:
        expected = expected * norm.weight.view(over)
    if norm.bias is not None:
        expected = expected + norm.bias.view(over)
    inputs = [x, *norm.parameters()]
    gradients = torch.autograd.grad(expected, inputs, towards)
    running = [0.9 * norm.running_mean + 0.1 * mean, 0.9 * norm.running_var + 0.1 * variance]

    made = how(norm, KEY, 1, x)
    torch.testing.assert_close(made, expected, rtol=1e-12, atol=1e-12)
    for found, gradient in zip(torch.autograd.grad(made, inputs, towards), gradients, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-11, atol=1e-11)
    for found, value in zip((norm.running_mean, norm.running_var), running, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-12, atol=1e-12)
    assert int(norm.num_batches_tracked) == 1


@HOW
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_lower_precision_statistics_and_gradients_of_parameters_are_still_float32(
    dtype: torch.dtype, how: Callable[..., Tensor]
) -> None:
    x, towards = (5 + 2 * draws(12, 3, 4, 4)).to(dtype), draws(12, 3, 4, 4, seed=9).to(dtype)
    found, expected = {}, {}
    for values, wide in ((found, torch.float32), (expected, torch.float64)):
        norm = norm_of(3, "affine").to(wide)
        given = x.to(wide if wide == torch.float64 else dtype).detach().requires_grad_()
        made = how(norm, KEY, 1, given)
        made.backward(towards.to(made.dtype))
        values |= {
            "output": made.detach(),
            "gradient of input": given.grad,
            "weight": norm.weight.grad,
            "bias": norm.bias.grad,
        }
        values |= {"mean": norm.running_mean, "variance": norm.running_var}
    for name, value in expected.items():
        rounded = name in ("output", "gradient of input")
        error = float((found[name].double() - value).abs().max() / value.abs().max())
        assert error < (ALLOWED[dtype] if rounded else 1e-5), name
        assert found[name].dtype == (dtype if rounded else torch.float32), name


@HOW
def test_values_far_from_zero_do_not_cancel(how: Callable[..., Tensor]) -> None:
    norm = nn.BatchNorm1d(3, affine=False)
    x = 1000 + draws(12, 3)
    made = how(norm, KEY, 0, x.float())
    expected, _, variance = normalized(x.float().double(), KEY.members(0, 12).tolist(), norm.eps)
    torch.testing.assert_close(made.double(), expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(norm.running_var.double(), 0.9 + 0.1 * variance, rtol=1e-5, atol=0)


@HOW
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_group_of_the_whole_batch_is_batch_norm(
    momentum: float | None, layout: torch.memory_format, how: Callable[..., Tensor]
) -> None:
    plain, other = (norm_of(3, "affine", momentum) for _ in range(2))
    whole = Grouping(rows=12, seed=0, network="key")
    for seed in range(3):
        x = (5 + draws(12, 3, 4, 4, seed=seed)).contiguous(memory_format=layout).requires_grad_()
        expected, made = plain(x), how(other, whole, 0, x)
        torch.testing.assert_close(made, expected, rtol=1e-12, atol=1e-12)
        assert made.is_contiguous(memory_format=layout)
        towards = draws(12, 3, 4, 4, seed=10 + seed)
        for found, gradient in zip(
            torch.autograd.grad(made, [x, *other.parameters()], towards),
            torch.autograd.grad(expected, [x, *plain.parameters()], towards),
            strict=True,
        ):
            torch.testing.assert_close(found, gradient, rtol=1e-10, atol=1e-10)
    for found, value in zip(other.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(found, value)


def test_in_eval_mode_it_is_batch_norm_and_asks_for_no_groups() -> None:
    norm = norm_of(3, "affine").eval()
    x = draws(7, 3, 2, 2)
    assert torch.equal(GroupedBatchNorm(norm, Groups(KEY, SINGLE))(x), norm(x))


def test_a_query_and_its_key_are_normalised_with_other_rows() -> None:
    """The leak that groups are for: had both networks the same groups, equal inputs would give equal outputs."""
    query, key = nn.Sequential(nn.BatchNorm1d(3)), nn.Sequential(nn.BatchNorm1d(3))
    x = draws(24, 3).float()
    with grouped(query, SINGLE, QUERY) as of_queries, grouped(key, SINGLE, KEY) as of_keys:
        for step in range(20):
            of_queries.draw(step, 24)
            of_keys.draw(step, 24)
            assert not torch.allclose(query(x), key(x), atol=1e-2)


def test_the_views_of_a_step_are_grouped_alike_and_those_of_another_step_are_not() -> None:
    norm = nn.BatchNorm1d(3)
    groups = drawn(KEY, 0, 24)
    ours, x = GroupedBatchNorm(norm, groups), draws(24, 3).float()
    first = ours(x)
    assert torch.equal(ours(x), first)
    groups.draw(1, 24)
    assert not torch.allclose(ours(x), first, atol=1e-2)


# --- In a network ---------------------------------------------------------------------------------------------------


def test_synchronisation_leaves_grouped_norms_alone_and_takes_the_others() -> None:
    method = nn.ModuleDict({"key": nn.Sequential(nn.BatchNorm1d(3)), "query": nn.Sequential(nn.BatchNorm1d(3))})
    before = list(method.modules())
    with grouped(method["key"], TWO, KEY), synchronized(method, TWO):
        assert type(method["key"][0]) is GroupedBatchNorm
        assert type(method["query"][0]) is SynchronizedBatchNorm
    assert list(method.modules()) == before


def test_norms_that_are_synchronised_already_or_do_more_are_refused() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3))
    with synchronized(network, TWO), pytest.raises(ValueError, match="of its own"), grouped(network, TWO, KEY):
        pass
    with pytest.raises(ValueError, match=r"\(Tailed\), which cannot be grouped: .*train without groups"):
        grouped(nn.Sequential(Tailed(3)), SINGLE, KEY).__enter__()


def test_dropout_and_activation_of_timms_norms_come_after_the_norm() -> None:
    from timm.layers import BatchNormAct2d

    network = nn.Sequential(BatchNormAct2d(3, act_layer=nn.Tanh)).double()
    plain = nn.Sequential(nn.BatchNorm2d(3)).double()
    x = draws(12, 3, 2, 2)
    made = []
    for net in (network, plain):
        with grouped(net, SINGLE, KEY) as groups:
            groups.draw(0, 12)
            made.append(net(x))
    assert torch.equal(made[0], made[1].tanh())


def small() -> nn.Module:
    options = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
    return build_encoder("resnet18", image_size=16, stem="small", options=options)


def found(network: nn.Module, context: Callable[[nn.Module], Iterator[object]]) -> list[Tensor]:
    x = draws(12, 3, 16, 16).float()
    with grouped(network, SINGLE, KEY) as groups, contextmanager(context)(network):
        groups.draw(0, 12)
        network(x).square().sum().backward()
    return [p.grad for p in network.parameters() if p.grad is not None] + list(network.buffers())


def test_with_activation_checkpointing_gradients_and_statistics_are_the_same_to_the_bit() -> None:
    def twice(network: nn.Module) -> Iterator[object]:
        with recomputed(network) as blocks:
            yield blocks

    def once(network: nn.Module) -> Iterator[object]:
        yield

    for again, straight in zip(found(small(), twice), found(small(), once), strict=True):
        assert torch.equal(again, straight)


def test_a_pass_whose_statistics_are_kept_counts_for_nothing() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3))
    with grouped(network, SINGLE, KEY) as groups, statistics_kept(network):
        groups.draw(0, 12)
        network(draws(12, 3).float())
    assert int(network[0].num_batches_tracked) == 0
    assert not network[0].running_mean.any()


def test_an_input_that_is_not_this_process_s_rows_of_the_batch_is_refused() -> None:
    for world, rows in ((SINGLE, 12), (TWO, 6)):
        norm = GroupedBatchNorm(nn.BatchNorm1d(3), drawn(KEY, 0, 12, world))
        with pytest.raises(ValueError, match=rf"was given 4 rows, and the groups are drawn for the {rows} that this"):
            norm(torch.zeros(4, 3))


def test_a_forward_pass_before_any_draw_is_refused() -> None:
    with pytest.raises(ValueError, match=r"call draw\(step, batch_size\) before a forward pass"):
        GroupedBatchNorm(nn.BatchNorm1d(3), Groups(KEY, SINGLE))(torch.zeros(12, 3))
