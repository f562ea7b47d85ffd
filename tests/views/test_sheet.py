"""The sheet shows the originals and the views where a reader expects them."""

import numpy as np
import pytest
import torch

from barlow.views.sheet import CELL, GAP, MARGIN, view_sheet


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
