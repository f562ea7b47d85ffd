"""Gradients of small networks over a global batch, computed by one process or by this one's share of several.

`python worlds.py FOLDER` is one of the processes that a test starts, each with its own rows; what it found it writes to
FOLDER/RANK.pt. `found(world)` is the same in the test's own process, with a World of one.
"""

import functools
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from forks import Fork
from torch import Tensor, nn

import barlow
from barlow import objectives
from barlow.data.loader import Batch
from barlow.distributed import World, joined
from barlow.methods._networks import Method
from barlow.methods.siamese import Siamese
from barlow.nets.heads import Head
from barlow.nets.norms import synchronized
from barlow.optim.optimizers import build_optimizer
from barlow.training.global_gradient import backward
from barlow.training.learner import Learner
from barlow.training.train import Course, train
from barlow.types import Rows

TESTS = os.pathsep.join(map(str, (*Path(__file__).parents[:2][::-1], Path(barlow.__file__).parents[1])))
"""Where the processes find the tests, and the very package that this process has: another may be installed."""
ROWS, WIDTH, SIDE = 24, 4, 6
OBJECTIVES: dict[str, Callable[[], Any]] = {
    kind: (lambda kind=kind: objectives.load(kind)()) for kind in ("barlow_twins", "vicreg", "w_mse")
}


class Encoder(nn.Module):
    """Two convolutions, with batch norm of the kinds that encoders have, or without."""

    def __init__(self, batch_norm: bool) -> None:
        super().__init__()
        from timm.layers import BatchNormAct2d

        self.first = nn.Conv2d(3, 8, 3, bias=not batch_norm)
        self.norm: nn.Module = nn.BatchNorm2d(8) if batch_norm else nn.Identity()
        self.second = nn.Conv2d(8, 6, 3, bias=not batch_norm)
        self.norm_act: nn.Module = BatchNormAct2d(6, act_layer=nn.Tanh) if batch_norm else nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm(self.first(x)))
        pooled: Tensor = self.norm_act(self.second(x)).flatten(2).mean(2)
        return pooled


def network(batch_norm: bool, sees: str = "each_view") -> Method:
    torch.manual_seed(0)
    encoder = Encoder(batch_norm)
    projector = Head(widths=[16, WIDTH], hidden_bias=True, last_bias=True, batch_norm=batch_norm)
    section = Siamese(projector=projector, batch_norm_sees=sees)  # type: ignore[arg-type]
    return section.build(lambda: (encoder, 6), seed=1).double().train()


def batch(views: int) -> list[Tensor]:
    """Every row another, and every view; the rows are not alike in scale, so that shards have other statistics."""
    generator = torch.Generator().manual_seed(1)
    scale = torch.linspace(0.2, 3, ROWS).view(-1, 1, 1, 1)
    images = torch.randn(ROWS, 3, SIDE, SIDE, generator=generator, dtype=torch.float64) * scale
    noise = torch.randn(views, ROWS, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)
    return list(images + 0.3 * noise)


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in OBJECTIVES:
        for batch_norm in (False, True):
            name = f"{kind}, {'with' if batch_norm else 'without'} batch norm"
            yield name, {"kind": kind, "batch_norm": batch_norm}
    yield "w_mse, four views, with batch norm", {"kind": "w_mse", "batch_norm": True, "views": 4, "sees": "all_views"}
    yield "vicreg, in chunks, without batch norm", {"kind": "vicreg", "batch_norm": False, "rows_in_memory": 3}
    yield "barlow_twins, in chunks, with batch norm", {"kind": "barlow_twins", "batch_norm": True, "rows_in_memory": 4}


def gradient(
    world: World,
    kind: str,
    batch_norm: bool,
    views: int = 2,
    sees: str = "each_view",
    rows_in_memory: int | None = None,
) -> dict[str, Tensor]:
    """The loss, the gradient of every parameter, and the buffers afterwards."""
    method = network(batch_norm, sees)
    block = world.block(ROWS)
    with synchronized(method, world):
        _, terms = backward(
            world.wrap(method),
            lambda groups: OBJECTIVES[kind]()(*groups[0]),
            Rows([view[block] for view in batch(views)], {"ids": torch.arange(ROWS)[block]}),
            world=world,
            precision="float32",
            draws=lambda chunk: torch.random.fork_rng(devices=[]),
            rows_in_memory=rows_in_memory,
        )
    found = {f"gradient of {name}": p.grad for name, p in method.named_parameters() if p.grad is not None}
    found |= {f"buffer {name}": buffer for name, buffer in method.named_buffers()}
    return found | {"loss": torch.stack(list(terms.values())).sum().detach()}


def trained(world: World, kind: str, dtype: torch.dtype, steps: int = 20) -> dict[str, Tensor]:
    """Weights, buffers and the losses of some steps of the loop itself, with LARS.

    The rate is one at which the loss falls smoothly: a faster training of so small a batch multiplies any difference in
    rounding tenfold every few steps, in one process too.
    """
    method = network(batch_norm=True).to(dtype)
    optimizer = build_optimizer(method, kind="lars", lr=1.0, weight_decay=1e-4, trust=0.02)
    learner = Learner(method, OBJECTIVES[kind](), optimizer, world, precision="float32", seed=0)
    images = [view.to(dtype) for view in batch(2)]
    block = world.block(ROWS)
    losses: list[Tensor] = []

    def batches() -> Iterator[Batch]:
        for step in range(steps):
            turned = [view.roll(step, dims=3)[block] for view in images]
            yield Batch(step, 0, Rows(turned, {"ids": torch.arange(ROWS)[block]}))

    train(
        learner,
        batches(),
        Course(steps, 0.05, lambda step, total: min(1.0, step / 5)),
        [lambda moment: losses.append(torch.stack(list(moment.outcome.terms.values())).sum().detach())],
    )
    return {
        **{f"loss {step}": loss for step, loss in enumerate(losses)},
        "weights": torch.cat([p.detach().flatten() for p in method.parameters()]),
        "buffers": torch.cat([b.to(dtype).flatten() for b in method.buffers()]),
    }


def found(world: World) -> dict[str, dict[str, Tensor]]:
    gradients = {name: gradient(world, **case) for name, case in cases()}
    return gradients | {
        f"{kind}, twenty steps in {dtype}".replace("torch.", ""): trained(world, kind, dtype)
        for kind in OBJECTIVES
        for dtype in (torch.float64, torch.float32)
    }


def differences(ours: dict[str, Tensor], reference: dict[str, Tensor]) -> dict[str, float]:
    """The largest difference of each tensor, relative to its own largest entry.

    Biases before a norm have no gradient but rounding: what is below 1e-9 of the largest gradient is compared with
    that instead.
    """
    assert ours.keys() == reference.keys()
    gradients = [float(value.abs().max()) for name, value in reference.items() if name.startswith("gradient")]
    largest = max(gradients, default=0.0)
    found = {}
    for name, value in reference.items():
        size = float(value.abs().max())
        scale = largest if name.startswith("gradient") and size < 1e-9 * largest else max(size, 1e-300)
        found[name] = float((ours[name] - value).abs().max()) / scale
    return found


def environments(processes: int) -> list[dict[str, str]]:
    """What torchrun tells each process."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    return [
        {
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "OMP_NUM_THREADS": "1",
        }
        for rank in range(processes)
    ]


def start(program: list[str], processes: int) -> list[subprocess.CompletedProcess[str]]:
    """Runs a file of the tests in several processes, which are forks of this one, and waits for all.

    What each has said, on standard output or standard error, is told as both.
    """
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / str(rank) for rank in range(processes)]
        running = [
            Fork(functools.partial(_run, program), environment=environment, output=log)
            for environment, log in zip(environments(processes), logs, strict=True)
        ]
        codes = [process.wait(240) for process in running]
        said = [log.read_text() for log in logs]
    return [subprocess.CompletedProcess(program, *told) for told in zip(codes, said, said, strict=True)]


def _run(program: list[str]) -> None:
    sys.argv = program
    sys.path[0:0] = [str(Path(program[0]).parent), *TESTS.split(os.pathsep)]
    runpy.run_path(program[0], run_name="__main__")


def start_anew(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs Python with these words, as a user does."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": TESTS}
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=240, check=False
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined("cpu") as world:
        torch.save(found(world), Path(sys.argv[1]) / f"{world.rank}.pt")
