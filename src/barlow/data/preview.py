"""The picture of augmented views that a run saves: a few of its images, and draws of each view."""

import contextlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from barlow.data.decoding import UnreadableImage
from barlow.data.sources import ImageSource
from barlow.views.pipeline import ViewPipeline
from barlow.views.sheet import cell_of, view_sheet

ROWS = 8
DRAWS = 3


def preview(
    source: ImageSource,
    ids: np.ndarray,
    pipeline: ViewPipeline,
    *,
    seed: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> np.ndarray:
    """A row for each of a few images: the original, then some draws of each view, without normalisation.

    Args:
        source: where the images are read.
        ids: of the usable images.
        pipeline: makes the views.
        seed: of the run.
        mean, std: of each channel, which the pipeline has normalised by.
    """
    spread = np.unique(np.linspace(0, len(ids) - 1, ROWS).astype(int))
    read = dict(_readable(source, np.roll(ids, -start)) for start in spread)
    shown, originals = np.array(list(read)), list(read.values())
    means, stds = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    groups: list[list[Tensor]] = [[] for _ in pipeline.views]
    for epoch in range(DRAWS):
        crops = [
            pipeline.crop_one(image.transpose(2, 0, 1), int(i), seed, epoch)
            for i, image in zip(shown, originals, strict=True)
        ]
        stacked = [torch.from_numpy(np.stack([crop[v] for crop in crops])) for v in range(len(groups))]
        for group, view in zip(groups, pipeline.finish(stacked, shown, seed, epoch), strict=True):
            group.append(view * stds + means)
    return view_sheet(originals, groups, cell_of(pipeline.sizes[0]))


def _readable(source: ImageSource, ids: np.ndarray) -> tuple[int, np.ndarray]:
    """The first of these images that can be read; of a large set not all have been tried by now."""
    for i in ids[:-1]:
        with contextlib.suppress(UnreadableImage):
            return int(i), source.read(int(i), 0)
    return int(ids[-1]), source.read(int(ids[-1]), 0)
