"""What batch norm sees: the rows of all processes. And passes that its running statistics do not count."""

import contextlib
import copy
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from barlow.distributed import World
from barlow.linalg import at_least_float32


@contextlib.contextmanager
def synchronized(network: nn.Module, world: World) -> Iterator[None]:
    """Inside, the batch norm of a network sees the rows of all processes. With one process nothing changes.

    On CUDA torch's SyncBatchNorm takes the norms' places, elsewhere `SynchronizedBatchNorm`, because torch's takes no
    CPU tensors. Norms that are grouped already (`barlow.nets.grouped_norms`) stay as they are: a group knows its rows
    in every process.

    Raises:
        ValueError: a batch norm has a forward pass or hooks of its own, which the other would not have.
    """

    def made(norm: _BatchNorm) -> nn.Module:
        if isinstance(norm, StandIn):
            return norm
        check_nothing_of_its_own(norm, "synchronised between processes", "train in one process")
        if world.device.type == "cuda":
            from timm.layers import convert_sync_batchnorm

            converted: nn.Module = convert_sync_batchnorm(norm)
            return converted
        return SynchronizedBatchNorm(norm, world)

    with exchanged(network, made) if world.size > 1 else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def exchanged(network: nn.Module, make: Callable[[_BatchNorm], nn.Module]) -> Iterator[None]:
    """Inside, `make(norm)` stands in the place of every batch norm of a network; afterwards the norms are back.

    Parameters and buffers must stay the same tensors all along, so that optimizers and checkpoints notice nothing.
    """
    replaced: list[tuple[dict[str, nn.Module | None], str, nn.Module]] = []
    made: dict[nn.Module, nn.Module] = {}  # by norm, so that a norm with two names gets one replacement
    for parent in list(network.modules()):
        for name, child in parent._modules.items():
            if isinstance(child, _BatchNorm) and not has_fixed_statistics(child):
                replaced.append((parent._modules, name, child))
                if child not in made:
                    made[child] = make(child)
    for members, name, norm in replaced:
        members[name] = made[norm]
    try:
        yield
    finally:
        for members, name, norm in replaced:
            norm.training = members[name].training  # type: ignore[union-attr]
            members[name] = norm


def fix_statistics(network: nn.Module) -> int:
    """From now on, the batch norm of a network normalises by its running statistics, in training too.

    A network that starts from given weights has the statistics of millions of images. A batch of a few dozen crops is a
    poor replacement: on aerial photos, statistics of the photos themselves cost a pretrained network nine points of
    kNN. Scales and shifts are trained as before.

    Returns:
        The number of norms.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for norm in norms:
        norm.eval()
        norm.train = types.MethodType(_stays, norm)  # type: ignore[method-assign]
    return len(norms)


def _stays(norm: _BatchNorm, mode: bool = True) -> _BatchNorm:
    """Takes the place of `train` in a norm whose statistics are fixed."""
    return norm


def has_fixed_statistics(norm: _BatchNorm) -> bool:
    """Whether `fix_statistics` has been here."""
    return "train" in vars(norm)


def check_nothing_of_its_own(norm: _BatchNorm, what: str, instead: str) -> None:
    """Refuses a batch norm that does more than torch's or timm's does: a stand-in would leave that out.

    Args:
        norm: of an encoder.
        what: could not be done to it, for example `grouped`.
        instead: what the user can do, other than to change the encoder.

    Raises:
        ValueError: it has a forward pass or hooks of its own.
    """
    from timm.layers import BatchNormAct2d

    known = (_BatchNorm.forward, BatchNormAct2d.forward)
    if type(norm).forward not in known or "forward" in vars(norm) or norm._forward_hooks or norm._forward_pre_hooks:
        raise ValueError(
            f"the encoder has a batch norm with a forward pass or hooks of its own ({type(norm).__name__}), which "
            f"cannot be {what}: use torch's BatchNorm and put the rest into a layer after it, or {instead}"
        )


class StandIn(_BatchNorm):
    """A batch norm in the place of another, whose parameters, buffers and settings it has. In eval mode they are equal.

    In train mode a subclass says how rows are normalised.

    Args:
        norm: torch's, or one of timm's that has dropout and an activation in it, which then are applied here.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self._parameters, self._buffers = norm._parameters, norm._buffers
        self.training = norm.training
        # timm's BatchNormAct2d has these two; torch's norms have neither.
        self.drop: nn.Module = getattr(norm, "drop", nn.Identity())
        self.act: nn.Module = getattr(norm, "act", nn.Identity())

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"batch norm takes (n, c, ...), got shape {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        normalized = self._normalized(input) if self.training else super().forward(input)
        finished: Tensor = self.act(self.drop(normalized))
        return finished

    def _normalized(self, input: Tensor) -> Tensor:
        raise NotImplementedError

    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Moves the running statistics towards a mean and a population variance over `count` values a channel."""
        if not self.track_running_stats or self.running_mean is None:
            return
        assert self.running_var is not None
        with torch.no_grad():
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            assert self.momentum is not None or self.num_batches_tracked is not None
            new = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked or 1)
            self.running_mean.lerp_(mean.to(self.running_mean), new)
            self.running_var.lerp_((variance * (count / max(count - 1, 1))).to(self.running_var), new)


class SynchronizedBatchNorm(StandIn):
    """Batch norm over the batch of all processes, on any device.

    Every process has the same number of values a channel. Mean and variance over all of them come from the means and
    variances of the processes: the variances' mean plus the variance of the means (Chan et al. 1983). No large sums are
    subtracted from each other, so nothing cancels.

    Args:
        norm: whose place it takes.
        world: the processes.
    """

    def __init__(self, norm: _BatchNorm, world: World) -> None:
        super().__init__(norm)
        self.world = world

    def _normalized(self, input: Tensor) -> Tensor:
        out, mean, variance = _Normalized.apply(input, self.weight, self.bias, self.eps, self.world)
        self._remember(mean, variance, self.world.size * (input.numel() // input.shape[1]))
        normalized: Tensor = out
        return normalized


class _Normalized(torch.autograd.Function):
    """(x - mean) / √(var + eps) · weight + bias, with mean and variance over the values of all processes.

    It returns mean and population variance as well, for the running statistics. No gradient passes through them.
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
        # The rows of every process moved the statistics, so the gradients that reach them in all processes are added
        # up. The gradients of weight and bias stay this process's own: they are averaged later, with all parameters'.
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
    """Inside, forward passes leave the running statistics of batch norm alone. Their outputs are the same.

    This is for passes that are made a second time, so that every image counts once.
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
    """A copy whose batch norms have scale 1 and running statistics that were measured over `batches`.

    An untrained ResNet, as it is built, makes a poor baseline in eval mode: its residual branches are multiplied by
    zero (`zero_init_last`), and its running statistics are those of no data at all. Random features deserve better.

    Convention: the statistics are the plain mean over the batches, not the exponential one, and every batch weighs the
    same. Only batch norm is in train mode while they are measured; dropout and stochastic depth are off.

    Args:
        encoder: left as it is. Without batch norm, the copy equals it.
        batches: normalised views, on the encoder's device.

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
        norm.momentum = None  # which is how torch is asked for the plain mean
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
