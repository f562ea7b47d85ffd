"""Two views of 224 pixels from a JPEG's bytes, on one core: ours against the papers' (Pillow and torchvision)."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import numpy as np
import papers
import pictures
import torch
from clock import counted
from either import either
from PIL import Image

from barlow.data.decoding import Array, decode
from barlow.data.loader import StreamingLoader
from barlow.views.pipeline import ViewPipeline

read = either("barlow.recipe.files:read", "barlow.recipe:read")
check = either("barlow.recipe.schema:check", "barlow.recipe:check")
override = either("barlow.recipe.changes:override", "barlow.recipe:override")
opencv = either("barlow.views.ops._opencv:opencv", "barlow.views.ops:_opencv")

NAME, SIZE, BATCH = "imagenet/barlow_twins", 224, 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GPU_CORES, GPU_IMAGES_PER_SECOND = 16, 1_700
"""A GPU's share of a machine's cores, and what a ResNet-50 takes there (docs/performance.md)."""


class Held:
    """Images as the bytes of their files, in memory: what is measured begins there."""

    name = "held"
    classes: list[str] | None = None
    labels = None

    def __init__(self, files: list[bytes]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def locate(self, index: int) -> str:
        return f"held[{index}]"

    def read(self, index: int, min_side: int = 0) -> Array:
        return decode(self.files[index], min_side=min_side)


def pipeline() -> ViewPipeline:
    chosen = read(NAME)
    for view in chosen["views"]:
        view[0]["size"] = SIZE
    return ViewPipeline(check(override(chosen, {"data.sources": ["x"]})).build_views(), MEAN, STD)


def rows(smoke: bool) -> list[measure.Row]:
    torch.set_num_threads(1)
    folder, what = pictures.native_jpegs(pictures.home())
    files = [path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix.lower() in (".jpg", ".jpeg")]
    files = files[: BATCH if smoke else 4 * BATCH]
    count, ours = len(files), pipeline()
    theirs = papers.views(SIZE, normalize=(MEAN, STD))
    loader = StreamingLoader(Held(files), np.arange(count), ours, BATCH, seed=0, workers=0)
    epoch = 0

    def all_crops() -> None:
        """What workers do."""
        for start in range(0, count, BATCH):
            crop = ours.cropper(np.arange(start, start + BATCH), 0, epoch)
            for row, data in enumerate(files[start : start + BATCH]):
                crop(decode(data).transpose(2, 0, 1), row)

    def views() -> None:
        nonlocal epoch
        for _ in loader.stream(epoch * loader.steps_per_epoch, (epoch + 1) * loader.steps_per_epoch):
            pass
        epoch += 1

    def views_without_opencv() -> None:
        with mock.patch(f"{opencv.__module__}.{opencv.__name__}", return_value=None):
            views()

    def views_of_the_papers() -> None:
        for start in range(0, count, BATCH):
            made = []
            for data in files[start : start + BATCH]:
                image = Image.open(io.BytesIO(data)).convert("RGB")
                made.append([view(image) for view in theirs])
            for batch in zip(*made, strict=True):
                torch.stack(batch)

    def decoding() -> None:
        for data in files:
            decode(data)

    def what_workers_do() -> dict[str, Any]:
        decode_ms, crop_ms = (1e3 * _least(work) / count for work in (decoding, all_crops))
        return {
            "decode_ms_an_image": round(decode_ms, 3),
            "decode_and_crop_ms_an_image": round(crop_ms, 3),
            f"images_per_second_that_{GPU_CORES}_cores_crop": round(GPU_CORES * 1e3 / crop_ms),
            "images_per_second_that_a_gpu_takes": GPU_IMAGES_PER_SECOND,
        }

    work = f"two {SIZE}-px views of {NAME} of each of {count} of {what}, in batches of {BATCH}, one thread"
    return [
        measure.Row(
            name="views_from_jpeg",
            what=f"{work}, {'without' if opencv() is None else 'with'} OpenCV",
            ours=counted(views),
            reference=counted(views_of_the_papers),
            reference_name="Pillow and torchvision's transforms, as in the papers' code",
            at_least=3.5,
            work=(count, "images"),
            notes=what_workers_do,
        ),
        measure.Row(
            name="views_from_jpeg_without_opencv",
            what=f"{work}, as where OpenCV is not installed",
            ours=counted(views_without_opencv),
            reference=counted(views_of_the_papers),
            reference_name="Pillow and torchvision's transforms, as in the papers' code",
            work=(count, "images"),
        ),
    ][: 1 if smoke else 2]


def _least(work: Callable[[], object], times: int = 3) -> float:
    """Seconds of this one thread, the least of some: what a core can do."""
    costs = [counted(work)() for _ in range(times)]
    return min(cost.processor or cost.wall for cost in costs)


if __name__ == "__main__":
    sys.exit(measure.main(__file__, rows))
