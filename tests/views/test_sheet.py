"""The sheet shows the originals and the views where a reader expects them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from barlow.data.preview import DRAWS
from barlow.distributed import World
from barlow.planning import preparation
from barlow.recipe import files, schema
from barlow.recipe.changes import override
from barlow.views.ops import RandomResizedCrop, RandomRotate90
from barlow.views.pipeline import ViewPipeline
from barlow.views.sheet import CELL, GAP, MARGIN, cell_of, view_sheet


def flat(value: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.full((height, width, channels), value, dtype=np.uint8)


def test_a_row_holds_the_original_then_the_draws_of_each_view() -> None:
    originals = [flat(10, 40, 40), flat(60, 300, 300)]
    first = [torch.full((2, 3, 32, 32), 0.2), torch.full((2, 3, 32, 32), 0.4)]
    second = [torch.full((2, 3, 32, 32), 200, dtype=torch.uint8)]
    sheet = view_sheet(originals, [first, second])
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 * (CELL + MARGIN) + MARGIN, 4 * (CELL + MARGIN) + MARGIN + 2 * (GAP - MARGIN), 3)
    step, extra = CELL + MARGIN, GAP - MARGIN
    lefts = [MARGIN, MARGIN + step + extra, MARGIN + 2 * step + extra, MARGIN + 3 * step + 2 * extra]
    for row, original in enumerate((10, 60)):
        top = MARGIN + row * step
        for left, value in zip(lefts, (original, 51, 102, 200), strict=True):
            assert (sheet[top : top + CELL, left : left + CELL] == value).all()
            assert (sheet[:, left - MARGIN : left] == 255).all()
    assert (sheet[:MARGIN] == 255).all()


def test_an_original_keeps_its_aspect_ratio() -> None:
    sheet = view_sheet([flat(0, 400, 100)], [[torch.zeros(1, 3, 8, 8)]])
    cell = sheet[MARGIN : MARGIN + CELL, MARGIN : MARGIN + CELL, 0]
    assert (cell == 0).sum() == CELL * CELL // 4


@pytest.mark.parametrize(("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (13, [0, 1, 2])])
def test_images_of_any_number_of_channels_are_shown(channels: int, shown: list[int]) -> None:
    image = np.broadcast_to(np.arange(channels, dtype=np.uint8) * 9, (20, 20, channels))
    view = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    sheet = view_sheet([image], [[view]])
    for left in (MARGIN, MARGIN + CELL + GAP):
        assert sheet[MARGIN + 5, left + 5].tolist() == [9 * c for c in shown]


def test_views_out_of_range_are_clipped_and_not_wrapped() -> None:
    sheet = view_sheet([flat(0, 8, 8)], [[torch.full((1, 3, 8, 8), 1.2)], [torch.full((1, 3, 8, 8), -0.2)]])
    assert sheet[MARGIN + 5, MARGIN + CELL + GAP + 5, 0] == 255
    assert sheet[MARGIN + 5, MARGIN + 2 * (CELL + GAP) + 5, 0] == 0


def test_a_batch_without_a_view_of_each_image_is_refused() -> None:
    with pytest.raises(ValueError, match="got 1 images and a batch of 2"):
        view_sheet([flat(0, 8, 8)], [[torch.zeros(2, 3, 8, 8)]])
    with pytest.raises(ValueError, match="got 0 images"):
        view_sheet([], [[torch.zeros(0, 3, 8, 8)]])


def test_views_of_different_sizes_fill_cells_of_one_size() -> None:
    halves = torch.zeros(1, 3, 8, 8)
    halves[..., :4] = 1.0
    sheet = view_sheet([flat(0, 8, 8)], [[halves], [halves.repeat_interleave(30, 2).repeat_interleave(30, 3)]])
    for column in (1, 2):
        left = MARGIN + column * (CELL + GAP)
        cell = sheet[MARGIN : MARGIN + CELL, left : left + CELL]
        assert (cell[:, : CELL // 2 - 2] == 255).all()
        assert (cell[:, CELL // 2 + 2 :] == 0).all()


def test_cells_have_the_aspect_ratio_of_the_views_and_are_as_large_as_square_ones() -> None:
    assert cell_of(24) == cell_of(64) == (CELL, CELL)
    assert cell_of((32, 128)) == (CELL // 2, 2 * CELL)
    assert cell_of((128, 32)) == (2 * CELL, CELL // 2)
    high, wide = cell_of((32, 128))
    view = torch.zeros(1, 3, 32, 128)
    view[..., 64:] = 1.0
    sheet = view_sheet([flat(0, 40, 600)], [[view]], (high, wide))
    assert sheet.shape == (high + 2 * MARGIN, 2 * (wide + MARGIN) + MARGIN + GAP - MARGIN, 3)
    left = MARGIN + wide + GAP
    cell = sheet[MARGIN : MARGIN + high, left : left + wide]
    assert (cell[:, : wide // 2 - 2] == 0).all(), "the view fills its cell"
    assert (cell[:, wide // 2 + 2 :] == 255).all()
    original = sheet[MARGIN : MARGIN + high, MARGIN : MARGIN + wide, 0] == 0
    assert original.any(axis=0).all()
    assert original.any(axis=1).sum() == round(wide * 40 / 600), "an image keeps its own aspect ratio"


WHOLE: dict[str, Any] = {"kind": "random_resized_crop", "scale": [1.0, 1.0], "ratio": [1.0, 1.0]}
"""A crop of everything there is of a square image."""


@pytest.mark.parametrize("sizes", [(CELL,), (CELL, 24), (24, CELL)], ids=str)
def test_the_sheet_of_a_run_shows_views_in_any_number_and_size_turned_as_they_are(
    tmp_path: Path, sizes: tuple[int, ...]
) -> None:
    count, draws = 5, DRAWS
    originals = np.random.default_rng(0).integers(0, 256, (count, CELL, CELL, 3), dtype=np.uint8)
    for i, original in enumerate(originals):
        Image.fromarray(original).save(tmp_path / f"{i}.png")
    turned = sizes.index(CELL)
    views = [[WHOLE | {"size": size}] for size in sizes]
    views[turned].append({"kind": "random_rotate90"})
    changes = {"views": views, "data.sources": [str(tmp_path)], "data.image_size": CELL, "train.device": "cpu"}
    recipe = "small_rotation" if len(sizes) == 1 else "small_vicreg"  # rotation would hold every view to the told turn
    chosen = schema.check(override(files.read(recipe), changes))
    sheet = preparation.prepare(chosen, World(torch.device("cpu"))).sheet()
    step = CELL + MARGIN
    assert sheet.shape[1] == (1 + draws * len(sizes)) * step + MARGIN + len(sizes) * (GAP - MARGIN)
    ops = [[RandomResizedCrop(size)] for size in sizes]
    ops[turned].append(RandomRotate90())
    pipeline = ViewPipeline(ops, [0.5] * 3, [0.5] * 3)
    told = [pipeline.told(np.arange(count), chosen.seed, draw)["rotation"].tolist() for draw in range(draws)]
    assert len({k for rotations in told for k in rotations}) == 4
    for row, original in enumerate(originals):
        top, group = MARGIN + row * step, MARGIN + step + (turned + 1) * (GAP - MARGIN) + turned * draws * step
        for draw in range(draws):
            left = group + draw * step
            cell = sheet[top : top + CELL, left : left + CELL].astype(int)
            assert np.abs(cell - np.rot90(original, told[draw][row])).max() <= 1
