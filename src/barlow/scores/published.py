"""What papers print, for tables where set and protocol are theirs too, and for no others.

The numbers are in `published.json`, each with the protocol that it was measured by, its network and its source. A set
of folders is taken for a known one only where the names of its classes and both counts of images are those: a part of
ImageNet is not ImageNet.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

_SYNSET = re.compile(r"n\d{8}")
"""What ImageNet's classes are called."""

_BY_SYNSETS = {(1000, 1_281_167, 50_000): "imagenet", (200, 100_000, 10_000): "tiny_imagenet"}
"""Sets by their numbers of classes, of training images and of validation images."""


_VOC = frozenset(
    [
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ]
)


_COCO_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,"
    "snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,"
    "fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
_COCO = frozenset(_COCO_NAMES.split(","))

_BY_CLASSES = {
    (_VOC, 5_011, 4_952): "voc07",
    (_VOC, 16_551, 4_952): "voc0712",
    (_COCO, 118_287, 5_000): "coco2017",
}
"""Sets by their classes and both counts. VOC07+12 is learned from the trainval of both years, and tested on 2007."""


@dataclass(frozen=True)
class Published:
    """Numbers of papers.

    Args:
        set: as `set_of` calls it.
        protocol, metric: as results have them.
        network: that the numbers are of, and how long it was trained.
        source: where they are printed.
        probe: how they were measured, by the names of our protocol's own settings: `optimizer` and rate of one that
            trains. A number that was measured in another way has no place here, whatever table it is printed in
            (tests/test_published_rows.py).
        values: in per cent, by method.
    """

    set: str
    protocol: str
    metric: str
    network: str
    source: str
    probe: dict[str, Any]
    values: dict[str, float]


@cache
def all_published() -> tuple[Published, ...]:
    """Everything that the package knows of papers' tables."""
    text = resources.files("barlow.scores").joinpath("published.json").read_text(encoding="utf-8")
    return tuple(Published(**entry) for entry in json.loads(text))


def set_of(images: Mapping[str, Mapping[str, Any]], classes: Sequence[str]) -> str | None:
    """Which set the papers use two sets of images are, if any.

    Args:
        images: of the training and the test images, what a file of results says.
        classes: their names.
    """
    train, test = images["train"], images["test"]
    for name in ("cifar10", "cifar100"):
        sources = (train["source"], test["source"]) == (f"{name}:train", f"{name}:test")
        if sources and (train["count"], test["count"]) == (50_000, 10_000):
            return name
    if found := _BY_CLASSES.get((frozenset(classes), train["count"], test["count"])):
        return found
    if all(map(_SYNSET.fullmatch, classes)):
        return _BY_SYNSETS.get((len(classes), train["count"], test["count"]))
    return None


def published_for(
    images: Mapping[str, Mapping[str, Any]], classes: Sequence[str], measured: Sequence[tuple[str, str]]
) -> list[Published]:
    """The papers' numbers beside which those that were measured may stand.

    Args:
        images, classes: as for `set_of`.
        measured: protocols and metrics.
    """
    name = set_of(images, classes)
    return [each for each in all_published() if each.set == name and (each.protocol, each.metric) in measured]
