"""What `pretrain` hands to the gradient: the recipe's weight of the loss, and random numbers for layers that draw."""

import json
from pathlib import Path

import pytest
import tiny
import torch

from barlow.distributed import World
from barlow.pretraining import pretrain
from barlow.training.learner import _draws


@pytest.mark.parametrize("rows_in_memory", [None, 8])
def test_a_run_weighs_its_gradient_as_the_recipe_says_and_logs_the_loss_as_it_is(
    rows_in_memory: int | None, tmp_path: Path
) -> None:
    data = tiny.images(tmp_path / "photos", 32)
    logs = []
    for weight in (1.0, 0.25):
        changes = tiny.SMALL | {"train.steps": 1, "optim.loss_weight": weight}
        run = pretrain(
            data, tmp_path / f"run-{weight}", overrides=changes, rows_in_memory=rows_in_memory, progress=False
        )
        logs.append(json.loads((run.run_folder / "metrics.jsonl").read_text()))
    whole, part = logs
    assert part["gradient_norm"] == pytest.approx(0.25 * whole["gradient_norm"], rel=1e-6)
    assert part["terms"] == whole["terms"]
    assert part["loss"] == whole["loss"]


def test_every_step_process_and_chunk_draws_its_own_numbers_and_the_same_again() -> None:
    def drawn(seed: int, step: int, rank: int, chunk: int) -> tuple[float, ...]:
        with _draws(seed, step, World(torch.device("cpu"), rank, 3))(chunk):
            return tuple(torch.rand(4).tolist())

    keys = [(s, t, r, c) for s in range(2) for t in range(3) for r in range(3) for c in range(3)]
    found = {key: drawn(*key) for key in keys}
    assert len(set(found.values())) == len(keys)
    assert found == {key: drawn(*key) for key in reversed(keys)}
