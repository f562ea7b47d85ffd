"""Batch norm in groups: statistics over some rows of the batch at a time, drawn anew for every step and network."""

import contextlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from barlow.distributed import World
from barlow.nets.group_normalized import Drawn, normalized
from barlow.nets.norms import StandIn, check_nothing_of_its_own, exchanged
from barlow.views.keys import hashed

GROUPS = 4
"""First word of the keys of groups. `barlow.views.keys` uses 1 and 2, `barlow.data.loader` 3."""


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


class Groups:
    """The groups that the norms of a network use, from one draw to the next."""

    def __init__(self, grouping: Grouping, world: World) -> None:
        self.grouping, self.world = grouping, world
        self.sorted = False
        """Whether the rows that reach the norms lie group by group, since the last draw."""
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
        arrays = {"group": group, "place": place, "elsewhere": ~own, "counts": counts[:, :, None]}
        tensors = {name: torch.from_numpy(array).to(self.world.device) for name, array in arrays.items()}
        self._drawn, self.sorted = Drawn(**tensors), False

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

    Enter it before `synchronized`, which leaves grouped norms alone. A network is called as a whole: not a layer of it
    here and another there. Of an `nn.ModuleDict`, which cannot be called, each member is.

    Yields:
        What draws the groups of a step. Draw them before the step's first forward pass.

    Raises:
        ValueError: a batch norm has a forward pass or hooks of its own, which the grouped one would not have.
    """
    groups = Groups(grouping, world)

    def made(norm: _BatchNorm) -> GroupedBatchNorm:
        check_nothing_of_its_own(norm, "grouped", "train without groups")
        return GroupedBatchNorm(norm, groups)

    with exchanged(network, made), _sorted_inside(network, groups) if world.size == 1 else contextlib.nullcontext():
        yield groups


@contextlib.contextmanager
def _sorted_inside(network: nn.Module, groups: Groups) -> Iterator[None]:
    """Inside, a network sorts the rows of its input by their groups and puts those of its output back.

    So its norms find each group's rows side by side, which is much faster than to look for them in every norm. Nobody
    else notices: all else in a network treats each row by itself. Only a process that holds the whole batch can do it.
    """

    def sort(module: nn.Module, given: tuple[Any, ...]) -> Tensor | None:
        if not _takes_rows(module, given):
            return None
        groups.sorted = True
        return _taken(given[0], groups.of(len(given[0])).place.flatten())

    def put_back(module: nn.Module, given: tuple[Any, ...], made: Any) -> Tensor | None:
        if not _takes_rows(module, given):
            return None
        if not isinstance(made, Tensor):
            name = type(module).__name__
            raise ValueError(f"batch norm in groups needs networks that give a tensor; {name} gives {type(made)}")
        return _taken(made, groups.of(len(made)).place.flatten().argsort())

    hooks = []
    for module in _called(network):
        hooks += [module.register_forward_pre_hook(sort), module.register_forward_hook(put_back)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _takes_rows(module: nn.Module, given: tuple[Any, ...]) -> bool:
    """Whether a call is one of those whose rows are sorted: in train mode, of one tensor and nothing else."""
    return module.training and len(given) == 1 and isinstance(given[0], Tensor)


def _called(network: nn.Module) -> Iterator[nn.Module]:
    """What is called of a network: itself, or the members of a container that is not."""
    if isinstance(network, nn.ModuleDict | nn.ModuleList):
        for child in network.children():
            yield from _called(child)
    else:
        yield network


def _taken(x: Float[Tensor, "n *values"], order: Int64[Tensor, " n"]) -> Float[Tensor, "n *values"]:
    """Rows in another order; channels stay last in memory if they are."""
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).index_select(0, order).permute(0, 3, 1, 2)
    return x.index_select(0, order)


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
        out, mean, variance = normalized(
            input, self.weight, self.bias, self.eps, drawn, self.groups.world, self.groups.sorted
        )
        self._remember(mean.mean(0), variance.mean(0), drawn.rows * input[0, 0].numel())
        return out
