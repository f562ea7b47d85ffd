"""The arithmetic of batch norm in groups: each row is normalised with its group's mean and variance.

It is there twice. Where rows lie group by group, torch's own batch norm does it for each group, which is the fastest
there is. Where the rows of a group lie anywhere, in this process and in others, they stay there and statistics travel.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from barlow.distributed import World
from barlow.linalg import at_least_float32

CACHED_VALUES = 1 << 18
"""How many values a CPU core goes over several times in a row, because they stay in its cache."""


@dataclass(frozen=True)
class Drawn:
    """The groups of one step, seen from one process."""

    group: Int64[Tensor, " own"]
    """The group of each row that this process holds."""
    place: Int64[Tensor, "groups rows"]
    """Where each row of each group stands among the rows of this process; 0 for rows that another one holds."""
    elsewhere: Bool[Tensor, "groups rows"]
    """Which rows another process holds."""
    counts: Int[Tensor, "processes groups 1"]
    """How many rows of each group each process holds."""

    @property
    def rows(self) -> int:
        """Rows of a group."""
        return self.place.shape[1]

    def sums(self, values: Float[Tensor, "own c"]) -> Float[Tensor, "groups c"]:
        """The sum over this process's rows of each group.

        Rows are gathered group by group and then added, always in the same order. (`index_add` on a GPU would add them
        in any order, and a resumed run would not be the same to the bit.)
        """
        return values[self.place].masked_fill(self.elsewhere.unsqueeze(2), 0).sum(1)


def normalized(
    x: Float[Tensor, "own c *space"],
    weight: Float[Tensor, " c"] | None,
    bias: Float[Tensor, " c"] | None,
    eps: float,
    drawn: Drawn,
    world: World,
    sorted_rows: bool = False,
) -> tuple[Tensor, Float[Tensor, "groups c"], Float[Tensor, "groups c"]]:
    """(x - mean) / √(var + eps) · weight + bias, with mean and variance of the row's group.

    Args:
        x: the rows of this process.
        weight: of the norm; None: 1.
        bias: of the norm; None: 0.
        eps: of the norm.
        drawn: the groups.
        world: the processes that hold the batch together.
        sorted_rows: whether x has the rows of the first group, then those of the second, and so on. Only one process
            can have that.

    Returns:
        The normalised rows in the precision of x; the groups' means; the groups' population variances. No gradient
        passes through the last two.
    """
    made: tuple[Tensor, Tensor, Tensor]
    if sorted_rows:
        made = _NormalizedSorted.apply(x, weight, bias, eps, drawn.rows)
    else:
        made = _NormalizedAcross.apply(x, weight, bias, eps, drawn, world)
    return made


class _NormalizedSorted(torch.autograd.Function):
    """`normalized` for rows that lie group by group: torch's batch norm, for one group after the other."""

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "n c *space"], weight: Tensor | None, bias: Tensor | None, eps: float, rows: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        out, groups, values = torch.empty_like(x), len(x) // rows, rows * x[0, 0].numel()
        mean, variance, saved_mean, scale = at_least_float32(x[:0]).new_zeros(4, groups, x.shape[1]).unbind()
        for number, (group, to) in enumerate(zip(x.split(rows), out.split(rows), strict=True)):
            # With a momentum of 1 the running statistics become those of the group.
            running, results = (mean[number], variance[number]), (to, saved_mean[number], scale[number])
            torch.native_batch_norm(group, weight, bias, *running, True, 1.0, eps, out=results)
        variance *= (values - 1) / values  # torch's running variance is the unbiased one
        ctx.save_for_backward(x, weight, saved_mean, scale)
        ctx.rows, ctx.eps = rows, eps
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        passed, (_, of_weight, of_bias, *_) = torch.empty_like(x), ctx.needs_input_grad
        to_weight, to_bias = [], []
        parts = (tensor.split(ctx.rows) for tensor in (gradient, x, passed))
        for number, (g, group, to) in enumerate(zip(*parts, strict=True)):
            statistics = None, None, mean[number], scale[number]  # no running ones
            passed_here, weight_here, bias_here = torch.ops.aten.native_batch_norm_backward(
                g, group, weight, *statistics, True, ctx.eps, [True, of_weight, of_bias]
            )
            to.copy_(passed_here)
            to_weight.append(weight_here)
            to_bias.append(bias_here)
        return (
            passed,
            torch.stack(to_weight).sum(0) if of_weight else None,
            torch.stack(to_bias).sum(0) if of_bias else None,
            None,
            None,
        )


class _NormalizedAcross(torch.autograd.Function):
    """(x - mean) / √(var + eps) · weight + bias, with mean and variance of the row's group, whoever holds its rows.

    Rows stay where they are. Each row is first reduced to a mean and a sum of squares a channel; what is left to do for
    groups is done with those small tensors, in one exchange between processes. Then each row is scaled and shifted.

    It returns the groups' means and population variances as well, for the running statistics. No gradient passes
    through them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "own c *space"],
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        drawn: Drawn,
        world: World,
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = _statistics(x, drawn, world)
        scale = (variance + eps).rsqrt()
        gain = scale if weight is None else scale * weight
        shift = -mean * gain if bias is None else bias - mean * gain
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.drawn, ctx.world, ctx.bias_dtype = drawn, world, bias.dtype if bias is not None else None
        ctx.mark_non_differentiable(mean, variance)
        return _scaled(x, gain[drawn.group], shift[drawn.group]), mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        drawn, count = ctx.drawn, ctx.drawn.rows * x[0, 0].numel()
        to_bias, products = _products(gradient, x, mean[drawn.group])
        to_weight = products * scale[drawn.group]
        # The rows of every process moved a group's statistics, so the gradients that reach them in all processes are
        # added up. The gradients of weight and bias stay this process's own: they are averaged later, with all others.
        own = torch.stack([drawn.sums(to_bias), drawn.sums(to_weight)])
        wanted_bias, wanted_weight = (ctx.world.total(own) / count).unbind(0)
        gain = scale if weight is None else scale * weight
        # gain · (gradient - wanted_bias - scale · (x - mean) · wanted_weight), as one number for each of its factors:
        of_x = -gain * scale * wanted_weight
        shift = -of_x * mean - gain * wanted_bias
        passed = _combined(gradient, x, gain[drawn.group], of_x[drawn.group], shift[drawn.group])
        wanted = ctx.needs_input_grad
        return (
            passed,
            to_weight.sum(0).to(weight) if wanted[1] else None,
            to_bias.sum(0).to(ctx.bias_dtype) if wanted[2] else None,
            None,
            None,
            None,
        )


def _statistics(
    x: Float[Tensor, "own c *space"], drawn: Drawn, world: World
) -> tuple[Float[Tensor, "groups c"], Float[Tensor, "groups c"]]:
    """Mean and population variance of every group, over the rows of all processes.

    Source: Chan et al. 1983: the sum of squares about the common mean is the sum of those about each part's own mean,
    plus the parts' counts times the squared distances of their means. It is used twice, to put rows together within a
    process and then processes.
    """
    values = x[0, 0].numel()
    of_row, squares_of_row = _moments(x)
    counts = drawn.counts.to(of_row.dtype)
    mean = drawn.sums(of_row) / counts[world.rank].clamp(min=1)
    squares = drawn.sums(squares_of_row + values * (of_row - mean[drawn.group]).square())
    means, all_squares = world.collect(torch.stack([mean, squares])).unbind(1)
    mean = (counts * means).sum(0) / drawn.rows
    squares = all_squares.sum(0) + values * (counts * (means - mean).square()).sum(0)
    return mean, squares / (drawn.rows * values)


# --- What goes over all values: each function reads its input once --------------------------------------------------


def _parts(x: Tensor) -> list[slice]:
    """Cuts the rows into parts, so that several operations go over a part while it is in a CPU's cache.

    All rows at once would make a step of ResNet-18 at 32 pixels half as long again, in bfloat16. A GPU gets them at
    once.
    """
    most = max(1, CACHED_VALUES // max(1, x[0].numel())) if x.device.type == "cpu" else len(x)
    return [slice(start, start + most) for start in range(0, len(x), most)]


def _over_space(values: Float[Tensor, "n c *space"]) -> Float[Tensor, "n c"]:
    """The sum over all pixels of each row and channel."""
    return values.flatten(2).sum(2) if values.ndim > 2 else values


def _to_space(values: Float[Tensor, "n c"], like: Tensor) -> Tensor:
    """A value for each row and channel, in a shape that is broadcast over pixels."""
    return values.view(*values.shape, *[1] * (like.ndim - 2))


def _moments(x: Float[Tensor, "n c *space"]) -> tuple[Float[Tensor, "n c"], Float[Tensor, "n c"]]:
    """The mean of every row and channel, and the sum of squares about it."""
    means, squares = [], []
    for part in _parts(x):
        values = at_least_float32(x[part])
        means.append(_over_space(values) / x[0, 0].numel())
        squares.append(_over_space((values - _to_space(means[-1], x)).square_()))
    return torch.cat(means), torch.cat(squares)


def _scaled(x: Float[Tensor, "n c *space"], scale: Float[Tensor, "n c"], shift: Float[Tensor, "n c"]) -> Tensor:
    """scale · x + shift, in the precision of x."""
    out, scale, shift = torch.empty_like(x), _to_space(scale, x), _to_space(shift, x)
    for part in _parts(x):
        out[part] = torch.addcmul(shift[part], at_least_float32(x[part]), scale[part])
    return out


def _products(
    g: Float[Tensor, "n c *space"], x: Float[Tensor, "n c *space"], mean: Float[Tensor, "n c"]
) -> tuple[Float[Tensor, "n c"], Float[Tensor, "n c"]]:
    """The sums over every row and channel of g, and of g · (x - mean)."""
    of_g, of_product, mean = [], [], _to_space(mean, x)
    for part in _parts(x):
        values = at_least_float32(g[part])
        of_g.append(_over_space(values))
        of_product.append(_over_space((at_least_float32(x[part]) - mean[part]).mul_(values)))
    return torch.cat(of_g), torch.cat(of_product)


def _combined(
    g: Float[Tensor, "n c *space"],
    x: Float[Tensor, "n c *space"],
    of_g: Float[Tensor, "n c"],
    of_x: Float[Tensor, "n c"],
    shift: Float[Tensor, "n c"],
) -> Tensor:
    """of_g · g + of_x · x + shift, in the precision of x."""
    out = torch.empty_like(x)
    of_g, of_x, shift = (_to_space(values, x) for values in (of_g, of_x, shift))
    for part in _parts(x):
        total = torch.addcmul(shift[part], at_least_float32(x[part]), of_x[part])
        out[part] = total.addcmul_(at_least_float32(g[part]), of_g[part])
    return out
