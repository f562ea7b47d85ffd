"""Where the time of a step goes, as text: benchmarks/profiles/CASE.txt.

    python benchmarks/profile_step.py small

The loop's own parts first (the views, and of the rest forward, objective and backward together, the update), by the
clock; then torch's operators, by torch's profiler, which makes small ones look slower than they are.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import step
import torch
from torch.profiler import ProfilerActivity, profile

from barlow import storage
from barlow.distributed import World, choose_device
from barlow.machine import environment
from barlow.training.train import Course, train
from barlow.training.watchers import Moment

PROFILES = Path(__file__).resolve().parent / "profiles"
OPERATORS = 25
PIECES = 20
"""Of a case's steps: so many are counted."""


def profiled(case: step.Case, folder: Path) -> str:
    steps = PIECES * case.steps
    world = World(choose_device("auto"))
    learner, loader = step.prepared(case, folder, world)
    moments: list[Moment] = []
    updates: list[float] = []

    def run(count: int) -> None:
        moments.clear()
        updates.clear()
        train(learner, loader.stream(0, count), Course(count, 1e-4, lambda step, total: 1.0), [moments.append])

    def before(*_: object) -> None:
        updates.append(-time.perf_counter())

    def after(*_: object) -> None:
        updates[-1] += time.perf_counter()

    learner.optimizer.register_step_pre_hook(before)
    learner.optimizer.register_step_post_hook(after)
    run(step.LEFT_OUT + steps)
    counted = moments[step.LEFT_OUT :]
    whole = statistics.median(m.step_seconds for m in counted)
    views = statistics.median(m.wait_seconds for m in counted)
    update = statistics.median(updates[step.LEFT_OUT :])
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run(max(2, steps // 4))
    table = profiler.key_averages().table(
        sort_by="self_cpu_time_total", row_limit=OPERATORS, max_name_column_width=50, max_src_column_width=0
    )
    hardware = environment(str(world.device))["hardware"]
    parts = {"views, waited for": views, "forward, objective, backward": whole - views - update, "update": update}
    lines = [
        f"A step of {case.what}, {case.recipe}; {hardware['cores']} cores of {hardware['processor']}, "
        f"torch {torch.__version__}",
        f"{1e3 * whole:8.1f} ms  a step, median of {len(counted)}",
        *(f"{1e3 * seconds:8.1f} ms  {100 * seconds / whole:3.0f} %  {name}" for name, seconds in parts.items()),
        "",
        *(line.rstrip() for line in table.splitlines()),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("case", choices=[case.name for case in step.CASES])
    name = parser.parse_args().case
    case = next(case for case in step.CASES if case.name == name)
    text = profiled(case, step.images(case))
    storage.write_text(PROFILES / f"{name}.txt", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
