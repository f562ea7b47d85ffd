"""Tiles and pairs of patches: what is cut out, where it is laid, what is told; and ops on each tile."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from barlow import orders
from barlow.recipe import files, schema
from barlow.recipe.messages import RecipeError
from barlow.views.each_tile import EachTile
from barlow.views.keys import Keys
from barlow.views.ops import (
    ColorJitter,
    HorizontalFlip,
    Normalize,
    Op,
    PatchPair,
    RandomResizedCrop,
    RandomRotate90,
    Tiles,
    as_images,
)
from barlow.views.ops.tiles import cut, joined
from barlow.views.pipeline import ViewPipeline

Pictures = Callable[..., Tensor]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def keys(n: int, **changes: Any) -> Keys:
    arguments: dict[str, Any] = {"seed": 4, "epoch": 1, "ids": np.arange(n), "view": 0, "op": 2}
    return Keys(**(arguments | changes))


def numbered(n: int, side: int) -> Tensor:
    """Images whose pixels say where they are: the red channel the row, the green one the column."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([rows, columns, rows * 0]).float().expand(n, -1, -1, -1).clone()


def corners_of(x: Tensor, tiling: tuple[int, int]) -> np.ndarray:
    """Where in the view each laid window came from, (n, tiles, 2), with a check that it is one piece."""
    tiles = cut(x, tiling)
    corners = tiles[:, :2, 0, 0]
    side = tiles.shape[-1]
    steps = torch.arange(side)
    assert torch.equal(tiles[:, 0], corners[:, 0, None, None] + steps[None, :, None].expand(-1, -1, side))
    assert torch.equal(tiles[:, 1], corners[:, 1, None, None] + steps[None, None, :].expand(-1, side, -1))
    return corners.view(len(x), tiling[0] * tiling[1], 2).numpy().astype(int)


# -------------------------------------------------------------------------------- what is cut out


def test_windows_lie_anywhere_in_their_cells_and_never_outside() -> None:
    op = Tiles(grid=3, side=64, order="listing")
    corners = corners_of(op(numbered(400, 255), keys(400)), (3, 3))
    cells = np.array(list(itertools.product(range(3), range(3)))) * 85
    offsets = corners - cells
    assert offsets.min() == 0
    assert offsets.max() == 85 - 64
    assert stats.chisquare(np.bincount(offsets.ravel(), minlength=22)).pvalue > 1e-3
    correlation = np.corrcoef(offsets.reshape(400, -1).T) - np.eye(18)
    assert np.abs(correlation).max() < 5 / np.sqrt(400), "every window is drawn by itself, along both axes"


def test_with_a_jitter_windows_lie_that_near_to_the_centres_of_their_cells() -> None:
    op = Tiles(grid=3, side=96, jitter=7, order="listing")
    offsets = corners_of(op(numbered(200, 432), keys(200)), (3, 3)) % 144
    assert (offsets.min(), offsets.max()) == (24 - 7, 24 + 7)


def test_cells_may_overlap_as_in_contrastive_predictive_coding() -> None:
    op = Tiles(grid=6, side=80, stride=36, order="listing")
    assert op.size_after(260) == 480
    corners = corners_of(op(numbered(2, 260), keys(2)), (6, 6))
    assert np.array_equal(corners[0], np.array(list(itertools.product(range(6), range(6)))) * 36)


def test_a_window_is_three_quarters_of_a_cell_where_no_side_is_given() -> None:
    assert [Tiles().size_after(size) for size in (255, 96, 48, 32)] == [3 * 63, 3 * 24, 3 * 12, 3 * 7]
    assert PatchPair().size_after(432) == (96, 192)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_channels_are_taken_from_different_places_when_they_are_shifted(channels: int) -> None:
    op = Tiles(grid=2, side=12, channel_shift=2, order="listing")
    x = numbered(300, 32)[:, :1].expand(-1, channels, -1, -1)
    tiles = cut(op(x, keys(300)), (2, 2))
    apart = (tiles - tiles[:, :1]).flatten(2)
    assert torch.equal(apart.amin(2), apart.amax(2)), "a channel of a window stays in one piece"
    assert set(apart.unique().tolist()) == (set(range(-2, 3)) if channels > 1 else {0.0})
    rows = tiles[:, 0, 0, 0].view(300, 2, 2) - torch.tensor([0, 16]).view(1, 2, 1)
    assert rows.min() == 0
    assert rows.max() == 16 - 12


# -------------------------------------------------------------------------------- where it is laid


@pytest.mark.parametrize("order", ["any", "chosen"])
@pytest.mark.parametrize("grid", [2, 3])
def test_the_order_that_is_told_is_that_in_which_the_windows_lie(grid: int, order: Any) -> None:
    op = Tiles(grid=grid, side=5, order=order, orders=20)
    draws = op.draws(keys(60))
    laid = corners_of(op.apply(numbered(60, 8 * grid), *draws), (grid, grid)) // 8
    ranks = op.told(*draws)
    assert np.array_equal(laid @ [grid, 1], orders.orders_of(ranks, grid**2))
    if order == "chosen":
        assert set(ranks) <= set(orders.ranks_of(orders.chosen_orders(grid**2, 20, "mean")))


def test_laying_the_windows_by_the_inverse_order_restores_the_view() -> None:
    x = torch.rand(30, 3, 12, 12)
    op = Tiles(grid=3, side=4, order="any")
    draws = op.draws(keys(30))
    order = orders.orders_of(op.told(*draws), 9)
    tiles = cut(op.apply(x, *draws), (3, 3)).view(30, 9, 3, 4, 4)
    restored = torch.stack([one[np.argsort(row)] for one, row in zip(tiles, order, strict=True)])
    assert torch.equal(joined(restored.flatten(0, 1), (3, 3)), x)


def test_in_listing_order_nothing_moves_and_rank_zero_is_told() -> None:
    op, x = Tiles(grid=2, side=6, order="listing"), torch.rand(5, 3, 12, 12)
    assert torch.equal(op(x, keys(5)), x)
    assert op.told(*op.draws(keys(5))).tolist() == [0] * 5


def test_all_orders_and_all_of_a_set_are_as_likely() -> None:
    ranks = Tiles(grid=2).told(*Tiles(grid=2).draws(keys(24_000)))
    assert stats.chisquare(np.bincount(ranks, minlength=24)).pvalue > 1e-3
    op = Tiles(grid=2, order="chosen", orders=10)
    chosen = op.told(*op.draws(keys(24_000)))
    assert stats.chisquare(np.unique(chosen, return_counts=True)[1]).pvalue > 1e-3
    assert 0 not in chosen


# V16: (dx, dy) of the neighbour.
POSITIONS = {(-1, -1): 0, (0, -1): 1, (1, -1): 2, (-1, 0): 3, (1, 0): 4, (-1, 1): 5, (0, 1): 6, (1, 1): 7}


def test_the_position_that_is_told_is_that_of_the_neighbour_as_published() -> None:
    op = PatchPair(side=4, jitter=1)
    draws = op.draws(keys(400))
    corners = corners_of(op.apply(numbered(400, 24), *draws), (1, 2))
    middle, neighbour = (corners // 8).transpose(1, 0, 2)
    assert (middle == 1).all()
    assert [POSITIONS[dx, dy] for dy, dx in (neighbour - middle).tolist()] == op.told(*draws).tolist()
    assert stats.chisquare(np.bincount(op.told(*draws), minlength=8)).pvalue > 1e-3
    assert set((corners % 8).ravel().tolist()) == {1, 2, 3}


def test_cutting_and_joining_are_inverse_and_go_row_by_row() -> None:
    x = torch.rand(3, 2, 8, 12)
    assert torch.equal(joined(cut(x, (2, 3)), (2, 3)), x)
    assert torch.equal(cut(x, (2, 3))[6 + 4], x[1, :, 4:, 4:8])
    with pytest.raises(ValueError, match=r"views of 8x12 pixels in 3 × 3 tiles: give views whose sides are multiples"):
        cut(x, (3, 3))


# -------------------------------------------------------------------------------- in a pipeline


def tiled(*after: Op) -> list[list[Op]]:
    return [[RandomResizedCrop(30), HorizontalFlip(), Tiles(grid=3, side=7), *after], [RandomResizedCrop(24)]]


@pytest.mark.parametrize("ways", ["memory", "workers"])
def test_a_pipeline_makes_views_of_tiles_by_its_keys(pictures: Pictures, ways: str) -> None:
    views = tiled(ColorJitter(), EachTile(ColorJitter(), (3, 3)))
    p, pixels, ids = ViewPipeline(views, MEAN, STD), pictures(14, 48), np.array([*range(30, 43), 10**12])
    assert (p.sizes, p.crop_sizes) == ((21, 24), (30, 24))
    if ways == "memory":
        x, made = as_images(pixels), p.from_memory(pixels, None, ids, 8, 3)
    else:
        crops = [p.crop_one(image.numpy(), int(i), 8, 3) for image, i in zip(pixels, ids, strict=True)]
        stacked = [torch.from_numpy(np.stack(view)) for view in zip(*crops, strict=True)]
        x, made = as_images(stacked[0]), p.finish(stacked, ids, 8, 3)
    for position, op in enumerate(views[0]):
        if not (ways == "workers" and position == 0):
            x = op(x, Keys(8, 3, ids, 0, position))
    assert torch.equal(made[0], Normalize(MEAN, STD)(x))
    told = p.told(ids, 8, 3)["permutation"]
    assert np.array_equal(told, views[0][2].told(*views[0][2].draws(Keys(8, 3, ids, 0, 2))))


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ([[Tiles(), RandomResizedCrop(30)]], r"view 1: got tiles before the crop; put it after"),
        ([[RandomResizedCrop((30, 40)), Tiles()]], r"got tiles and a size of 30x40 .* is for square views"),
        ([[RandomResizedCrop(30), PatchPair(side=8), RandomRotate90()]], r"got random_rotate90 and a size of 8x16"),
        (
            [[RandomResizedCrop(30), Tiles(side=11)]],
            r"view 1: tiles: got views of 30 pixels, so cells of 10, and windo",
        ),
        (
            [[RandomResizedCrop(30), PatchPair(side=8, jitter=2)]],
            r"patch_pair: .*cells of 10, and windows that need 12",
        ),
        ([[RandomResizedCrop(30), Tiles(), HorizontalFlip()]], r"horizontal_flip after tiles; put it before"),
    ],
)
def test_a_view_that_cannot_be_tiled_is_refused(views: list[list[Op]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViewPipeline(views, MEAN, STD)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tiles(grid=1), "grid=1; give 2 to 4"),
        (lambda: Tiles(grid=5), "grid=5; give 2 to 4"),
        (lambda: Tiles(grid=65, order="listing"), "grid=65; give 2 to 64"),
        (lambda: Tiles(order="rows"), "order is 'rows'; choose one of listing, any, chosen"),  # type: ignore[arg-type]
        (lambda: Tiles(grid=2, order="chosen", orders=24), "tiles: a set of 24 orders of 4 tiles: give 2 to 23"),
        (lambda: Tiles(side=0), "side=0; give 1 pixels or more, or null"),
        (lambda: PatchPair(jitter=-1), "jitter=-1; give 0 pixels or more"),
        (lambda: Tiles()(torch.zeros(1, 3, 9, 12), keys(1)), "images of 9 × 12 pixels; give square ones"),
        (lambda: EachTile(RandomRotate90(), (3, 3)), "random_rotate90 cannot work on each tile"),
        (lambda: EachTile(RandomResizedCrop(8), (3, 3)), "random_resized_crop cannot work on each tile"),
        (lambda: EachTile(Tiles(), (3, 3)), "tiles cannot work on each tile"),
    ],
)
def test_parameters_out_of_range_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# -------------------------------------------------------------------------------- on each tile


def test_each_tile_is_changed_as_an_image_of_its_own_with_draws_of_its_own() -> None:
    op, x = ColorJitter(1.0), torch.rand(5, 3, 12, 18, generator=torch.Generator().manual_seed(0))
    wrapped = EachTile(op, (2, 3))
    out = cut(wrapped(x, keys(5)), (2, 3)).view(5, 6, 3, 6, 6)
    tiles = cut(x, (2, 3)).view(5, 6, 3, 6, 6)
    for t in range(6):
        at = keys(5, op=2 + (t + 1) * 2**32)
        torch.testing.assert_close(out[:, t], op(tiles[:, t], at), rtol=0, atol=0)
    factors = wrapped.draws(keys(5))[1]
    assert factors.shape == (5, 6, 4)
    assert len(np.unique(factors[..., 0])) == 30


def test_a_sample_becomes_the_same_in_every_batch_when_each_tile_is_changed() -> None:
    op, x = EachTile(ColorJitter(), (3, 3)), torch.rand(6, 3, 12, 12)
    alone = torch.cat([op(x[i : i + 1], keys(6).rows(i, i + 1)) for i in range(6)])
    assert torch.equal(op(x, keys(6)), alone)


def recipe(*after: dict[str, Any]) -> dict[str, Any]:
    content = files.read("small_rotation")
    crop = {"kind": "random_resized_crop", "size": "auto", "scale": [0.3, 1.0], "ratio": [0.75, 1.3]}
    return content | {"views": [[crop, *after]]}


def test_a_recipe_says_of_any_op_that_it_works_on_each_tile() -> None:
    tiles = {"kind": "tiles", "grid": 2, "order": "listing"}
    checked = schema.check(recipe(tiles, {"kind": "grayscale", "p": 0.5, "each_tile": True}, {"kind": "grayscale"}))
    assert checked.views[0][2] == {"kind": "grayscale", "p": 0.5, "each_tile": True}
    assert checked.views[0][3] == {"kind": "grayscale", "p": 0.2}
    again = schema.check(checked.as_dict())
    assert again.views == checked.views
    sized = [[{**checked.views[0][0], "size": 32}, *checked.views[0][1:]]]
    built = schema.check(checked.as_dict() | {"views": sized}).build_views()[0]
    assert isinstance(built[2], EachTile)
    assert built[2].tiling_of_views == (2, 2)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ([{"kind": "grayscale", "each_tile": True}], r"views.0.1.each_tile: no op before it lays tiles"),
        ([{"kind": "tiles"}, {"kind": "grayscale", "each_tile": 3}], r"views.0.2.each_tile is 3: give true or false"),
        (
            [{"kind": "tiles"}, {"kind": "random_rotate90", "each_tile": True}],
            r"views.0.2: random_rotate90 cannot work",
        ),
        ([{"kind": "tiles", "grids": 3}], r"unknown key views.0.1.grids"),
        ([{"kind": "tiles", "grid": 1}], r"grid=1; give 2 to 4"),
    ],
)
def test_what_a_recipe_cannot_mean_is_refused(after: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        schema.check(recipe(*after))
