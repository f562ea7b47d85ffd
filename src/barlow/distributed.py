"""World: how many processes train together, which one this is, and on what device.

The only file that knows torch.distributed. One process is a World of size 1, not a special case: the loop is written
against World, and objectives, networks and recipes do not know that there are processes.

Every process holds a contiguous block of the rows of the global batch, and calls the objective on the whole of it. All
then have the same loss, and each is answerable for its own rows: the backward of `gather` is the gradient of those rows
times the number of processes, without communication, and the mean over processes that `wrap` takes is then exactly the
gradient that one process would have.
"""

import contextlib
import ctypes
import datetime
import functools
import gc
import inspect
import itertools
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from barlow import exits
from barlow.linalg import at_least_float32

# Names that torch is about to change, in whichever form this torch has them.
_parameters_of_ddp = inspect.signature(nn.parallel.DistributedDataParallel).parameters
_SEND_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _parameters_of_ddp else "broadcast_buffers"
_all_gather = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor

PR_SET_PDEATHSIG = 1
"""prctl(2)."""

PATIENCE = datetime.timedelta(minutes=30)
"""How long processes wait for each other: the first of them reads all images before the others begin."""


@dataclass(frozen=True)
class World:
    """The processes that train together, seen from one of them."""

    device: torch.device
    rank: int = 0
    size: int = 1
    neighbours: int = 1
    """Processes on this machine, this one included: they share its cores and its memory."""
    control: Any = None
    """Group for numbers that live on the CPU; None is the default group."""
    board: Any = None
    """A store in which each process writes what it is doing, by its rank; None where there is none."""

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    @property
    def queues(self) -> bool:
        """Whether the device is only told what to compute, so that reading a value waits for all of it."""
        return self.device.type == "cuda"

    def block(self, rows: int) -> slice:
        """This process's rows of a global batch.

        Raises:
            ValueError: the processes cannot have equally many.
        """
        if rows % self.size:
            below, above = rows // self.size * self.size, (rows // self.size + 1) * self.size
            allowed = f"{below} or {above}" if below else str(above)
            raise ValueError(
                f"a batch of {rows} cannot be shared equally by {self.size} processes: use --batch-size {allowed}, or "
                "another number of processes"
            )
        share = rows // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def gather(self, embeddings: Sequence[Tensor]) -> list[Tensor]:
        """The global batch of each tensor, in float32 (float64 stays): the objective sees no other precision.

        Tensors of one shape and precision, as the embeddings of all views are, go in one exchange.
        """
        if self.size == 1:
            return [at_least_float32(z) for z in embeddings]
        if len({(z.shape, z.dtype) for z in embeddings}) > 1:
            return [_Gather.apply(z[None], self.rank, self.size)[0] for z in embeddings]
        return list(_Gather.apply(torch.stack(list(embeddings)), self.rank, self.size))

    def wrap(self, network: nn.Module) -> nn.Module:
        """A network whose gradients, once a backward pass is through, are the mean over the processes."""
        if self.size == 1:
            return network
        device_ids = [self.device] if self.device.type == "cuda" else None
        # Buffers are the same everywhere without being sent: batch norm is synchronised (`barlow.nets.norms`).
        options: dict[str, Any] = {"device_ids": device_ids, _SEND_BUFFERS: False}
        return nn.parallel.DistributedDataParallel(network, **options)

    def apart(self, wrapped: nn.Module) -> contextlib.AbstractContextManager[object]:
        """Backward passes inside add to the gradients of this process only; the next one outside averages the sum."""
        if isinstance(wrapped, nn.parallel.DistributedDataParallel):
            return wrapped.no_sync()
        return contextlib.nullcontext()

    def autocast(self, precision: str) -> contextlib.AbstractContextManager[object]:
        """bfloat16 autocast for `"bf16"`, nothing for `"float32"`."""
        if precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def collect(self, values: Tensor) -> Tensor:
        """The tensors of all processes, stacked in the order of rank; no gradient passes."""
        if self.size == 1:
            return values[None]
        return _all_blocks(values.contiguous(), self.size)

    def make_alike(self, module: nn.Module) -> None:
        """Gives every process the main process's parameters and buffers, in place."""
        if self.size > 1:
            for tensor in (*module.parameters(), *module.buffers()):
                distributed.broadcast(tensor.detach(), src=0)

    def total(self, values: Tensor) -> Tensor:
        """The sum over processes; no gradient passes."""
        if self.size > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def any(self, asked: bool) -> bool:
        """Whether any process asks; all get the same answer."""
        if self.size == 1:
            return asked
        flag = torch.tensor(float(asked))
        distributed.all_reduce(flag, op=distributed.ReduceOp.MAX, group=self.control)
        return bool(flag > 0)

    def share(self, text: str | None) -> str:
        """The main process's text, on all; the others give None. They wait here until the main process comes."""
        if self.size == 1:
            assert text is not None
            return text
        data = torch.tensor(list((text or "").encode()), dtype=torch.uint8)
        length = torch.tensor(len(data))
        distributed.broadcast(length, src=0, group=self.control)
        held = data if self.main else torch.empty(int(length), dtype=torch.uint8)
        distributed.broadcast(held, src=0, group=self.control)
        return bytes(held.tolist()).decode()

    def post(self, text: str) -> None:
        """Writes on the board what this process is doing. Nobody waits for it, and it may fail."""
        with contextlib.suppress(RuntimeError):
            if self.board is not None:
                self.board.set(str(self.rank), text)

    def posted(self) -> dict[int, str]:
        """What the other processes have written last, by their ranks."""
        found = {}
        with contextlib.suppress(RuntimeError):
            for rank in range(self.size) if self.board is not None else ():
                if rank != self.rank and self.board.check([str(rank)]):
                    found[rank] = self.board.get(str(rank)).decode()
        return found


def first_process() -> bool:
    """Whether this is the process that speaks, of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


_joined_so_far = itertools.count()


@functools.cache
def _meeting_place() -> tuple[Any, int, int]:
    """Where the launcher lets processes find each other: the store, this process's rank, and how many they are."""
    return next(distributed.rendezvous("env://", timeout=PATIENCE))


@contextlib.contextmanager
def joined(wanted: str) -> Iterator[World]:
    """The World that this process belongs to, for as long as the body runs: alone, or one of those torchrun started.

    A process group that exists already is used and left; otherwise one is made, and ended with the body.

    Args:
        wanted: device, as `choose_device` takes it; of several GPUs each process takes the one of its number.

    Raises:
        ValueError: the device is not there, or there are fewer GPUs than processes on this machine.
    """
    device = choose_device(wanted)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device)
        return
    local, neighbours = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    _end_with_the_launcher()
    if device.type == "mps":
        raise ValueError("--device mps is for one process; use --device cpu, or leave --devices out")
    if device.type == "cuda":
        if torch.cuda.device_count() < neighbours:
            raise ValueError(
                f"{neighbours} processes want a GPU each and there are {torch.cuda.device_count()}: start fewer"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    on_gpu = device.type == "cuda"
    ours = not distributed.is_initialized()
    board = None
    if ours:
        # What the processes told each other in an earlier group is still in the store, under torch's own names; the
        # processes of a later one would take it for new, and wait for each other for ever.
        store, rank, size = _meeting_place()
        name = f"barlow {next(_joined_so_far)}"
        here = distributed.PrefixStore(name, store)
        # A connection of its own: on the other one the main thread may wait for a process that has stopped.
        board = distributed.PrefixStore(f"{name} board", next(distributed.rendezvous("env://", timeout=PATIENCE))[0])
        distributed.init_process_group(
            "nccl" if on_gpu else "gloo", store=here, rank=rank, world_size=size, timeout=PATIENCE
        )
    try:
        control = distributed.new_group(backend="gloo", timeout=PATIENCE) if on_gpu else None
        yield World(device, distributed.get_rank(), size, neighbours, control, board)
        distributed.barrier(group=control)  # none leaves while another still waits for it
    except RuntimeError as error:
        lost = type(error) is RuntimeError and "gloo/transport" in str(error)
        if lost or isinstance(error, distributed.DistError):
            raise Deserted(
                f"process {os.environ['RANK']} of {size} stops, because another has ended or cannot be reached"
            ) from error
        if "Expected to have finished reduction" in str(error):
            raise ValueError(
                "some parameters of the network have no part in the loss, which several processes do not allow: take "
                "them out, or freeze them with requires_grad_(False), or train in one process"
            ) from error
        raise
    finally:
        if ours:
            gc.collect()  # of networks that were wrapped: while they are there, so is the group
            distributed.destroy_process_group()


def _end_with_the_launcher() -> None:
    """Asks Linux for a SIGTERM, which saves and stops, once the launcher is gone; elsewhere one cannot ask."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Deserted(RuntimeError):
    """Another process has ended: what went wrong is for that one to tell."""

    exit_code = exits.OUR_FAULT
    told = False
    """Whether somebody else says it: a launcher that has noticed, and has asked this process to stop as well."""


def check_processes(processes: int, wanted: str, cores: int, batch_size: int | None) -> None:
    """Refuses a number of processes that cannot work, before any is started.

    Args:
        processes: how many are asked for.
        wanted: device, as `choose_device` takes it.
        cores: processor cores there are.
        batch_size: of the recipe, if that is a number.

    Raises:
        ValueError: fewer GPUs or cores, or a batch that does not divide.
    """
    device = choose_device(wanted)
    there, what = (torch.cuda.device_count(), "GPUs") if device.type == "cuda" else (cores, "processor cores")
    if processes > there:
        raise ValueError(f"--devices {processes}: there are {there} {what} for as many processes; use at most {there}")
    if batch_size is not None:
        World(device, size=processes).block(batch_size)


def meeting_place_for(processes: int) -> tuple[object, dict[str, str]]:
    """A store in which so many processes on this machine find each other.

    Returns:
        the store, which is there for as long as this object, and the environment that leads the processes to it.
    """
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=PATIENCE)
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    return store, places | {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}


def _all_blocks(block: Tensor, size: int) -> Tensor:
    blocks = block.new_empty((size * block.shape[0], *block.shape[1:]))
    _all_gather(blocks, block)
    return blocks.unflatten(0, (size, block.shape[0]))


class _Gather(torch.autograd.Function):
    """(views, own rows, d) → (views, all rows, d): all views in one exchange, in the precision they have.

    Every process computes the same loss of all rows, so the gradient of its own rows is already here. Times the number
    of processes, because the gradients of the parameters are averaged afterwards. (A gather without this would divide
    the gradient by the number of processes.) In single precision, before it is rounded to the embeddings' own.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor, rank: int, size: int) -> Tensor:
        ctx.rank, ctx.size, ctx.rows, ctx.dtype = rank, size, local.shape[1], local.dtype
        blocks = _all_blocks(local.contiguous(), size)
        return at_least_float32(blocks.transpose(0, 1).flatten(1, 2))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        own = gradient[:, ctx.rank * ctx.rows : (ctx.rank + 1) * ctx.rows]
        return (own * ctx.size).to(ctx.dtype), None, None


def choose_device(wanted: str) -> torch.device:
    """The device a user asked for; `"auto"` is the first of CUDA, MPS, CPU that is there.

    Raises:
        ValueError: it is not known or not there.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if present[kind]))
    kind = wanted.split(":")[0]
    if kind not in present:
        raise ValueError(f"unknown device {wanted!r}; allowed: auto, {', '.join(present)}")
    if not present[kind]:
        here = ", ".join(name for name, there in present.items() if there)
        raise ValueError(f"device {wanted!r} is not available on this machine; available: {here}")
    return torch.device(wanted)


def has_native_bf16(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 itself: elsewhere autocast would be slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


@contextlib.contextmanager
def fixed_shapes(device: torch.device) -> Iterator[None]:
    """Lets cuDNN try its kernels once and keep the fastest: every step of the body has the same shapes."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def synchronize(device: torch.device) -> None:
    """Waits for the device; only a measurement needs it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
