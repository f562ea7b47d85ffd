"""A training that writes down which images its steps have seen: `seen_ids.py DATA OUT SEEN EXECUTOR`."""

import json
import sys
from pathlib import Path
from typing import Any

import tiny
import torch

from barlow.distributed import World, joined
from barlow.pretraining import pretrain
from barlow.training.learner import Learner

STEPS = 8

CHANGES: dict[str, Any] = tiny.SMALL | {
    "train.steps": STEPS,
    "train.batch_size": 64,
    "views": [[{"kind": "random_resized_crop", "size": "auto"}]] * 2,
    "train.monitor_images": 40,
    "train.monitor_held_out": True,
    "data.workers": 0,
}


def run(data: Path | None, out: Path, seen: Path, world: World | None = None, **given: Any) -> None:
    """Trains, and adds a line of ids to a file of this process for each step."""
    usual = Learner.step
    lines = seen.with_suffix(f".{0 if world is None else world.rank}.jsonl").open("a", encoding="utf-8")

    def step(self: Learner, batch: Any, rate: float, progress: float) -> Any:
        lines.write(json.dumps(batch.rows.known["ids"].tolist()) + "\n")
        return usual(self, batch, rate, progress)

    Learner.step = step  # type: ignore[method-assign]
    named = {} if data is None else {"recipe": "small_barlow_twins"}
    try:
        with lines:
            pretrain(data, out, progress=False, **named, **given)
    finally:
        Learner.step = usual  # type: ignore[method-assign]


def read(seen: Path, rank: int = 0) -> list[list[int]]:
    """The ids of each step that a process has seen."""
    text = seen.with_suffix(f".{rank}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined("cpu") as world:
        executor = {"data.executor": sys.argv[4]}
        run(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), world, overrides=CHANGES | executor)
