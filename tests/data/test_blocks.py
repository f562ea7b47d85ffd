"""What several processes load is what one does: each its own rows, in the order of the processes."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from barlow.data.folder import FolderSource
from barlow.data.loader import MemoryLoader, StreamingLoader
from barlow.data.memory import hold
from barlow.distributed import World
from barlow.planning import preparation
from barlow.recipe.request import chosen_recipe
from barlow.views.ops import HorizontalFlip, RandomResizedCrop
from barlow.views.pipeline import ViewPipeline

BATCH, STEPS = 6, 5


def loader(kind: str, source: FolderSource, block: slice | None) -> MemoryLoader | StreamingLoader:
    ops = (RandomResizedCrop(size=8), HorizontalFlip())
    pipeline = ViewPipeline([ops, ops], mean=[0.5] * 3, std=[0.2] * 3)
    if kind == "streaming":
        return StreamingLoader(source, np.arange(len(source)), pipeline, BATCH, seed=3, workers=0, block=block)
    _, held = hold(source, 16)
    return MemoryLoader(held.pixels, held.sizes, held.ids, pipeline, BATCH, seed=3, block=block)


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("kind", ["memory", "streaming"])
def test_the_blocks_of_all_processes_are_the_batch_of_one(kind: str, processes: int, tmp_path: Path) -> None:
    for number, image in enumerate(np.random.default_rng(0).integers(0, 256, (14, 12, 16, 3), dtype=np.uint8)):
        Image.fromarray(image).save(tmp_path / f"{number:02d}.png")
    source = FolderSource([tmp_path])
    alone = loader(kind, source, None)
    worlds = [World(torch.device("cpu"), rank, processes) for rank in range(processes)]
    shares = [loader(kind, source, world.block(BATCH)) for world in worlds]
    assert {share.steps_per_epoch for share in shares} == {alone.steps_per_epoch}
    for whole, *parts in zip(alone.stream(0, STEPS), *(share.stream(0, STEPS) for share in shares), strict=True):
        assert torch.cat([part.rows.known["ids"] for part in parts]).equal(whole.rows.known["ids"])
        assert {(part.step, part.epoch) for part in parts} == {(whole.step, whole.epoch)}
        for k, view in enumerate(whole.rows.views):
            assert torch.cat([part.rows.views[k] for part in parts]).equal(view)


@pytest.mark.parametrize("executor", ["in_memory", "streaming"])
def test_what_a_run_prepares_for_a_process_loads_the_rows_of_that_process(executor: str, tmp_path: Path) -> None:
    data = tiny.images(tmp_path / "photos", 32)
    chosen = chosen_recipe(data, overrides=tiny.SMALL | {"data.executor": executor, "data.workers": 0})
    device = torch.device("cpu")
    whole, *parts = (
        next(preparation.prepare(chosen, world).loader.stream(1, 2))
        for world in (World(device), World(device, 0, 2), World(device, 1, 2))
    )
    assert [len(part.rows.known["ids"]) for part in parts] == [8, 8]
    assert torch.cat([part.rows.known["ids"] for part in parts]).equal(whole.rows.known["ids"])
