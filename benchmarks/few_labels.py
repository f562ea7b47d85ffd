"""Protocols of few labels: a draw of semi-supervised fine-tuning, and few-shot on features in memory.

    python benchmarks/few_labels.py

A set like Imagenette at 96 px: ten classes, 948 training images each and 3,930 test images. A draw of `semi:1` has 90
of them and one of `semi:10` has 950. A ResNet-18 is tuned on them: at four pairs of rates for the choice, 100 updates
each, then at the chosen one, 200 or 600 updates, and it answers all test images. The promise is 8 and 15 minutes on two
cores. A row has a twentieth of the updates and of the test images, and of the promise: all of them cost alike.

What the images show changes no time, so they are generated. They are decoded before the clock starts, as in a command,
which reads them once for all protocols.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import numpy as np
import pictures
import torch
from clock import Cost, Stopwatch

from barlow.data.labelled import LabelledSet, read_labelled
from barlow.nets.building import build_encoder
from barlow.nets.preprocessing import Preprocessing
from barlow.probes import FeatureSet
from barlow.probes.tuning import Unlabelled
from barlow.protocols.fewshot import FewShot
from barlow.protocols.semi import SemiSupervised
from barlow.telling import silent

CLASSES, TRAINED, TESTED, SIDE = 10, 9_480, 3_930, 96
SMOKE_TRAINED, SMOKE_TESTED, SMOKE_SIDE = 200, 40, 32
AT_MOST_MINUTES = {1.0: 8.0, 10.0: 15.0}
"""A draw, by the per cent of the labels."""
PART = 20
"""A row does this part of a draw."""
WIDTH, DRAWS = 512, 100
FEWSHOT_SECONDS = 30.0
SMOKE_SECONDS = 60.0


def labelled(name: str, count: int, side: int) -> LabelledSet:
    """As many images of each class. Only some are drawn; the others are copies of them."""
    home = pictures.home() / f"{name} {side}"
    for label in range(CLASSES):
        pictures.write_folder(home / f"class {label}", count // CLASSES, side, side, different=20, seed=label)
    preprocessing = Preprocessing(side, 1.0, "bicubic", (0.5,) * 3, (0.25,) * 3, 3)
    return read_labelled(str(home), name, preprocessing, 0.0)


def draw_of(percent: float, smoke: bool) -> Callable[[], Cost]:
    """One draw of semi-supervised learning. The sets are read when it is first asked for."""
    sets: list[LabelledSet] = []

    def work() -> Cost:
        if not sets:
            side = SMOKE_SIDE if smoke else SIDE
            sets.append(labelled("train", SMOKE_TRAINED if smoke else TRAINED, side))
            sets.append(labelled("test", SMOKE_TESTED if smoke else TESTED // PART, side))
        train, test = sets
        whole = SemiSupervised(percent, draws=1)
        some = whole.fewest_updates // PART, whole.choice_updates // PART
        protocol = replace(whole, epochs=1, fewest_updates=some[0], choice_updates=some[1])
        encoder = build_encoder("resnet18", image_size=train.preprocessing.size)
        watch = Stopwatch()
        found = protocol.predict(encoder, train, Unlabelled(len(test), test.views), lambda _, work: work(), silent)
        took = watch.cost()
        if found.answers is None or found.answers.shape[:2] != (1, len(test)):
            raise SystemExit(f"there is no answer for each of {len(test)} test images")
        return took

    return work


def few_shots() -> Cost:
    """5 images of each class, 100 times, on features in memory."""
    generator = torch.Generator().manual_seed(0)
    middle = torch.randn(CLASSES, WIDTH, generator=generator)

    def features(count: int) -> FeatureSet:
        labels = np.arange(count) % CLASSES
        rows = middle[torch.from_numpy(labels)] + 3 * torch.randn(count, WIDTH, generator=generator)
        return FeatureSet(rows, labels, np.arange(count))

    train, test = features(TRAINED), features(TESTED)
    watch = Stopwatch()
    found = FewShot(draws=DRAWS)(train, test)
    took = watch.cost()
    if found["top1"].value < 0.5:
        raise SystemExit(f"top-1 {found['top1'].value:.3f}, and the classes are easily told apart")
    return took


def rows(smoke: bool) -> Sequence[measure.Row]:
    trained, side = (SMOKE_TRAINED, SMOKE_SIDE) if smoke else (TRAINED, SIDE)
    tuned = [
        measure.Row(
            name=f"semi_{percent:g}_resnet18_{side}",
            what=f"a twentieth of a draw of semi:{percent:g}: ResNet-18, {side} px, {trained:,} training images",
            ours=draw_of(percent, smoke),
            at_most_seconds=SMOKE_SECONDS if smoke else 60 * minutes / PART,
            seconds=60,
            most_rounds=8,
        )
        for percent, minutes in AT_MOST_MINUTES.items()
    ]
    few = measure.Row(
        name=f"fewshot_{WIDTH}",
        what=f"fewshot:5, {DRAWS} draws: {TRAINED:,} x {WIDTH} to learn from, {TESTED:,} tested",
        ours=few_shots,
        at_most_seconds=FEWSHOT_SECONDS,
        warmups=0,
        seconds=30,
        most_rounds=8,
    )
    return [few, *tuned[: 1 if smoke else 2]]


if __name__ == "__main__":
    sys.exit(measure.main(__file__, rows))
