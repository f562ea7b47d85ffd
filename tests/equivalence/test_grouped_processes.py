"""Grouped batch norm in one process, two, three: the same values, gradients and running statistics."""

from pathlib import Path

import grouped_worlds
import pytest
import torch
import worlds
from nightly_log import record

from barlow.distributed import World

ALLOWED = 1e-8


@pytest.mark.nightly
@pytest.mark.parametrize("processes", [2, 3])
def test_groups_across_processes_are_the_groups_of_one_process(processes: int, tmp_path: Path) -> None:
    for done in worlds.start([grouped_worlds.__file__, str(tmp_path)], processes):
        assert done.returncode == 0, done.stderr
    shared = [torch.load(tmp_path / f"{rank}.pt") for rank in range(processes)]
    for rows in shared[0]:
        reference = grouped_worlds.found(World(torch.device("cpu")), rows)
        for ours in shared:
            assert all(ours[rows][name].equal(value) for name, value in shared[0][rows].items()), rows
        errors = worlds.differences(shared[0][rows], reference)
        assert {name: error for name, error in errors.items() if error > ALLOWED} == {}, rows
        record(
            kind="processes",
            name=f"batch norm in groups of {rows}",
            processes=processes,
            error=max(errors.values()),
            allowed=ALLOWED,
        )
