"""What a GPU makes of it: the step against bare torch, the loss forms, the views, with and without torch.compile.

    python benchmarks/gpu.py                  # one GPU, under nine minutes; a source tree is enough
    python benchmarks/gpu.py --smoke --device cpu    # tries the program, not the machine

Pixels are random and held on the device, so that no disk has a part in it. A step's notes hold the model FLOP
utilisation: FLOP of forward and backward (torch's counter) per second, over what a product of two 8192 × 8192 bfloat16
matrices reaches on the same device. `host` is how long the program itself is busy with a call: a GPU that is faster
than its launches waits for it.
"""

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import torch
from clock import Cost
from objectives import plain_barlow_twins, plain_vicreg
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from barlow.data.loader import MemoryLoader
from barlow.distributed import World, fixed_shapes, synchronize
from barlow.objectives.barlow_twins import BarlowTwins
from barlow.objectives.vicreg import VICReg
from barlow.planning import facts
from barlow.planning.plan import Plan
from barlow.planning.plan import resolved as plan_of
from barlow.recipe import files, schema
from barlow.recipe.changes import override
from barlow.recipe.schema import Recipe
from barlow.training.assembly import build_learner
from barlow.training.learner import Learner
from barlow.training.train import Course, train
from barlow.training.watchers import Moment
from barlow.types import Outputs, Rows
from barlow.views.pipeline import ViewPipeline

WARM, STEPS = 3, 10
"""Of a piece: steps left out, and counted. (The first pair of a row is left out as a whole.)"""
SMOKE = (2, 3)


@dataclass(frozen=True)
class Case:
    """A recipe at the size of a step."""

    name: str
    what: str
    recipe: str
    batch: int
    held: int
    """Side of the pixels held."""
    size: int
    """Side of the views."""
    at_least: float | None = 1 / 1.10


CASES = (
    Case("resnet18_32px", "ResNet-18, 32 px, batch 256", "cifar10/barlow_twins", 256, 32, 32),
    Case("resnet50_224px", "ResNet-50, 224 px, batch 256", "imagenet/barlow_twins", 256, 256, 224),
)
SMOKE_CASES = (Case("resnet18_32px", "ResNet-18, 32 px, batch 8", "cifar10/barlow_twins", 8, 32, 32, None),)


MEAN, STD = [0.5] * 3, [0.25] * 3
"""Of the made-up images' channels."""


def resolved(name: str, size: int, **changes: Any) -> Recipe:
    """A shipped recipe with every view at one size."""
    content = files.read(name)
    for view in content["views"]:
        for op in view:
            if op["kind"] == "random_resized_crop":
                op["size"] = size
    fixed = {"data.sources": ["held"], "data.image_size": size, "data.channels": 3}
    fixed |= {"data.mean": MEAN, "data.std": STD}
    return schema.check(override(content, fixed | changes))


def pipeline_of(chosen: Recipe) -> ViewPipeline:
    return ViewPipeline(chosen.build_views(), MEAN, STD)


@dataclass
class Built:
    """What a step needs."""

    learner: Learner
    loader: MemoryLoader
    rows: Rows
    """Of one batch; views are channels_last."""


def built(case: Case, device: torch.device) -> Built:
    count = 4 * case.batch
    plan = planned(case, device, count)
    learner = build_learner(plan, World(device))
    pixels = torch.randint(0, 256, (count, 3, case.held, case.held), dtype=torch.uint8)
    sizes, ids = torch.full((count, 2), case.held), torch.arange(count)
    loader = MemoryLoader(pixels, sizes, ids, pipeline_of(plan.recipe), case.batch, 0, device)
    rows = next(iter(loader.stream(0, 1))).rows
    views = [view.contiguous(memory_format=torch.channels_last) for view in rows.views]
    return Built(learner, loader, Rows(views, rows.known))


def planned(case: Case, device: torch.device, images: int) -> Plan:
    """The recipe for pixels that are held on the device."""
    chosen = resolved(case.recipe, case.size, **{"train.batch_size": case.batch, "train.precision": "bf16"})
    return plan_of(
        chosen,
        facts.machine(World(device)),
        usable=images,
        candidates=images,
        channels=3,
        image_size=case.size,
        centre_size=case.size,
        working_size=case.held,
        executor="in_memory",
        workers=1,
        mean_and_std=(MEAN, STD),
    )


def ours(parts: Built, device: torch.device, warm: int, steps: int) -> float:
    """Seconds a step of barlow's loop, its views included; the first `warm` are left out."""
    ends: list[float] = []

    def watch(moment: Moment) -> None:
        if moment.step in (warm, warm + steps):
            synchronize(device)
            ends.append(time.perf_counter())

    stream = parts.loader.stream(0, warm + steps)
    train(parts.learner, stream, Course(warm + steps, 1e-4, lambda step, total: 1.0), [watch])
    return (ends[1] - ends[0]) / steps


def bare(parts: Built, network: Callable[[Rows], Outputs], device: torch.device, warm: int, steps: int) -> float:
    """Seconds a step of a plain loop over one batch of views that is there already."""
    learner = parts.learner
    learner.method.train()
    with fixed_shapes(device):
        for step in range(warm + steps):
            if step == warm:
                synchronize(device)
                before = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16):
                (embeddings,) = network(parts.rows).groups
            functools.reduce(torch.add, learner.objective(*[z.float() for z in embeddings]).values()).backward()
            learner.optimizer.step()
            learner.optimizer.zero_grad(set_to_none=True)
        synchronize(device)
    return (time.perf_counter() - before) / steps


def flop(parts: Built, device: torch.device) -> int:
    """Of forward and backward of the networks, on all views of a batch."""
    with FlopCounterMode(display=False) as counter, torch.autocast(device.type, torch.bfloat16):
        (embeddings,) = parts.learner.method(parts.rows).groups
        sum(z.float().sum() for z in embeddings).backward()
    parts.learner.optimizer.zero_grad(set_to_none=True)
    return counter.get_total_flops()


@functools.cache
def product_rate(device: torch.device, side: int = 8192) -> float:
    """FLOP per second of a large bfloat16 product."""
    a, b = (torch.randn(side, side, device=device).to(torch.bfloat16) for _ in range(2))
    return 2 * side**3 / timed(lambda: a @ b, device)


def timed(work: Callable[[], object], device: torch.device, rounds: int = 10) -> float:
    """Median seconds of a call, done and waited for."""
    return statistics.median(_spans(work, device, rounds)[1])


def timed_on(device: torch.device, work: Callable[[], object], rounds: int) -> Cost:
    return on_device(timed(work, device, rounds))


def host_seconds(work: Callable[[], object], device: torch.device, rounds: int = 10) -> float:
    """Median seconds until a call returns, the device idle before it."""
    return statistics.median(_spans(work, device, rounds)[0])


def _spans(work: Callable[[], object], device: torch.device, rounds: int) -> tuple[list[float], list[float]]:
    for _ in range(2):
        work()
    returned, done = [], []
    for _ in range(rounds):
        synchronize(device)
        before = time.perf_counter()
        work()
        returned.append(time.perf_counter() - before)
        synchronize(device)
        done.append(time.perf_counter() - before)
    return returned, done


def on_device(seconds: float) -> Cost:
    """Seconds of work that no processor does: what the program's own processor spends, it spends on waiting."""
    return Cost(seconds, None)


def step_rows(case: Case, device: torch.device, smoke: bool, compiled: bool) -> list[measure.Row]:
    """The step of our loop against the bare one, and the bare one compiled against itself."""
    warm, steps = SMOKE if smoke else (WARM, STEPS)
    parts = built(case, device)
    work = flop(parts, device)
    peak = product_rate(device, 512 if smoke else 8192)
    notes: dict[str, Any] = {"flop": work, "product_tflop_per_second": round(peak / 1e12, 1)}

    def with_utilisation(seconds: float, side: str) -> Cost:
        notes[f"utilisation_{side}"] = round(work / seconds / peak, 3)
        return on_device(seconds)

    network = functools.partial(bare, parts, parts.learner.method, device, warm, steps)
    rows = [
        measure.Row(
            name=f"gpu_step_{case.name}",
            what=f"{case.what}, {case.recipe}, bf16, views made on the device",
            ours=lambda: with_utilisation(ours(parts, device, warm, steps), "ours"),
            reference=lambda: with_utilisation(network(), "bare"),
            reference_name="bare step",
            at_least=case.at_least,
            warmups=0 if smoke else 1,
            work=(case.batch, "images"),
            notes=lambda: notes,
        )
    ]
    if compiled:
        fast = torch.compile(parts.learner.method)
        rows.append(
            measure.Row(
                name=f"gpu_step_{case.name}_compiled",
                what=f"{case.what}: the bare step with torch.compile against without",
                ours=lambda: on_device(bare(parts, fast, device, warm, steps)),
                reference=lambda: on_device(network()),
                reference_name="bare step",
                work=(case.batch, "images"),
            )
        )
    return rows


def loss_rows(device: torch.device, smoke: bool) -> list[measure.Row]:
    sizes = [(64, 256)] if smoke else [(256, 8192), (1024, 8192), (2048, 8192), (256, 32_768), (1024, 32_768)]
    rows = []
    for name, mine, plain in (
        ("bt", BarlowTwins(), plain_barlow_twins),
        ("vicreg", VICReg(), plain_vicreg),
    ):
        for n, d in sizes:
            generator = torch.Generator(device=device).manual_seed(n + d)
            z = [torch.randn(n, d, device=device, generator=generator, requires_grad=True) for _ in range(2)]

            def loss(z: list[Tensor] = z, mine: Any = mine) -> None:
                functools.reduce(torch.add, mine(*z).values()).backward()

            def reference(z: list[Tensor] = z, plain: Any = plain) -> None:
                total = plain(*z)
                terms = total.values() if isinstance(total, dict) else [total]
                functools.reduce(torch.add, terms).backward()

            rows.append(
                measure.Row(
                    name=f"gpu_{name}_{n}x{d}",
                    what=f"{name} loss, forward and backward, float32, n {n}, d {d}",
                    ours=functools.partial(timed_on, device, loss, 5),
                    reference=functools.partial(timed_on, device, reference, 3),
                    reference_name="plain d × d form",
                    warmups=0,
                )
            )
    return rows


def view_rows(device: torch.device, smoke: bool) -> list[measure.Row]:
    rows = []
    for recipe, size, n in (("small_barlow_twins", 24, 128), ("cifar10/barlow_twins", 32, 256)):
        pipeline, ids = pipeline_of(resolved(recipe, size)), torch.arange(n)
        pixels = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, device=device)
        work = functools.partial(pipeline.from_memory, pixels, None, ids, 0, 1)
        rows.append(
            _view_row(f"gpu_views_{size}px", f"two views of {size} px of {n} images, {recipe}", work, n, device)
        )
    n = 8 if smoke else 256
    pipeline, ids = pipeline_of(resolved("imagenet/barlow_twins", 224)), torch.arange(n)
    crops = [torch.randint(0, 256, (n, 3, 224, 224), dtype=torch.uint8, device=device) for _ in range(2)]
    work = functools.partial(pipeline.finish, crops, ids, 0, 1)
    rows.append(
        _view_row("gpu_views_224px", f"two views of 224 px of {n} crops, imagenet/barlow_twins", work, n, device)
    )
    return rows


def _view_row(name: str, what: str, work: Callable[[], object], n: int, device: torch.device) -> measure.Row:
    notes: dict[str, Any] = {}

    def piece() -> Cost:
        notes["host_milliseconds"] = round(1e3 * host_seconds(work, device, 5), 2)
        return timed_on(device, work, 5)

    return measure.Row(name=name, what=what, ours=piece, warmups=0, work=(n, "images"), notes=lambda: notes)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes minutes")
    asked, rest = parser.parse_known_args(words)
    device = torch.device(asked.device)

    def rows(smoke: bool) -> Sequence[measure.Row]:
        compiled = not (smoke or asked.no_compile)
        steps = [row for case in (SMOKE_CASES if smoke else CASES) for row in step_rows(case, device, smoke, compiled)]
        return [*view_rows(device, smoke), *loss_rows(device, smoke), *steps]

    return measure.main(__file__, rows, rest, asked.device)


if __name__ == "__main__":
    sys.exit(main())
