"""The smallest detector that goes through everything: a network of a few thousand weights, four images of shapes."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from barlow.detection import generated
from barlow.detection.annotations import AnnotatedSet
from barlow.detection.detectors import DESIGNS, Design, Detector
from barlow.detection.schedules import SCHEDULES, Schedule
from barlow.nets.building import build_encoder
from barlow.nets.expected import IMAGENET
from barlow.nets.origin import Network
from barlow.nets.preprocessing import Preprocessing
from barlow.nets.weights import with_description

OPTIONS = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}

FPN = replace(DESIGNS["small_fpn"], channels=8, head=16, mask_layers=(8,), after_nms=(30, 30), boxes_trained=16)
C4 = replace(DESIGNS["c4"], before_nms=(200, 200), after_nms=(30, 30), boxes_trained=8)

SCHEDULE: Schedule = replace(
    SCHEDULES["short"], steps=4, warmup_steps=1, sides=(64, 96), test_side=64, longest=128, rate=2e-3
)


def preprocessing(channels: int = 3, **changes: Any) -> Preprocessing:
    about = {"mean": IMAGENET.mean[:channels], "std": IMAGENET.std[:channels], "channels": channels}
    return Preprocessing(**{"size": 64, "crop_ratio": 1.0, "interpolation": "bilinear", **about, **changes})


def encoder(
    name: str = "resnet18", *, stem: str = "as_is", options: Any = OPTIONS, seed: int = 0, channels: int = 3
) -> nn.Module:
    """Every branch of a block counts from the start: its last batch norm starts with one, and gradients reach all."""
    about = {"stem": stem, "zero_init_last": False, "seed": seed, "options": options}
    built = build_encoder(name, image_size=64, in_channels=channels, **about)
    return with_description(built, Network(name, dict(options or {}), stem, False), preprocessing(channels), seed)


def detector(design: Design = FPN, *, masks: bool = True, batch_norm: Any = "trained", **of_encoder: Any) -> Detector:
    classes = len(generated.KINDS)
    return Detector(encoder(**of_encoder), classes, design, masks=masks, batch_norm=batch_norm, seed=0)


def shapes(count: int = 4, split: str = "train") -> AnnotatedSet:
    return generated.shapes_boxes(split, count=count)


def voc(home: Path, splits: Mapping[str, Sequence[Sequence[str]]], grey: int = 90) -> Path:
    """A folder of VOC's form: for each split its images, and for each image the classes of its objects. No two images
    have the same grey."""
    greys = itertools.count(grey)
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    for split, images in splits.items():
        stems = [f"{split}{number}" for number in range(len(images))]
        (home / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        for stem, classes in zip(stems, images, strict=True):
            Image.fromarray(np.full((48, 64, 3), next(greys), np.uint8)).save(home / "JPEGImages" / f"{stem}.png")
            boxes = [(4 + 8 * k, 6, 30 + 8 * k, 40) for k in range(len(classes))]
            objects = "".join(map(_voc_object, classes, boxes))
            text = f"<annotation><filename>{stem}.png</filename>{objects}</annotation>"
            (home / "Annotations" / f"{stem}.xml").write_text(text)
    return home


def _voc_object(name: str, box: Sequence[int]) -> str:
    corners = "".join(f"<{c}>{v}</{c}>" for c, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"
