"""What batch norm sees: the batch of all processes, or no data yet; and passes that its running statistics ignore."""

import contextlib
import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from barlow.distributed import World
from barlow.linalg import at_least_float32


@contextlib.contextmanager
def synchronized(network: nn.Module, world: World) -> Iterator[None]:
    """Inside, the batch norm of a network sees the rows of all processes; with one process nothing changes.

    The norms are taken out and put back afterwards; parameters and buffers stay the same tensors all along. On CUDA
    torch's SyncBatchNorm takes their place, elsewhere `SynchronizedBatchNorm`: torch's takes no CPU tensors.

    Raises:
        ValueError: a batch norm with a forward pass or hooks of its own, which the other would not have.
    """
    replaced: list[tuple[dict[str, nn.Module | None], str, nn.Module]] = []
    if world.size > 1:
        made: dict[nn.Module, nn.Module] = {}  # a norm that has two names stays one
        for parent in list(network.modules()):
            for name, child in parent._modules.items():
                if isinstance(child, _BatchNorm):
                    replaced.append((parent._modules, name, child))
                    if child not in made:
                        made[child] = _replacement(child, world)
        for members, name, norm in replaced:
            members[name] = made[norm]
    try:
        yield
    finally:
        for members, name, norm in replaced:
            norm.training = members[name].training  # type: ignore[union-attr]
            members[name] = norm


def _replacement(norm: _BatchNorm, world: World) -> nn.Module:
    from timm.layers import BatchNormAct2d, convert_sync_batchnorm

    known = (_BatchNorm.forward, BatchNormAct2d.forward)
    if type(norm).forward not in known or "forward" in vars(norm) or norm._forward_hooks or norm._forward_pre_hooks:
        raise ValueError(
            f"the encoder has a batch norm with a forward pass or hooks of its own ({type(norm).__name__}), which "
            "cannot be synchronised between processes: use torch's BatchNorm and put the rest into a layer after it, "
            "or train in one process"
        )
    if world.device.type == "cuda":
        converted: nn.Module = convert_sync_batchnorm(norm)
        return converted
    return SynchronizedBatchNorm(norm, world)


class SynchronizedBatchNorm(_BatchNorm):
    """Batch norm over the batch of all processes, on any device; in eval mode, batch norm.

    Every process has the same number of values a channel. Mean and variance over all of them come from each process's
    own (Chan et al. 1983: variances add up with the variance of the means), so nothing cancels.

    Args:
        norm: whose parameters, buffers and settings these are: torch's, or one of timm's that has an activation in it.
        world: the processes.
    """

    def __init__(self, norm: _BatchNorm, world: World) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self._parameters, self._buffers = norm._parameters, norm._buffers
        self.training, self.world = norm.training, world
        # timm's BatchNormAct2d: what comes after the norm.
        self.drop: nn.Module = getattr(norm, "drop", nn.Identity())
        self.act: nn.Module = getattr(norm, "act", nn.Identity())

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"batch norm takes (n, c, ...), got shape {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if not self.training:
            return self._finished(super().forward(input))
        out, mean, variance = _Normalized.apply(input, self.weight, self.bias, self.eps, self.world)
        if self.track_running_stats and self.running_mean is not None:
            self._remember(mean, variance, self.world.size * (input.numel() // input.shape[1]))
        return self._finished(out)

    def _finished(self, normalized: Tensor) -> Tensor:
        finished: Tensor = self.act(self.drop(normalized))
        return finished

    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        with torch.no_grad():
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            assert self.momentum is not None or self.num_batches_tracked is not None
            new = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked or 1)
            self.running_mean.lerp_(mean.to(self.running_mean), new)
            self.running_var.lerp_((variance * (count / max(count - 1, 1))).to(self.running_var), new)


class _Normalized(torch.autograd.Function):
    """(x - mean) / √(var + eps) · weight + bias with mean and variance over the values of all processes.

    Returns the population mean and variance too, for the running statistics; they pass no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, world: World
    ) -> tuple[Tensor, Tensor, Tensor]:
        exact = at_least_float32(x)
        variance, mean = torch.var_mean(exact, [i for i in range(x.ndim) if i != 1], correction=0)
        means, variances = world.collect(torch.stack([mean, variance])).unbind(1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        scale = (variance + eps).rsqrt()
        normalized = (exact - _channels(mean, x)) * _channels(scale, x)
        if weight is not None:
            normalized = normalized * _channels(weight, x)
        if bias is not None:
            normalized = normalized + _channels(bias, x)
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.world, ctx.bias_dtype = world, bias.dtype if bias is not None else None
        ctx.mark_non_differentiable(mean, variance)
        return normalized.to(x.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        exact, g = at_least_float32(x), at_least_float32(gradient)
        normalized = (exact - _channels(mean, x)) * _channels(scale, x)
        over = [i for i in range(x.ndim) if i != 1]
        to_bias, to_weight = g.sum(over), (g * normalized).sum(over)
        # The statistics belong to all processes: what every process's loss wants of them is added up. The parameters'
        # gradients stay this process's own; the mean over processes is taken with all others'.
        count = ctx.world.size * (x.numel() // x.shape[1])
        wanted_bias, wanted_weight = (ctx.world.total(torch.stack([to_bias, to_weight])) / count).unbind(0)
        passed = g - _channels(wanted_bias, x) - normalized * _channels(wanted_weight, x)
        passed = passed * _channels(scale if weight is None else scale * weight, x)
        wanted = ctx.needs_input_grad
        return (
            passed.to(x.dtype),
            to_weight.to(weight) if wanted[1] else None,
            to_bias.to(ctx.bias_dtype) if wanted[2] else None,
            None,
            None,
        )


def _channels(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.ndim - 2))


@contextlib.contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Forward passes inside leave the running statistics of batch norm alone; what comes out is the same.

    For passes that are made a second time: every image counts once.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    settings = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, settings, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def recalibrated(encoder: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """A copy with every batch-norm scale 1 and running statistics measured over `batches`.

    As built, an untrained ResNet is a poor baseline in eval mode: the residual branches are multiplied by zero
    (`zero_init_last`) and the running statistics are those of no data at all. Random features deserve better.

    Convention: the statistics are the plain average over the batches (not the exponential one), each batch weighing the
    same. Only batch norm is in train mode while they are measured: dropout and stochastic depth stay off.

    Args:
        encoder: left as it is. Without batch norm, the copy is equal to it.
        batches: normalised views on the encoder's device.

    Returns:
        The copy, in eval mode.

    Raises:
        ValueError: there are no batches.
    """
    copied = copy.deepcopy(encoder).eval()
    norms = [module for module in copied.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        if norm.affine:
            nn.init.ones_(norm.weight)
        norm.reset_running_stats()
        norm.momentum = None  # torch's name for the cumulative average
        norm.train()
    seen = 0
    with torch.no_grad():
        for batch in batches:
            copied(batch)
            seen += 1
    if not seen:
        raise ValueError("no batches to measure batch-norm statistics on; give at least one batch of images")
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return copied.eval()
