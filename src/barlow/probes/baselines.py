"""What an encoder is compared with: the raw pixels, and the same network before any training."""

from collections.abc import Iterator
from pathlib import Path

from torch import nn
from torch.nn import functional as F

from barlow import storage
from barlow.data.labelled import LabelledSet
from barlow.nets.building import build_encoder
from barlow.nets.norms import recalibrated
from barlow.probes.report import ENCODER, PIXELS, UNTRAINED
from barlow.size import resized
from barlow.types import Features, Images
from barlow.views.keys import permutation

PIXELS_SEEN = 32 * 32
"""The most pixels that become features: those of CIFAR-10, which give 3,072 numbers for an RGB image."""

RECALIBRATION_BATCHES, RECALIBRATION_BATCH = 16, 256
"""Number and size of the batches on which the untrained network's batch norm is measured: 4,096 images, if there are so
many. `--batch-size` has no part in it, so it does not change the numbers."""


class RawPixels(nn.Module):
    """An encoder that learns nothing: its features are the pixels of the centre view.

    It gets the same batches as the encoder, so each channel has been normalised with the data's mean and standard
    deviation. For kNN with cosine similarity that is by far the stronger baseline, because the cosines of pixels in
    [0, 1] mostly compare brightness. On CIFAR-10 (40,000 training images against 3,000 others) normalised pixels reach
    0.44 ± 0.02, and pixels in [0, 1] reach 0.34 ± 0.02. Euclidean 5-NN has 0.31 either way.

    Args:
        most: views of more pixels are resized to about so many, so that the features fit in memory: bilinearly with
            antialiasing, and to the same aspect ratio.
    """

    def __init__(self, most: int = PIXELS_SEEN):
        super().__init__()
        self.most = most

    def forward(self, x: Images) -> Features:
        height, width = x.shape[2:]
        if height * width > self.most:
            x = F.interpolate(x.float(), size=resized((height, width), self.most), mode="bilinear", antialias=True)
        return x.flatten(1)


def compared(encoder: nn.Module, run: Path, train: LabelledSet) -> Iterator[tuple[str, nn.Module]]:
    """The encoder and its baselines, each with its name in the table.

    The untrained network comes twice: as it is built, and with its batch norm recalibrated (`nets/norms.py` says why).
    An encoder that was given in Python cannot be built again, so it is compared with the pixels alone.

    Args:
        encoder: the trained one.
        run: its run folder, which says how to build it.
        train: images that the batch norm is recalibrated on.
    """
    yield ENCODER, encoder
    yield PIXELS, RawPixels()
    config = storage.read_json(run / "encoder" / "config.json")
    if config["kind"] == "custom":
        return
    keys = ("in_channels", "image_size", "stem", "zero_init_last", "seed", "options")
    fresh = build_encoder(config["name"], **{key: config[key] for key in keys})
    yield UNTRAINED[0], fresh
    # In a random order: folders are listed class by class, and the statistics of one class at a time are a poor start.
    rows = permutation(0, 0, len(train))[: RECALIBRATION_BATCHES * RECALIBRATION_BATCH]
    rows = rows[: len(rows) // RECALIBRATION_BATCH * RECALIBRATION_BATCH or None]  # full batches, or all there is
    yield UNTRAINED[1], recalibrated(fresh.cpu(), train.views(RECALIBRATION_BATCH, rows))
