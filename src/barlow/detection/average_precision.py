"""Average precision of detections, by COCO's convention and by VOC's, named apart: the two are different numbers."""

import contextlib
import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int64

from barlow.detection.annotations import AnnotatedSet

THRESHOLDS = tuple(number / 100 for number in range(50, 100, 5))
"""Of the overlap, over which both conventions take the mean."""

MOST = 100
"""Detections of an image that count, the surest ones: COCO's, and detectron2's for VOC too."""

COCO_NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
"""What is reported, in the order in which COCO's library has it. Small is below 32² pixels, large above 96²."""


@dataclass(frozen=True)
class Found:
    """What a detector found in one image, in the image's own pixels.

    Args:
        boxes: left, top, right, bottom.
        labels: numbers of classes, from 0 on.
        scores: one for each; only their order counts.
        outlines: run lengths (`masks.run_lengths`) of each, if it finds masks.
    """

    boxes: Float[np.ndarray, "n 4"]
    labels: Int64[np.ndarray, "n"]
    scores: Float[np.ndarray, "n"]
    outlines: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class Precision:
    """Average precision of a set, in [0, 1].

    Args:
        values: by name: AP (the mean over overlaps of .5, .55, …, .95), AP50, AP75, and by COCO's convention AP_small,
            AP_medium and AP_large. What no object is there for is missing.
        by_class: AP50 of each class that has objects.
    """

    values: dict[str, float]
    by_class: dict[str, float]


def check_installed() -> None:
    """Asks for COCO's library: known before a detector is trained, and not after.

    Raises:
        ValueError: it is not there.
    """
    if importlib.util.find_spec("pycocotools") is None:
        raise ValueError("detection needs pycocotools, which computes average precision: pip install barlow[detection]")


def coco_precision(truth: AnnotatedSet, found: Sequence[Found], kind: Literal["box", "mask"] = "box") -> Precision:
    """COCO's average precision: precision at 101 recalls, over ten overlaps and all classes, by COCO's own library.

    Source: pycocotools, `COCOeval`.

    Args:
        truth: the set.
        found: one for each of its images.
        kind: whether the overlap is that of boxes or of masks.

    Raises:
        ValueError: pycocotools is not installed.
    """
    check_installed()
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    described = {
        "info": {},
        "images": [{"id": i, "height": e.size[0], "width": e.size[1]} for i, e in enumerate(truth.images, 1)],
        "categories": [{"id": k, "name": name} for k, name in enumerate(truth.classes, 1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # the library reports on every part of it
        sides = []
        for annotations in (_of_truth(truth, kind), _of_found(found, kind)):
            side = COCO()
            side.dataset = described | {"annotations": annotations}
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, "segm" if kind == "mask" else "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    numbers = dict(zip(COCO_NAMES, map(float, evaluation.stats), strict=False))
    at_half = evaluation.eval["precision"][0, :, :, 0, -1]  # (recalls, classes), of any area
    by_class = {
        name: float(at_half[:, k].mean()) for k, name in enumerate(truth.classes) if at_half.size and at_half[0, k] > -1
    }
    return Precision({name: value for name, value in numbers.items() if value > -1}, by_class)


def _of_truth(truth: AnnotatedSet, kind: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, image in enumerate(truth.images, 1):
        for i, box in enumerate(image.boxes.tolist()):
            about = {"area": float(image.areas[i]), "iscrowd": int(image.ignored[i])}
            row = _row(len(rows), number, image.labels[i], box) | about
            if kind == "mask":
                assert image.outlines is not None
                row["segmentation"] = image.outlines[i]
            rows.append(row)
    return rows


def _of_found(found: Sequence[Found], kind: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, image in enumerate(found, 1):
        for i, box in enumerate(image.boxes.tolist()):
            row = _row(len(rows), number, image.labels[i], box) | {"score": float(image.scores[i])}
            if kind == "mask":
                assert image.outlines is not None
                outline = image.outlines[i]
                row |= {"segmentation": outline, "area": float(sum(outline["counts"][1::2]))}
            rows.append(row)
    return rows


def _row(before: int, image: int, label: int, box: Sequence[float]) -> dict[str, Any]:
    left, top, right, bottom = box
    wide, high = right - left, bottom - top
    about = {"id": before + 1, "image_id": image, "category_id": int(label) + 1, "iscrowd": 0}
    return {**about, "bbox": [left, top, wide, high], "area": wide * high}


def voc_precision(truth: AnnotatedSet, found: Sequence[Found]) -> Precision:
    """VOC2007's average precision: precision at 11 recalls, for each class, at ten overlaps.

    A detection belongs to the object of its class that it overlaps most, if the overlap is above the threshold. It is
    right if it is the first of that object. Difficult objects are neither found nor missed.

    Source: the PASCAL VOC2007 development kit; as detectron2 reports it, the mean over classes at an overlap of .5 is
    AP50, and the mean of that over .5, .55, …, .95 is AP. These are the numbers that papers call VOC AP.

    Deviation: detectron2 writes scores with three digits and corners with one before it compares them; nothing is
    rounded here.

    Args:
        truth: the set.
        found: one for each of its images.
    """
    table: dict[str, list[float]] = {}
    for label, name in enumerate(truth.classes):
        objects = sum(int((~image.ignored[image.labels == label]).sum()) for image in truth.images)
        if objects:
            hits = _hits(truth, found, label)
            table[name] = [_eleven_points(*hits_at, objects) for hits_at in hits]
    means = np.array(list(table.values())).mean(0) if table else np.zeros(len(THRESHOLDS))
    values = {"AP": float(means.mean()), "AP50": float(means[0]), "AP75": float(means[THRESHOLDS.index(0.75)])}
    return Precision(values, {name: row[0] for name, row in table.items()})


def _hits(
    truth: AnnotatedSet, found: Sequence[Found], label: int
) -> list[tuple[Bool[np.ndarray, "n"], Bool[np.ndarray, "n"]]]:
    """Which detections of a class are right, and which wrong, at each threshold; the surest first."""
    scores: list[float] = []
    of: list[tuple[float, int, bool]] = []  # of each detection: its overlap, with which object, whether that counts
    first = 0
    for image, there in zip(truth.images, found, strict=True):
        best = np.argsort(-there.scores, kind="stable")[:MOST]
        best = best[there.labels[best] == label]
        own = image.labels == label
        overlaps = _overlaps(there.boxes[best], image.boxes[own])
        for row, detection in enumerate(best):
            nearest = int(overlaps[row].argmax()) if own.any() else -1
            overlap = float(overlaps[row, nearest]) if own.any() else 0.0
            scores.append(float(there.scores[detection]))
            of.append((overlap, first + nearest, bool(own.any() and image.ignored[own][nearest])))
        first += int(own.sum())
    order = np.argsort(-np.array(scores), kind="stable")
    made = []
    for threshold in THRESHOLDS:
        taken: set[int] = set()
        right, wrong = np.zeros(len(order), bool), np.zeros(len(order), bool)
        for row, detection in enumerate(order):
            overlap, which, ignored = of[detection]
            if overlap > threshold and ignored:
                continue
            right[row] = overlap > threshold and which not in taken
            wrong[row] = not right[row]
            if right[row]:
                taken.add(which)
        made.append((right, wrong))
    return made


def _eleven_points(right: Bool[np.ndarray, "n"], wrong: Bool[np.ndarray, "n"], objects: int) -> float:
    """The mean of the best precision at a recall of 0, .1, …, 1 or more."""
    found, missed = np.cumsum(right), np.cumsum(wrong)
    recall, precision = found / objects, found / np.maximum(found + missed, 1)
    return float(np.mean([precision[recall >= t].max(initial=0.0) for t in np.arange(0.0, 1.1, 0.1)]))


def _overlaps(a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Intersection over union of each box with each other."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(min=0).prod(2)
    areas = [(each[:, 2:] - each[:, :2]).prod(1) for each in (a, b)]
    made: np.ndarray = shared / (areas[0][:, None] + areas[1][None, :] - shared)
    return made
