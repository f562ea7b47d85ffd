"""What an encoder is compared with: raw pixels, the same network untrained, and the weights that it started from."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from barlow.data.labelled import LabelledSet
from barlow.distributed import World
from barlow.nets.building import build_encoder
from barlow.nets.handed_out import HandedOut, handed_out
from barlow.nets.norms import recalibrated
from barlow.nets.weights import description_of, read_encoder
from barlow.probes.features import content_key, network_identity
from barlow.probes.report import ENCODER
from barlow.size import Size, height_width, resized, words
from barlow.types import Features, Images
from barlow.views.keys import permutation

PIXEL_SIDES = (16, 32)
"""Sides at which pixels become features, beside that of the encoder's views.

Which of them makes the best classifier depends on the images. On photographs 16 pixels may beat 32, as neighbours are
then found by the coarse layout."""

MOST_NUMBERS = 2**25
"""Pixels at the size of the encoder's views are left out where the training images would be more numbers than this, as
logistic regression would take minutes. (4,080 images of 96 pixels are 113 million numbers.)"""

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
        most: views of more pixels are resized to about so many, bilinearly with antialiasing and to the same aspect
            ratio.
    """

    def __init__(self, most: int):
        super().__init__()
        self.most = most

    def forward(self, x: Images) -> Features:
        height, width = x.shape[2:]
        if height * width > self.most:
            x = F.interpolate(x.float(), size=resized((height, width), self.most), mode="bilinear", antialias=True)
        return x.flatten(1)


@dataclass(frozen=True)
class Compared:
    """A network whose features are measured."""

    name: str
    """Of its features in the results."""
    make: Callable[[], nn.Module]
    """Builds the network; called when its features have to be computed, and not before."""
    size: Size
    """Of the centre views that it gets."""
    identity: str
    """What its features follow from, beside the images and their preprocessing; see `network_identity`."""

    @cached_property
    def network(self) -> nn.Module:
        return self.make()

    def views_of(self, images: LabelledSet) -> LabelledSet:
        """The images as this network gets them."""
        return images if images.preprocessing.size == self.size else images.at_size(self.size)

    def key(self, images: LabelledSet) -> str:
        """Of its features of these images, which are `views_of` them."""
        expected = images.preprocessing.as_dict()
        return content_key(encoder=self.identity, source=images.fingerprint, preprocessing=expected)


def given(name: str, network: nn.Module, size: Size) -> Compared:
    """A network that is there already."""
    return Compared(name, lambda: network, size, network_identity(network))


def compared(encoder: nn.Module, run: Path | None, train: LabelledSet) -> Iterator[Compared]:
    """The encoder and its baselines, each with its name in the results.

    - `start`: the weights that a run with `--init` started from.
    - `pixels_16`, `pixels_32` and so on: raw pixels at several sides (`PIXEL_SIDES`).
    - `untrained`, `untrained_recalibrated`: the network as it is built, and with its batch norm recalibrated
      (`nets/norms.py` says why). An encoder that was given in Python cannot be built again and has none.

    Where the encoder hands out more than its network's own features (all stages, whitened), so do `start` and
    `untrained_handed_out`; `start_plain` is the start's network alone.

    Args:
        encoder: the trained one. Its description says how to build it.
        run: its run folder, if it is of a run.
        train: images that batch norm is recalibrated on, and that features are whitened by.
    """
    size, config = train.preprocessing.size, description_of(encoder)
    yield given(ENCODER, encoder, size)
    if run is not None and (run / "start").is_dir():
        start = read_encoder(run / "start", copy.deepcopy(encoder) if config["kind"] == "custom" else None)
        yield given("start", start, size)
        if isinstance(start, HandedOut):
            yield given("start_plain", start.network, size)
    yield from pixels(train)
    if config["kind"] == "custom":
        return
    fresh = as_built(config)
    yield given("untrained", fresh, size)
    plain = config | {"stages": "last", "whiten": None}
    better = Compared(
        "untrained_recalibrated",
        lambda: recalibrated(fresh.cpu(), _some(train)),
        size,
        untrained_identity(fresh, plain, train.fingerprint),
    )
    yield better
    stages, whiten = config.get("stages", "last"), config.get("whiten")
    if stages == "last" and whiten is None:
        return

    def as_handed_out() -> nn.Module:
        whole = handed_out(better.network.cpu(), stages, whiten)
        if isinstance(whole, HandedOut) and whiten is not None:
            whole.fit(_some(train), whiten, World(torch.device("cpu")))
        return whole.eval()

    yield Compared("untrained_handed_out", as_handed_out, size, untrained_identity(fresh, config, train.fingerprint))


def as_built(config: Mapping[str, Any]) -> nn.Module:
    """An encoder's network before its first step, by the description of the encoder."""
    keys = ("in_channels", "image_size", "stem", "zero_init_last", "seed", "options")
    return build_encoder(config["name"], **{key: config[key] for key in keys})


def untrained_identity(fresh: nn.Module, config: Mapping[str, Any], train: str) -> str:
    """What the features of an untrained network follow from that is treated as its encoder is.

    Args:
        fresh: the network as it is built.
        config: the encoder's description: which stages it hands out, and whether they are whitened.
        train: the fingerprint of the images that batch norm is recalibrated on, and that features are whitened by.
    """
    on = f"on {RECALIBRATION_BATCHES} batches of {RECALIBRATION_BATCH} of {train}"
    better = f"{network_identity(fresh)} recalibrated {on}"
    stages, whiten = config.get("stages", "last"), config.get("whiten")
    if stages == "last" and whiten is None:
        return better
    return f"{better} handed out {stages} {whiten}, shrunk by the number of images"


def _some(train: LabelledSet) -> Iterator[Images]:
    """Batches of images in a random order, for statistics.

    Folders are listed class by class, and the statistics of one class at a time are a poor start.
    """
    rows = permutation(0, 0, len(train))[: RECALIBRATION_BATCHES * RECALIBRATION_BATCH]
    rows = rows[: len(rows) // RECALIBRATION_BATCH * RECALIBRATION_BATCH or None]  # full batches, or all there is
    return train.views(RECALIBRATION_BATCH, rows)


def pixels(train: LabelledSet) -> Iterator[Compared]:
    """Raw pixels at several sizes: as many as squares of `PIXEL_SIDES` have, and those of the encoder's views.

    Images are not enlarged for it: digits of 8 pixels are measured at the size of the encoder's views alone. Views that
    are not square keep their shape: `pixels_16` then are about 256 pixels of that shape.
    """
    size = train.preprocessing.size
    height, width = height_width(size)
    there = max(height * width, int(np.median(train.sizes.min(axis=1))) ** 2)
    names = {side**2: str(side) for side in PIXEL_SIDES if side**2 <= there}
    if not names or len(train) * train.preprocessing.channels * height * width <= MOST_NUMBERS:
        names[height * width] = words(size)
    for count, name in sorted(names.items()):
        # Fewer pixels are made of the encoder's own views. More of them need larger views.
        larger = resized((height, width), count)
        seen = size if count <= height * width else larger[0] if larger[0] == larger[1] else larger
        yield Compared(f"pixels_{name}", partial(RawPixels, count), seen, f"RawPixels {count}")
