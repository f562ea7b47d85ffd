"""Synchronised batch norm among one process is batch norm, in every precision; several are in `tests/equivalence`."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from small_encoders import Tailed
from torch import Tensor, nn

from barlow.distributed import World
from barlow.nets.grouped_norms import GroupedBatchNorm, Grouping, grouped
from barlow.nets.norms import SynchronizedBatchNorm, statistics_kept, synchronized

ALLOWED = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}


def passes(norm: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Two passes in train mode over rows far from 0, one in eval mode, and the gradient of them all."""
    generator = torch.Generator().manual_seed(0)
    batches = [(5 + 2 * torch.randn(6, 3, 4, 4, generator=generator)).to(dtype).requires_grad_() for _ in range(3)]
    weights = [torch.randn(6, 3, 4, 4, generator=generator).to(dtype) for _ in range(3)]
    made = [norm(batches[0]), norm(batches[1]), norm.eval()(batches[2])]
    torch.autograd.backward(made, weights)
    found = {f"output {i}": out.detach() for i, out in enumerate(made)}
    found |= {f"gradient of input {i}": batch.grad for i, batch in enumerate(batches) if batch.grad is not None}
    found |= {f"gradient of {name}": p.grad for name, p in norm.named_parameters() if p.grad is not None}
    return found | {f"buffer {name}": buffer for name, buffer in norm.named_buffers()}


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("dtype", ALLOWED)
def test_among_one_process_it_is_batch_norm(dtype: torch.dtype, momentum: float | None) -> None:
    def batch_norm() -> nn.BatchNorm2d:
        norm = nn.BatchNorm2d(3, momentum=momentum)
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
            norm.bias.copy_(torch.tensor([0.0, -1.0, 3.0]))
        return norm.to(torch.float64 if dtype == torch.float64 else torch.float32)

    expected = passes(batch_norm(), dtype)
    found = passes(SynchronizedBatchNorm(batch_norm(), World(torch.device("cpu"))), dtype)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # Whatever rows come in, statistics and parameters' gradients are sums in single precision or better.
        rounded = name.startswith(("output", "gradient of input"))
        error = ALLOWED[dtype] if rounded else min(ALLOWED[dtype], 1e-5)
        assert found[name].dtype == value.dtype, name
        assert float((found[name] - value).abs().max()) <= error * float(value.abs().max()), name


TWO = World(torch.device("cpu"), 0, 2)


@pytest.mark.parametrize(
    ("inside", "norm"),
    [
        (lambda network: synchronized(network, TWO), SynchronizedBatchNorm),
        (lambda network: grouped(network, TWO, Grouping(rows=4, seed=0, network="key")), GroupedBatchNorm),
    ],
)
def test_norms_are_exchanged_inside_and_back_outside_with_the_same_tensors(
    inside: Callable[[nn.Module], AbstractContextManager[object]], norm: type[nn.Module]
) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4, affine=False)))
    network.add_module("again", network[1])  # a norm that has two names
    before, names = list(network.modules()), list(network.state_dict())
    tensors = [*network.parameters(), *network.buffers()]
    with inside(network):
        norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        assert [type(module) for module in norms] == [norm] * 2
        assert network.again is network[1]
        assert list(network.state_dict()) == names
        assert all(a is b for a, b in zip(tensors, [*network.parameters(), *network.buffers()], strict=True))
    assert list(network.modules()) == before


def test_with_one_process_nothing_is_exchanged() -> None:
    network = nn.Sequential(Tailed(3))
    with synchronized(network, World(torch.device("cpu"))):
        assert type(network[0]) is Tailed


@pytest.mark.parametrize("how", ["a forward pass", "a hook"])
def test_a_batch_norm_that_does_more_is_refused_in_several_processes(how: str) -> None:
    norm = Tailed(3) if how == "a forward pass" else nn.BatchNorm2d(3)
    if how == "a hook":
        norm.register_forward_hook(lambda module, inputs, output: output * 2)
    network = nn.Sequential(norm)
    with pytest.raises(ValueError, match="of its own"), synchronized(network, TWO):
        pass
    assert network[0] is norm


def test_a_batch_norm_without_bias_has_a_gradient() -> None:
    norm = nn.BatchNorm1d(3)
    norm.register_parameter("bias", None)
    made = SynchronizedBatchNorm(norm, World(torch.device("cpu")))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    made(x).square().sum().backward()
    found, norm.weight.grad = norm.weight.grad, None
    norm(x).square().sum().backward()
    torch.testing.assert_close(found, norm.weight.grad)


def test_statistics_kept_leaves_a_counter_for_norms_that_ask_for_one() -> None:
    """torch's SyncBatchNorm asserts that there is one."""
    norm = nn.SyncBatchNorm(3)
    with statistics_kept(norm):
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
    assert int(norm.num_batches_tracked) == 0
