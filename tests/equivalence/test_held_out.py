"""Images that are kept from training for the monitor: no step sees them, whatever the number of processes."""

from pathlib import Path

import numpy as np
import pytest
import seen_ids
import tiny
import torch
import worlds

from barlow import storage
from barlow.data.held_out import FEWEST, MOST, divided, held_out
from barlow.data.loader import Batch
from barlow.data.memory import hold
from barlow.data.sources import open_source
from barlow.distributed import World
from barlow.planning.preparation import prepare
from barlow.recipe.request import chosen_recipe
from barlow.runs.run import Run
from barlow.training.monitor import Monitor

IMAGES = 1_600
"""The fewest of which some are held out."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("held out") / "photos", IMAGES, side=8)


@pytest.fixture(scope="module")
def apart() -> set[int]:
    """The images that a run of seed 0 holds out."""
    return set(held_out(np.arange(IMAGES), 0).tolist())


def all_of(steps: list[list[int]]) -> set[int]:
    return {id for step in steps for id in step}


def test_no_step_sees_them_and_the_monitor_sees_nothing_else(
    photos: Path, apart: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[list[int]] = []
    usual = Monitor.look

    def look(self: Monitor, *arguments: int, **options: bool) -> None:
        looked_at.append(self.views.ids.tolist())
        usual(self, *arguments, **options)

    monkeypatch.setattr(Monitor, "look", look)
    changes = seen_ids.CHANGES | {"train.steps": 25}
    seen_ids.run(photos, tmp_path / "run", tmp_path / "seen", overrides=changes)
    steps = seen_ids.read(tmp_path / "seen")
    assert [len(step) for step in steps] == [64] * 25
    assert len(all_of(steps[:24])) == 24 * 64, "an epoch has each of the others once, but for what fills no batch"
    assert not all_of(steps) & apart
    assert len(apart) == FEWEST
    assert all_of(looked_at) == apart
    lines = Run(tmp_path / "run").monitored()
    assert [line["images"] for line in lines] == [{"count": 32, "views": 2, "held_out": True}] * len(lines)
    data = storage.read_sealed(tmp_path / "run" / "data.json")
    assert (data["usable"], data["held_out"]) == (IMAGES, 32)


def test_nor_does_one_after_a_resumption(photos: Path, apart: set[int], tmp_path: Path) -> None:
    seen_ids.run(photos, tmp_path / "run", tmp_path / "seen", overrides=seen_ids.CHANGES | {"train.steps": 3})
    seen_ids.run(None, tmp_path / "run", tmp_path / "seen", resume=True, overrides={"train.steps": seen_ids.STEPS})
    steps = seen_ids.read(tmp_path / "seen")
    assert len(steps) == seen_ids.STEPS
    assert not all_of(steps) & apart


def test_each_of_two_processes_has_half_the_rows_of_one_and_holds_out_the_same(photos: Path, apart: set[int]) -> None:
    chosen = chosen_recipe(photos, recipe="small_barlow_twins", overrides=seen_ids.CHANGES)
    three = [World(torch.device("cpu"), rank, size) for rank, size in ((0, 1), (0, 2), (1, 2))]
    made = [prepare(chosen, world) for world in three]
    alone, *halves = ([rows_of(batch) for batch in each.loader.stream(0, 24)] for each in made)
    assert [a + b for a, b in zip(*halves, strict=True)] == alone
    assert not all_of(alone) & apart
    assert [set(each.held_out.tolist()) for each in made] == [apart] * 3


def rows_of(batch: Batch) -> list[int]:
    ids: list[int] = batch.rows.known["ids"].tolist()
    return ids


@pytest.mark.nightly
def test_no_step_of_two_processes_that_stream_sees_them(photos: Path, apart: set[int], tmp_path: Path) -> None:
    program = [seen_ids.__file__, str(photos), str(tmp_path / "run"), str(tmp_path / "seen"), "streaming"]
    for done in worlds.start(program, 2):
        assert done.returncode == 0, done.stderr
    ranks = [seen_ids.read(tmp_path / "seen", rank) for rank in range(2)]
    assert [len(step) for rank in ranks for step in rank] == [32] * 2 * seen_ids.STEPS
    seen_ids.run(photos, tmp_path / "one", tmp_path / "alone", overrides=seen_ids.CHANGES)
    alone = seen_ids.read(tmp_path / "alone")
    assert not all_of(alone) & apart
    assert [a + b for a, b in zip(*ranks, strict=True)] == alone, "the same rows, half of them in each process"


def test_of_few_images_none_is_held_out_and_that_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    few = tiny.images(tmp_path / "few", 64)
    changes = seen_ids.CHANGES | {"train.steps": 2}
    seen_ids.run(few, tmp_path / "run", tmp_path / "seen", overrides=changes, tell=said.append)
    assert (
        "held out none of 64 images for the monitor, which looks at training images: from 1,600 on, 2% are held out"
        in said
    )
    assert Run(tmp_path / "run").monitored()[-1]["images"]["held_out"] is False


def test_the_choice_is_by_the_image_and_not_by_its_place() -> None:
    ids = np.arange(30_000)
    trained, apart = divided(ids, 3, wanted=True)
    assert len(apart) == MOST
    assert np.array_equal(np.sort(np.concatenate([trained, apart])), ids)
    assert abs(apart.mean() - 15_000) < 2_000, "from everywhere"
    assert len(set(held_out(ids[ids != apart[7]], 3)) & set(apart)) == MOST - 1, (
        "one more is taken for one that is lost"
    )
    assert len(set(held_out(ids, 4)) & set(apart)) < 50
    assert [len(part) for part in divided(ids, 3, wanted=False)] == [30_000, 0]
    assert [len(part) for part in divided(ids[:1_599], 3, wanted=True)] == [1_599, 0]


def test_what_is_held_in_memory_is_moved_together(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("barlow.data.memory.MOVED", 7)
    source = open_source(str(photos))
    inventory, held = hold(source, 8)
    some = np.delete(inventory.ids, [0, 5, 6, 900, IMAGES - 1])
    left = held.only(some)
    assert left.ids.tolist() == some.tolist()
    assert inventory.ids.tolist() == list(range(IMAGES))
    for row in (0, 3, 4, 700, 896, len(some) - 1):
        assert np.array_equal(left.pixels[row].numpy(), source.read(int(some[row])).transpose(2, 0, 1))
    assert held.only(inventory.ids) is held
