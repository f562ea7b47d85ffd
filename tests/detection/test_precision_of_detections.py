"""Average precision against loops that were written from the definitions alone, and against another library."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pytest

from barlow.detection import generated
from barlow.detection.annotations import AnnotatedSet, Objects
from barlow.detection.average_precision import Found, coco_precision, voc_precision
from barlow.detection.masks import run_lengths

needs_coco = pytest.mark.skipif(
    find_spec("pycocotools") is None, reason="pycocotools is not installed (extra `detection`)"
)


def truth_and_found(seed: int = 0, images: int = 12) -> tuple[AnnotatedSet, list[Found]]:
    """Objects of three classes, some ignored; detections near them, doubled, of a wrong class, and of nothing."""
    rng = np.random.default_rng(seed)
    known, found = [], []
    for number in range(images):
        objects = Objects(f"image {number}", (200, 300))
        rows = []
        for _ in range(int(rng.integers(0, 8))):
            left, top = rng.uniform(0, 200), rng.uniform(0, 120)
            wide, high = rng.uniform(25, 100, 2)
            label = int(rng.choice([0, 0, 0, 1, 1, 2]))
            objects.add((left, top, left + wide, top + high), label, ignored=bool(rng.random() < 0.15))
            for _ in range(int(rng.integers(0, 3))):
                moved = np.array([left, top, left + wide, top + high]) + rng.normal(0, 5, 4)
                rows.append((moved, label if rng.random() < 0.9 else 2 - label))
        rows += [(np.array([10.0, 10, 40, 40]) + 5 * number, int(rng.integers(3))) for _ in range(2)]
        known.append(objects.annotated(with_masks=False))
        scores = np.round(rng.random(len(rows)), 3)
        boxes = np.array([box for box, _ in rows])
        found.append(Found(boxes, np.array([label for _, label in rows], np.int64), scores))
    return AnnotatedSet("set", "voc", ["a", "b", "c"], known, [np.zeros(0)] * images), found


def overlap(a: np.ndarray, b: np.ndarray, crowd: bool = False) -> float:
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    own = (a[2] - a[0]) * (a[3] - a[1])
    return wide * high / (own if crowd else own + (b[2] - b[0]) * (b[3] - b[1]) - wide * high)


def voc_by_hand(truth: AnnotatedSet, found: list[Found], label: int, threshold: float) -> float:
    """The development kit's loop over detections, the surest first."""
    rows = sorted(
        (-float(found[i].scores[j]), i, j)
        for i in range(len(found))
        for j in range(len(found[i].scores))
        if found[i].labels[j] == label
    )
    taken: set[tuple[int, int]] = set()
    positives = sum(
        int(image.labels[k] == label and not image.ignored[k])
        for image in truth.images
        for k in range(len(image.labels))
    )
    right = wrong = 0
    curve = []
    for _, i, j in rows:
        image = truth.images[i]
        best, which = -1.0, -1
        for k in range(len(image.labels)):
            if image.labels[k] == label and overlap(found[i].boxes[j], image.boxes[k]) > best:
                best, which = overlap(found[i].boxes[j], image.boxes[k]), k
        if best > threshold and image.ignored[which]:
            continue
        if best > threshold and (i, which) not in taken:
            taken.add((i, which))
            right += 1
        else:
            wrong += 1
        curve.append((right / positives, right / (right + wrong)))
    return float(np.mean([max((p for r, p in curve if r >= t), default=0.0) for t in np.arange(0.0, 1.1, 0.1)]))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_vocs_precision_is_that_of_the_development_kits_loop(seed: int) -> None:
    truth, found = truth_and_found(seed)
    made = voc_precision(truth, found)
    table = [[voc_by_hand(truth, found, k, t / 100) for k in range(3)] for t in range(50, 100, 5)]
    assert made.values["AP50"] == pytest.approx(np.mean(table[0]), abs=1e-12)
    assert made.values["AP75"] == pytest.approx(np.mean(table[5]), abs=1e-12)
    assert made.values["AP"] == pytest.approx(np.mean(table), abs=1e-12)
    assert list(made.by_class.values()) == pytest.approx(table[0], abs=1e-12)
    assert 0.05 < made.values["AP"] < made.values["AP50"] < 0.98


def coco_by_hand(truth: AnnotatedSet, found: list[Found], label: int, threshold: float) -> float:
    """In each image the surest detection takes the free object that it overlaps most; 101 recalls of the envelope."""
    rows: list[tuple[float, bool]] = []
    positives = 0
    for image, there in zip(truth.images, found, strict=True):
        own = [k for k in range(len(image.labels)) if image.labels[k] == label]
        positives += sum(not image.ignored[k] for k in own)
        taken: set[int] = set()
        for j in np.argsort(-there.scores, kind="stable"):
            if there.labels[j] != label:
                continue
            best, which = threshold, -1
            for ignored in (False, True):  # an ignored object is taken only where no other one fits
                for k in own if which < 0 else ():
                    shared = overlap(there.boxes[j], image.boxes[k], crowd=ignored)
                    if image.ignored[k] == ignored and (ignored or k not in taken) and shared >= best:
                        best, which = shared, k
            if which >= 0 and image.ignored[which]:
                continue
            taken.add(which)
            rows.append((float(there.scores[j]), which >= 0))
    rows.sort(key=lambda row: -row[0])
    hits = np.cumsum([hit for _, hit in rows])
    recall, precision = hits / positives, hits / np.arange(1, len(rows) + 1)
    envelope = [max(precision[i:]) for i in range(len(rows))]
    points = []
    for t in np.linspace(0, 1, 101):
        at = [i for i in range(len(rows)) if recall[i] >= t]
        points.append(envelope[at[0]] if at else 0.0)
    return float(np.mean(points))


@needs_coco
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cocos_precision_is_that_of_a_loop_from_its_definition(seed: int) -> None:
    truth, found = truth_and_found(seed)
    made = coco_precision(truth, found)
    table = [[coco_by_hand(truth, found, k, t / 100) for k in range(3)] for t in range(50, 100, 5)]
    assert made.values["AP"] == pytest.approx(np.mean(table), abs=1e-9)
    assert made.values["AP50"] == pytest.approx(np.mean(table[0]), abs=1e-9)
    assert made.values["AP75"] == pytest.approx(np.mean(table[5]), abs=1e-9)
    assert list(made.by_class.values()) == pytest.approx(table[0], abs=1e-9)


@needs_coco
def test_the_two_conventions_are_different_numbers() -> None:
    truth, found = truth_and_found(0)
    assert abs(coco_precision(truth, found).values["AP50"] - voc_precision(truth, found).values["AP50"]) > 0.005


@needs_coco
def test_another_library_finds_the_same_numbers() -> None:
    faster = pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
    truth, found = truth_and_found(3, images=40)
    import barlow.detection.average_precision as ours

    sides = []
    for rows in (ours._of_truth(truth, "box"), ours._of_found(found, "box")):
        side = faster.COCO()
        side.dataset = {
            "images": [{"id": i, "height": 200, "width": 300} for i in range(1, 41)],
            "categories": [{"id": k, "name": name} for k, name in enumerate(truth.classes, 1)],
            "annotations": rows,
        }
        side.createIndex()
        sides.append(side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluation = faster.COCOeval_faster(*sides, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    made = coco_precision(truth, found).values
    assert [made[name] for name in ("AP", "AP50", "AP75")] == pytest.approx(list(evaluation.stats[:3]), abs=1e-9)


METRICS: list[Callable[[AnnotatedSet, list[Found]], float]] = [
    lambda truth, found: voc_precision(truth, found).values["AP"],
    lambda truth, found: coco_precision(truth, found).values["AP"],
    lambda truth, found: coco_precision(truth, found, "mask").values["AP"],
]
by_every_convention = pytest.mark.parametrize("metric", METRICS, ids=["voc", "coco", "coco masks"])


def perfect(truth: AnnotatedSet) -> list[Found]:
    return [
        Found(each.boxes.astype(float), each.labels, np.ones(len(each.labels)), list(each.outlines or ()))
        for each in truth.images
    ]


@needs_coco
@by_every_convention
def test_everything_found_is_one_and_nothing_found_is_zero(
    metric: Callable[[AnnotatedSet, list[Found]], float],
) -> None:
    truth = generated.shapes_boxes("test", count=12)
    nothing = Found(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0), [])
    assert metric(truth, perfect(truth)) == pytest.approx(1.0)
    assert metric(truth, [nothing] * len(truth)) == 0.0


@needs_coco
def test_a_mask_that_is_the_whole_box_is_worse_than_the_box() -> None:
    truth = generated.shapes_boxes("test", count=12)
    found = []
    for there in perfect(truth):
        boxes = []
        for left, top, right, bottom in there.boxes.astype(int):
            mask = np.zeros(generated.SIZE, bool)
            mask[top:bottom, left:right] = True
            boxes.append(run_lengths(mask))
        found.append(Found(there.boxes, there.labels, there.scores, boxes))
    assert coco_precision(truth, found).values["AP"] == pytest.approx(1.0)
    assert 0.2 < coco_precision(truth, found, "mask").values["AP"] < 0.7


@needs_coco
def test_only_the_order_of_scores_counts() -> None:
    truth, found = truth_and_found(1)
    squared = [Found(each.boxes, each.labels, each.scores**2 / 7) for each in found]
    for metric in (voc_precision, coco_precision):
        assert metric(truth, found) == metric(truth, squared)
