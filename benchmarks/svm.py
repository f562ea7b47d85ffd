"""The SVM protocol of the papers' VOC07 column: eleven costs, three folds, several labels an image.

The promise is six minutes for twenty classes on two cores. Classes are fitted one by one, so the row has four of them
and a fifth of that time; BARLOW_SVM_CLASSES=20 measures the whole, of which a round takes minutes.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import numpy as np
import torch
from clock import Cost, Stopwatch

from barlow.probes import FeatureSet
from barlow.protocols.svm import COSTS, SVM

IMAGES, WIDTH, TESTED = 5_000, 2_048, 1_000
CLASSES = int(os.environ.get("BARLOW_SVM_CLASSES", "4"))
AT_MOST_SECONDS = 360.0 * CLASSES / 20
SMOKE = {"count": 500, "width": 512, "classes": 4, "tested": 200}
SMOKE_SECONDS = 8.0
"""A quick look has so few numbers that one core does all of it."""


def features(count: int, width: int, classes: int, tested: int) -> tuple[FeatureSet, FeatureSet]:
    """As a network gives them of scenes: not negative, with a spectrum that falls, a label on 7.5 % of the images as on
    VOC's, each in a direction of its own that is found, and not easily."""
    draws = torch.Generator().manual_seed(0)
    labels = (torch.rand(count + tested, classes, generator=draws) < 0.075).to(torch.int8)
    spectrum = 4 / torch.arange(1, width + 1).sqrt()
    directions = torch.randn(classes, width, generator=draws) / width**0.5
    noise = spectrum * torch.randn(count + tested, width, generator=draws)
    turned = torch.linalg.qr(torch.randn(width, width, generator=draws))[0]
    rows = ((noise + 2 * labels.float() @ directions) @ turned).relu_()
    ids = np.arange(count + tested)
    return (
        FeatureSet(rows[:count], labels[:count].numpy(), ids[:count]),
        FeatureSet(rows[count:], labels[count:].numpy(), ids[count:]),
    )


class Protocol:
    """The whole protocol, whose answer must be better than chance."""

    def __init__(self, count: int, width: int, classes: int, tested: int) -> None:
        self.train, self.test = features(count, width, classes, tested)

    def __call__(self) -> Cost:
        watch = Stopwatch()
        found = SVM()(self.train, self.test)
        took = watch.cost()
        chance = float(self.test.labels.mean())
        if found["map_envelope"].value < 2 * chance:
            raise SystemExit(f"mAP {found['map_envelope'].value:.3f}, and a random order has {chance:.3f}")
        return took


def rows(smoke: bool) -> Sequence[measure.Row]:
    sizes = SMOKE if smoke else {"count": IMAGES, "width": WIDTH, "classes": CLASSES, "tested": TESTED}
    count, width, classes = sizes["count"], sizes["width"], sizes["classes"]
    return [
        measure.Row(
            name=f"svm_{count}_{width}_{classes}",
            what=f"SVM protocol: {count:,} x {width:,}, {classes} classes, {len(COSTS)} costs, three folds",
            ours=Protocol(**sizes),
            at_most_seconds=SMOKE_SECONDS if smoke else AT_MOST_SECONDS,
            warmups=0,
            seconds=60 if smoke else 5 * AT_MOST_SECONDS,
            work=(count, "images"),
        )
    ]


if __name__ == "__main__":
    sys.exit(measure.main(__file__, rows))
