"""CPC one prediction at a time: the patch that it is of against all patches of all images."""

import torch
from torch import Tensor


def labels(images: int, rows: int, columns: int, ahead: int) -> list[int]:
    """Which of all patches each prediction is of: of the patch so many rows further on, image by image."""
    return [
        image * rows * columns + (row + ahead) * columns + column
        for image in range(images)
        for row in range(rows - ahead)
        for column in range(columns)
    ]


def cpc(p: Tensor, t: Tensor, width: int, scale: float) -> dict[str, Tensor]:
    """The loss of predictions (n, width · a) and patches (n, width · b)."""
    predictions = [row[k : k + width] for row in p for k in range(0, p.shape[1], width)]
    patches = [row[k : k + width] for row in t for k in range(0, t.shape[1], width)]
    of_image, there = p.shape[1] // width, t.shape[1] // width
    total = p.new_zeros(())
    for i, prediction in enumerate(predictions):
        image, place = divmod(i, of_image)
        right = image * there + (there - of_image) + place
        scores = torch.stack([scale * (prediction * patch).sum() for patch in patches])
        total = total + scores.logsumexp(0) - scores[right]
    return {"contrast": total / len(predictions)}
