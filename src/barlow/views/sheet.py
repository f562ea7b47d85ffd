"""The sheet of views: what the augmentations make of the user's own images, for a person to look at."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from barlow.size import HeightWidth, Size, height_width, largest_inside, resized

CELL = 96
"""Side of a square cell in pixels. A view of 32 pixels still shows each of them, and ten cells still fit a screen."""
MARGIN = 4
GAP = 20
"""Between the original and each group of views, wider than the margin, so that one sees what belongs together."""
PAPER = 255


def png(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def _visible(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
    """The three channels that are shown: the first as grey if there are one or two, else the first three."""
    return np.repeat(image[..., :1], 3, axis=2) if image.shape[2] < 3 else image[..., :3]


def cell_of(view: Size) -> HeightWidth:
    """Height and width of cells for views of some size: of its aspect ratio, and as large as a square cell."""
    return resized(height_width(view), CELL**2)


def _cell(image: UInt[np.ndarray, "h w c"], cell: HeightWidth) -> UInt8[np.ndarray, "high wide 3"]:
    """The image fitted into a cell, its aspect ratio kept. A small image is enlarged so that its pixels show."""
    image = np.ascontiguousarray(_visible(image if image.dtype == np.uint8 else (image // 257).astype(np.uint8)))
    (h, w), (high, wide) = image.shape[:2], cell
    fit_h, fit_w = (max(1, round(side)) for side in largest_inside(cell, (h, w)))
    x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    if h < high and w < wide:
        x = F.interpolate(x, (fit_h, fit_w), mode="nearest-exact")
    else:
        x = F.interpolate(x, (fit_h, fit_w), mode="bicubic", antialias=True)
    out = np.full((high, wide, 3), PAPER, dtype=np.uint8)
    top, left = (high - fit_h) // 2, (wide - fit_w) // 2
    out[top : top + fit_h, left : left + fit_w] = x[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
    return out


def view_sheet(
    originals: Sequence[UInt[np.ndarray, "h w c"]],
    views: Sequence[Sequence[Float[Tensor, "n c _ _"] | UInt8[Tensor, "n c _ _"]]],
    cell: Size = CELL,
) -> UInt8[np.ndarray, "height width 3"]:
    """Draws one row for each image: the original, then several draws of each view.

    Args:
        originals: n images of any size, of 8 or 16 bits.
        views: one group of columns for each view. A group is one or more batches of the n images, each another draw;
            groups may differ in size, and all are shown in cells of one size. Floats are in [0, 1], not normalised.
        cell: size of a cell in pixels.

    Returns:
        The picture. One channel is shown grey; of more than three the first three are shown.

    Raises:
        ValueError: there are no images, or a batch does not have one view of each.
    """
    if not originals or not views:
        raise ValueError(f"view_sheet: got {len(originals)} images and {len(views)} views; give one or more of each.")
    for group in views:
        for batch in group:
            if len(batch) != len(originals):
                raise ValueError(
                    f"view_sheet: got {len(originals)} images and a batch of {len(batch)} views; give one per image."
                )
    columns = 1 + sum(len(group) for group in views)
    high, wide = cell = height_width(cell)
    width = columns * (wide + MARGIN) + MARGIN + len(views) * (GAP - MARGIN)
    sheet = np.full((len(originals) * (high + MARGIN) + MARGIN, width, 3), PAPER, dtype=np.uint8)
    for row, original in enumerate(originals):
        top, left = MARGIN + row * (high + MARGIN), MARGIN
        sheet[top : top + high, left : left + wide] = _cell(original, cell)
        for group in views:
            left += GAP - MARGIN
            for batch in group:
                left += wide + MARGIN
                one = batch[row].detach().cpu()
                one = one.clamp(0, 1).mul(255).round().byte() if one.is_floating_point() else one
                sheet[top : top + high, left : left + wide] = _cell(one.permute(1, 2, 0).numpy(), cell)
    return sheet


def image_sheet(parts: Sequence[Sequence[Sequence[UInt[np.ndarray, "h w c"]]]]) -> UInt8[np.ndarray, "height width 3"]:
    """Draws images in rows, each fitted into a square cell.

    Args:
        parts: rows of images, in parts between which there is a gap. An image may have any size, and 8 or 16 bits.

    Raises:
        ValueError: there are no images.
    """
    rows = [(row, number) for number, part in enumerate(parts) for row in part]
    if not rows:
        raise ValueError("image_sheet: got no images; give one or more.")
    step = CELL + MARGIN
    width = max(len(row) for row, _ in rows) * step + MARGIN
    sheet = np.full((len(rows) * step + MARGIN + rows[-1][1] * (GAP - MARGIN), width, 3), PAPER, dtype=np.uint8)
    for k, (row, number) in enumerate(rows):
        top = MARGIN + k * step + number * (GAP - MARGIN)
        for column, image in enumerate(row):
            left = MARGIN + column * step
            sheet[top : top + CELL, left : left + CELL] = _cell(image, (CELL, CELL))
    return sheet
