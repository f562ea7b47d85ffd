"""What a batch in chunks costs: time beside the ordinary step, and the memory of a batch that would not fit."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
import worlds
from nightly_log import record

from barlow.distributed import World
from barlow.methods.siamese import Siamese
from barlow.nets.building import build_encoder
from barlow.nets.heads import Head
from barlow.nets.recompute import recomputed
from barlow.objectives.barlow_twins import BarlowTwins
from barlow.optim.optimizers import build_optimizer
from barlow.training.global_gradient import backward
from barlow.types import Rows

SINGLE = World(torch.device("cpu"))
ROUNDS = 5

LARGE = """
import resource, time
import torch
from test_large_batches import stepped
torch.set_num_threads(2)
started = time.monotonic()
stepped(batch=2048, side=96, widths=[8192, 8192, 8192], rows_in_memory=64, optimizer="lars")()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, time.monotonic() - started)
"""


def draws(chunk: int) -> AbstractContextManager[None]:
    return torch.random.fork_rng(devices=[])


def stepped(
    batch: int,
    side: int,
    widths: list[int],
    rows_in_memory: int | None = None,
    again: bool = False,
    optimizer: str | None = None,
) -> Callable[[], None]:
    """A training step of Barlow Twins on ResNet-18, ready to run."""
    encoder = build_encoder("resnet18", image_size=side, stem="as_is" if side > 64 else "small", seed=0)
    section = Siamese(projector=Head(widths=widths, hidden_bias=False, last_bias=False))
    method = section.build(lambda: (encoder, 512), seed=0)
    method.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    made = build_optimizer(method, kind=optimizer, lr=0.1) if optimizer else None
    generator = torch.Generator().manual_seed(0)
    views = [torch.rand(batch, 3, side, side, generator=generator) for _ in range(2)]
    views = [view.contiguous(memory_format=torch.channels_last) for view in views]

    def step() -> None:
        keeps: AbstractContextManager[object] = recomputed(encoder) if again else torch.random.fork_rng(devices=[])
        with keeps:
            _, terms = backward(
                method,
                lambda groups: BarlowTwins()(*groups[0]),
                Rows(views, {"ids": torch.arange(batch)}),
                world=SINGLE,
                precision="float32",
                draws=draws,
                rows_in_memory=rows_in_memory,
            )
        assert all(bool(term.isfinite()) for term in terms.values())
        if made is not None:
            made.step()
        method.zero_grad(set_to_none=True)

    return step


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_chunks_and_recomputation_cost_at_most_half_a_step_more() -> None:
    """ResNet-18 at 32 pixels, batch 256 in four chunks; ratios of times taken in turn."""
    ways = {
        "ordinary": stepped(256, 32, [2048] * 3),
        "rows_in_memory 64": stepped(256, 32, [2048] * 3, rows_in_memory=64),
        "activation_checkpointing": stepped(256, 32, [2048] * 3, again=True),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for step in ways.values():
        step()
    for _ in range(ROUNDS):
        for way, step in ways.items():
            started = time.monotonic()
            step()
            times[way].append(time.monotonic() - started)
    for way in list(ways)[1:]:
        ratios = [a / b for a, b in zip(times[way], times["ordinary"], strict=True)]
        ratio = statistics.median(ratios)
        record(
            kind="cost of exactness",
            name=way,
            ratio=round(ratio, 3),
            spread=[round(min(ratios), 3), round(max(ratios), 3)],
            rounds=ROUNDS,
            seconds=round(statistics.median(times["ordinary"]), 2),
        )
        assert ratio <= 1.5, (way, ratios)


@pytest.mark.nightly
@pytest.mark.timeout(3000)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in kilobytes on Linux only")
def test_a_batch_of_2048_with_8192_features_trains_in_six_gigabytes() -> None:
    """Barlow Twins, ResNet-18 at 96 pixels, projector 8192-8192-8192, LARS; the process's peak of resident memory."""
    done = subprocess.run(
        [sys.executable, "-c", LARGE],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": worlds.TESTS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    peak, seconds = map(float, done.stdout.split())
    record(kind="memory", name="batch 2048, 8192 features", gigabytes=round(peak / 1e9, 2), seconds=round(seconds))
    assert peak < 6e9
