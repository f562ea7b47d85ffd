"""Tiles: windows cut out of the cells of a view, and laid side by side as one image.

A view of tiles stays one image, so that everything which handles views (previews, chunks, workers, GPUs) handles it. A
network that looks at tiles cuts it again: `cut` and `joined` are inverse to each other. Ops after one of these ops can
have `each_tile: true` in a recipe; then every tile gets draws of its own (`barlow.views.each_tile`).
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from barlow import orders as tile_orders
from barlow.size import Size, words
from barlow.types import Images
from barlow.views.keys import Keys
from barlow.views.ops._op import Op
from barlow.views.ops._opencv import interleaved

__all__ = ["PatchPair", "Tiles"]

Order = Literal["listing", "any", "chosen"]

NEIGHBOURS = np.array([(row, column) for row in range(3) for column in range(3) if (row, column) != (1, 1)])
"""Row and column of each position around the centre of nine cells, in reading order: the classes of context
prediction."""

SHIFTED = 3
"""Channels that get a shift of their own; further channels take those of the first again."""


@dataclass(frozen=True)
class Tiles(Op):
    """Takes a window out of each of grid × grid cells of a square view, and lays the windows side by side.

    The result is one image of (grid · side) pixels a side, without gaps between the windows. Where in its cell a window
    lies is drawn for each window: anywhere, or near the cell's centre. Between neighbours there is so a gap of
    unforeseeable width, and edges that run on from one to the next do not tell how they lay.

    Tells the order in which the windows were laid as ``permutation``: its rank (`barlow.orders`), 0 if nothing moved.

    Source: Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles (arXiv
        1603.09246), section 3: cells of 85 pixels, windows of 64, 100 and more orders; MehdiNoroozi/JigsawPuzzleSolver
        at 8c7ec09 shifts the colour channels. Misra and van der Maaten, Self-Supervised Learning of Pretext-Invariant
        Representations (arXiv 1912.01991), section 3.3: any order.
    Convention: pixels are moved and never interpolated.
    Deviation: a channel's shift is part of the window's room, so that no window reaches out of its cell.

    Args:
        grid: cells along a side.
        side: of a window in pixels; null: three quarters of a cell's, as 64 of 85 pixels are.
        stride: from one cell to the next in pixels. Cells overlap where they are larger than that. null: as large as
            the cells, which then cover the view.
        jitter: how far a window may lie from its cell's centre each way, in pixels; null: anywhere in the cell.
        order: listing (as they lay, row by row), any (each of all orders alike), or chosen (one of `orders`).
        orders: how many orders to choose from; they are chosen to be far from each other.
        distance: mean or min: what is far (`barlow.orders.chosen_orders`).
        channel_shift: by how many pixels red, green and blue of a window may be taken from different places.

    Raises:
        ValueError: a grid of less than two cells, or of more than twenty where tiles are shuffled; a window, a stride,
            a jitter or a shift that is out of range, or that leaves no room in the views; an unknown order.
    """

    grid: int = 3
    side: int | None = None
    stride: int | None = None
    jitter: int | None = None
    order: Order = "any"
    orders: int = 100
    distance: tile_orders.Distance = "mean"
    channel_shift: int = 0

    geometric: ClassVar[bool] = True
    square: ClassVar[bool] = True
    tells: ClassVar[str | None] = "permutation"

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise ValueError(f"tiles: order is {self.order!r}; choose one of {', '.join(get_args(Order))}.")
        if self.grid < 2 or self.grid > 64 or (self.order != "listing" and self.grid**2 > tile_orders.MOST_TILES):
            most = 64 if self.order == "listing" else 4
            raise ValueError(f"tiles: got grid={self.grid}; give 2 to {most} cells along a side.")
        if self.order == "chosen":
            try:
                tile_orders.check_set(self.grid**2, self.orders, self.distance)
            except ValueError as error:
                raise ValueError(f"tiles: {error}") from None
        _check_window("tiles", side=self.side, stride=self.stride, jitter=self.jitter, channel_shift=self.channel_shift)

    def tiling(self) -> tuple[int, int]:
        """Rows and columns of the tiles in the result."""
        return self.grid, self.grid

    def size_after(self, size: Size) -> Size:
        """The size of the result for views of a size."""
        return self.grid * self._room(size)[2]

    def _room(self, size: Size) -> tuple[int, int, int]:
        """From one cell to the next, the side of a cell, and that of a window."""
        return _room("tiles", size, self.grid, self.side, self.stride, self.jitter, self.channel_shift)

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """What is drawn for each image.

        Returns:
            Where each window lies in its room, from 0 to 1 along both axes, (n, tiles, 2). Which window lies at each
            place, (n, tiles). Where each channel lies in the room of its shift, (n, tiles, channels, 2).
        """
        n, tiles = len(keys.ids), self.grid**2
        places = keys.uniforms(0, 2 * tiles).T.reshape(n, tiles, 2)
        shifts = np.zeros((n, tiles, 0, 2))
        if self.channel_shift:
            shifts = keys.uniforms(3 * tiles, 2 * tiles * SHIFTED).T.reshape(n, tiles, SHIFTED, 2)
        return places, self._orders(keys), shifts

    def _orders(self, keys: Keys) -> Int64[np.ndarray, "n tiles"]:
        n, tiles = len(keys.ids), self.grid**2
        if self.order == "listing":
            return np.tile(np.arange(tiles), (n, 1))
        if self.order == "any":
            return np.argsort(keys.uniforms(2 * tiles, tiles).T, axis=1, kind="stable")
        chosen = tile_orders.chosen_orders(tiles, self.orders, self.distance)
        return chosen[(self.orders * keys.uniform(2 * tiles)).astype(np.int64)]

    def told(
        self, places: np.ndarray, order: Int64[np.ndarray, "n tiles"], shifts: np.ndarray
    ) -> Int64[np.ndarray, "n"]:
        """The rank of the order in which each image's windows lie."""
        if self.order == "listing":
            return np.zeros(len(order), np.int64)
        return tile_orders.ranks_of(order)

    def apply(self, x: Images, places: np.ndarray, order: np.ndarray, shifts: np.ndarray) -> Images:
        """See the class. The images given stay as they were."""
        n = len(x)
        stride, cell, side = self._room(_square("tiles", x))
        corners = _corners(places, cell - side - self.channel_shift, self.jitter)
        cells = np.stack(np.divmod(np.arange(self.grid**2), self.grid), axis=1) * stride
        corners = np.take_along_axis(corners + cells, order[..., None], axis=1)
        moved = np.floor(shifts * (self.channel_shift + 1)).astype(np.int64)
        moved = np.take_along_axis(moved, order[..., None, None], axis=1) if moved.size else moved
        return laid(x, corners.reshape(n, self.grid, self.grid, 2), side, moved)


@dataclass(frozen=True)
class PatchPair(Op):
    """Takes two windows out of a square view, the middle one of 3 × 3 and a neighbour, and lays them side by side.

    The result is one image of side × (2 · side) pixels, the middle window on the left. Which of the eight neighbours is
    on the right is drawn for each image, and told as ``position``: 0 is above on the left, and then row by row.

    Source: Doersch et al., Unsupervised Visual Representation Learning by Context Prediction (arXiv 1505.05192),
        section 3: windows of 96 pixels, 48 apart, each moved by up to 7 pixels. google/revisiting-self-supervised at
        b530e3b, and mmselfsup at db861f3: 64 of 85 pixels, pairs with the middle window.
    Convention: pixels are moved and never interpolated.
    Deviation: one pair is drawn for each view; the paper takes every pair of neighbours of a grid, both ways.

    Args:
        side: of a window in pixels; null: two thirds of a cell's, as 96 of 144 pixels are.
        jitter: how far a window may lie from its cell's centre each way, in pixels; null: anywhere in the cell.

    Raises:
        ValueError: a window or a jitter out of range, or that leaves no room in the views.
    """

    side: int | None = None
    jitter: int | None = None

    geometric: ClassVar[bool] = True
    square: ClassVar[bool] = True
    tells: ClassVar[str | None] = "position"

    def __post_init__(self) -> None:
        _check_window("patch_pair", side=self.side, jitter=self.jitter)

    def tiling(self) -> tuple[int, int]:
        """One row of two tiles."""
        return 1, 2

    def size_after(self, size: Size) -> Size:
        """The size of the result for views of a size."""
        *_, side = self._room(size)
        return side, 2 * side

    def _room(self, size: Size) -> tuple[int, int, int]:
        return _room("patch_pair", size, 3, self.side, None, self.jitter, 0, share=2 / 3)

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Where each window lies in its room, from 0 to 1 along both axes, (n, 2, 2); and which neighbour it is."""
        places = keys.uniforms(0, 4).T.reshape(len(keys.ids), 2, 2)
        return places, (len(NEIGHBOURS) * keys.uniform(4)).astype(np.int64)

    def told(self, places: np.ndarray, position: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
        """Which neighbour of each image lies beside its middle window, 0 to 7."""
        return position

    def apply(self, x: Images, places: np.ndarray, position: np.ndarray) -> Images:
        """See the class. The images given stay as they were."""
        stride, cell, side = self._room(_square("patch_pair", x))
        cells = np.stack([np.ones((len(x), 2), np.int64), NEIGHBOURS[position]], axis=1) * stride
        corners = _corners(places, cell - side, self.jitter) + cells
        return laid(x, corners.reshape(len(x), 1, 2, 2), side, np.zeros((len(x), 2, 0, 2), np.int64))


def laid(
    x: Images,
    corners: Int64[np.ndarray, "n rows columns 2"],
    side: int,
    shifts: Int64[np.ndarray, "n tiles channels 2"],
) -> Images:
    """Windows of each image, laid side by side in rows and columns.

    Args:
        x: the images.
        corners: top and left of the window that is laid at each place.
        side: of the windows in pixels.
        shifts: how much further down and right each channel of a window is taken; no channels: none is.
    """
    n, c, _, width = x.shape
    rows, columns = corners.shape[1:3]
    channels = c if shifts.size else 1
    where = np.broadcast_to(corners[:, None], (n, channels, rows, columns, 2))
    if shifts.size:
        of_channels = shifts[:, :, np.arange(c) % shifts.shape[2]].transpose(0, 2, 1, 3)
        where = where + of_channels.reshape(n, c, rows, columns, 2)
    starts = torch.from_numpy(np.ascontiguousarray(where[..., 0] * width + where[..., 1])).to(x.device)
    steps = torch.arange(side, device=x.device)
    inside = steps[:, None, None] * width + steps  # row of a window, column of tiles, column of a window
    pixels = (starts[:, :, :, None, :, None] + inside).flatten(2)
    out = x.flatten(2).gather(2, pixels.expand(n, c, -1)).view(n, c, rows * side, columns * side)
    return out.contiguous(memory_format=torch.channels_last) if interleaved(x) else out


def cut(x: Images, tiling: tuple[int, int]) -> Float[Tensor, "n*tiles c high wide"]:
    """The tiles of each image, one image's after the other's, row by row.

    Args:
        x: images of tiles that lie side by side.
        tiling: rows and columns of them.

    Raises:
        ValueError: a side of the images is no multiple of their number.
    """
    (rows, columns), (n, c, height, width) = tiling, x.shape
    if height % rows or width % columns:
        raise ValueError(
            f"views of {words((height, width))} pixels in {rows} × {columns} tiles: give views whose sides are "
            "multiples of these, as the ops tiles and patch_pair make them"
        )
    high, wide = height // rows, width // columns
    tiles = x.reshape(n, c, rows, high, columns, wide).permute(0, 2, 4, 1, 3, 5)
    return tiles.reshape(n * rows * columns, c, high, wide)


def joined(tiles: Float[Tensor, "n*tiles c high wide"], tiling: tuple[int, int]) -> Images:
    """Images of the tiles side by side: the inverse of `cut`."""
    (rows, columns), (c, high, wide) = tiling, tiles.shape[1:]
    x = tiles.reshape(-1, rows, columns, c, high, wide).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(-1, c, rows * high, columns * wide)


def _square(name: str, x: Images) -> int:
    height, width = x.shape[2:]
    if height != width:
        raise ValueError(f"{name}: got images of {height} × {width} pixels; give square ones: put the crop before it.")
    return int(height)


def _check_window(name: str, **given: int | None) -> None:
    """Raises ValueError for a length in pixels that is too small."""
    for key, value in given.items():
        least = 1 if key in ("side", "stride") else 0
        if value is not None and value < least:
            raise ValueError(f"{name}: got {key}={value}; give {least} pixels or more, or null.")


def _room(
    name: str,
    size: Size,
    grid: int,
    side: int | None,
    stride: int | None,
    jitter: int | None,
    shift: int,
    share: float = 3 / 4,
) -> tuple[int, int, int]:
    """From one cell to the next, the side of a cell, and the side of a window; checked against each other."""
    if not isinstance(size, int):
        raise ValueError(f"{name}: got views of {words(size)} pixels; give square ones.")
    step = size // grid if stride is None else stride
    cell = step if stride is None else size - (grid - 1) * stride
    window = max(1, math.floor(share * cell)) if side is None else side
    needed = window + shift + 2 * (jitter or 0)
    if cell < needed or step < 1:
        raise ValueError(
            f"{name}: got views of {size} pixels, so cells of {max(cell, 0)}, and windows that need {needed}; give "
            "larger views, or smaller windows."
        )
    return step, cell, window


def _corners(places: Float[np.ndarray, "n tiles 2"], room: int, jitter: int | None) -> Int64[np.ndarray, "n tiles 2"]:
    """Top and left of each window in its cell, where it has so many pixels of room along each axis."""
    if jitter is None:
        return np.floor(places * (room + 1)).astype(np.int64)
    return room // 2 - jitter + np.floor(places * (2 * jitter + 1)).astype(np.int64)
