"""Batch norm in groups: statistics over some rows of the batch at a time, drawn anew for every step and network."""

import contextlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from barlow.distributed import World
from barlow.linalg import at_least_float32
from barlow.nets.norms import StandIn, check_nothing_of_its_own, exchanged
from barlow.views.keys import hashed

GROUPS = 4
"""First word of the keys of groups. `barlow.views.keys` uses 1 and 2, `barlow.data.loader` 3."""

CACHED_VALUES = 1 << 18
"""How many values a CPU core goes over several times in a row, because they stay in its cache."""


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Which rows of the global batch batch norm takes its statistics from together.

    Methods with a queue (MoCo) need this. If a query and its key are normalised with the same rows, the statistics tell
    the two apart from all other keys, and the loss falls without anything being learned. Networks whose groups are
    drawn apart do not share them: give the query and the key network different names.

    Source: MoCo (arXiv 1911.05722, §3.3) normalises the rows of each GPU apart and shuffles the keys between GPUs. Its
    CIFAR-10 notebook cuts the batch of one GPU into 8 groups (`SplitBatchNorm`).

    Deviation: the size of a group is given, not the number of groups, so that a run does not depend on the number of
    processes. The queries' groups are drawn as well; MoCo shuffles the keys only.

    Args:
        rows: of a group, from 2. They must divide the batch.
        seed: of the run.
        network: the name of the network, for example `query` or `key`. Each name has groups of its own in every step.

    Raises:
        ValueError: fewer than 2 rows.
    """

    rows: int
    seed: int
    network: str

    def __post_init__(self) -> None:
        if self.rows < 2:
            raise ValueError(f"batch norm in groups of {self.rows} rows: give 2 or more, for example 32")

    def members(self, step: int, batch_size: int) -> NDArray[np.int64]:
        """The rows of each group, (groups, rows), as positions in the global batch: a function of the arguments alone.

        Raises:
            ValueError: the batch cannot be cut into groups of this size.
        """
        if batch_size < 1 or batch_size % self.rows:
            below, above = batch_size // self.rows * self.rows, (batch_size // self.rows + 1) * self.rows
            allowed = f"{below} or {above}" if below > 0 else str(above)
            raise ValueError(
                f"a batch of {batch_size} cannot be cut into groups of {self.rows} rows for batch norm: use "
                f"--batch-size {allowed}, or groups of another size"
            )
        # Sorting the rows by a hash of their positions shuffles them. The name enters as a number of 32 bits.
        words = (GROUPS, self.seed, zlib.crc32(self.network.encode()), step)
        return np.argsort(hashed(words, np.arange(batch_size)), kind="stable").reshape(-1, self.rows)


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


class Groups:
    """The groups that the norms of a network use, from one draw to the next."""

    def __init__(self, grouping: Grouping, world: World) -> None:
        self.grouping, self.world = grouping, world
        self._drawn: Drawn | None = None

    def draw(self, step: int, batch_size: int) -> None:
        """Draws the groups of a step. All forward passes until the next draw use them.

        So the views of a step are grouped alike, and a pass that activation checkpointing makes again has the groups of
        the first.

        Args:
            step: of the run.
            batch_size: of the global batch.

        Raises:
            ValueError: the batch cannot be cut into groups, or shared by the processes.
        """
        members = self.grouping.members(step, batch_size)
        block = self.world.block(batch_size)
        holder = members // (block.stop - block.start)
        own = holder == self.world.rank
        place = np.where(own, members - block.start, 0)
        group = np.empty(block.stop - block.start, dtype=np.int64)
        group[place[own]] = np.nonzero(own)[0]
        counts = np.stack([(holder == process).sum(1) for process in range(self.world.size)])
        tensors = (torch.from_numpy(array) for array in (group, place, ~own, counts[:, :, None]))
        self._drawn = Drawn(*(tensor.to(self.world.device) for tensor in tensors))

    def of(self, rows: int) -> Drawn:
        """The groups for an input of so many rows.

        Raises:
            ValueError: none were drawn, or the input does not have exactly the rows of this process.
        """
        if self._drawn is None:
            raise ValueError("batch norm in groups has none yet: call draw(step, batch_size) before a forward pass")
        own = len(self._drawn.group)
        if rows != own:
            raise ValueError(
                f"batch norm in groups was given {rows} rows, and the groups are drawn for the {own} that this process "
                "holds of the batch: give the network one view of all of them in each pass (to save memory use "
                "train.activation_checkpointing, not train.rows_in_memory)"
            )
        return self._drawn


@contextlib.contextmanager
def grouped(network: nn.Module, world: World, grouping: Grouping) -> Iterator[Groups]:
    """Inside, the batch norm of a network takes its statistics over groups of rows; in eval mode it is as it was.

        with grouped(key_network, world, Grouping(rows=32, seed=0, network="key")) as groups:
            for batch in batches:
                groups.draw(batch.step, batch_size=256)
                keys = key_network(view)

    Enter it before `synchronized`, which leaves grouped norms alone.

    Yields:
        What draws the groups of a step. Draw them before the step's first forward pass.

    Raises:
        ValueError: a batch norm has a forward pass or hooks of its own, which the grouped one would not have.
    """
    groups = Groups(grouping, world)

    def made(norm: _BatchNorm) -> GroupedBatchNorm:
        check_nothing_of_its_own(norm, "grouped", "train without groups")
        return GroupedBatchNorm(norm, groups)

    with exchanged(network, made):
        yield groups


class GroupedBatchNorm(StandIn):
    """Batch norm whose statistics are those of each group of rows, wherever the rows of a group are held.

    Convention: running mean and running variance move towards the mean over groups of the groups' means and of their
    unbiased variances, as in MoCo's notebook. A forward pass counts as one batch.

    Args:
        norm: whose place it takes.
        groups: drawn before a forward pass.
    """

    def __init__(self, norm: _BatchNorm, groups: Groups) -> None:
        super().__init__(norm)
        self.groups = groups

    def _normalized(self, input: Tensor) -> Tensor:
        drawn = self.groups.of(len(input))
        out, mean, variance = _GroupNormalized.apply(input, self.weight, self.bias, self.eps, drawn, self.groups.world)
        self._remember(mean.mean(0), variance.mean(0), drawn.rows * input[0, 0].numel())
        normalized: Tensor = out
        return normalized


class _GroupNormalized(torch.autograd.Function):
    """(x - mean) / √(var + eps) · weight + bias, with mean and variance of the row's group.

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
