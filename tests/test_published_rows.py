"""The papers' numbers stand beside ours where set and protocol are theirs, and nowhere else."""

import inspect
import re
from dataclasses import asdict, replace
from typing import Any

import pytest

from barlow import protocols
from barlow.detection.schedules import SCHEDULES
from barlow.probes.remarks import AUGMENTED
from barlow.scores.labels import DETECT
from barlow.scores.published import _COCO, _VOC, Published, all_published, published_for, set_of

SYNSETS = [f"n{k:08}" for k in range(1000)]


def images(train: str, test: str, counts: tuple[int, int]) -> dict[str, dict[str, Any]]:
    return {"train": {"source": train, "count": counts[0]}, "test": {"source": test, "count": counts[1]}}


@pytest.mark.parametrize(
    ("train", "test", "counts", "classes", "name"),
    [
        ("cifar10:train", "cifar10:test", (50_000, 10_000), ["cat", "dog"], "cifar10"),
        ("cifar10:train", "cifar10:test", (49_999, 10_000), ["cat", "dog"], None),
        ("cifar10:test", "cifar10:train", (10_000, 50_000), ["cat", "dog"], None),
        ("cifar10:train", "cifar100:test", (50_000, 10_000), ["cat", "dog"], None),
        ("folder", "other", (50_000, 10_000), ["cat", "dog"], None),
        ("in/train", "in/val", (1_281_167, 50_000), SYNSETS, "imagenet"),
        ("in/train", "in/val", (1_281_167, 49_999), SYNSETS, None),
        ("in/train", "in/val", (126_689, 5_000), SYNSETS[:100], None),
        ("in/train", "in/val", (1_281_167, 50_000), [f"class {k}" for k in range(1000)], None),
        ("voc/trainval", "voc/test", (5_011, 4_952), sorted(_VOC), "voc07"),
        ("voc/trainval", "voc/test", (5_011, 4_952), sorted(_VOC)[1:], None),
        ("tiny/train", "tiny/val", (100_000, 10_000), SYNSETS[:200], "tiny_imagenet"),
    ],
)
def test_a_set_is_a_papers_if_its_classes_and_both_counts_are(
    train: str, test: str, counts: tuple[int, int], classes: list[str], name: str | None
) -> None:
    assert set_of(images(train, test, counts), classes) == name


def test_numbers_stand_beside_those_that_were_measured_by_the_same_protocol() -> None:
    cifar = images("cifar10:train", "cifar10:test", (50_000, 10_000))
    assert published_for(cifar, [], [("knn", "top1"), ("linear_sgd", "top1")]) == []
    (found,) = published_for(cifar, [], [("knn5_euclidean", "top1"), ("knn5_euclidean", "top5")])
    assert found.values == {"SimCLR": 88.42, "BYOL": 89.45, "W-MSE 2": 89.69, "W-MSE 4": 89.87}
    assert "2007.06346" in found.source
    assert published_for(images("a", "b", (50_000, 10_000)), [], [("knn5_euclidean", "top1")]) == []


def test_every_entry_is_of_a_protocol_that_there_is_and_says_its_source() -> None:
    for each in all_published():
        kind = each.protocol.partition(":")[0]
        assert kind in (*protocols.kinds(), AUGMENTED, DETECT)
        assert "arXiv" in each.source
        assert "Table" in each.source
        assert all(0 < value < 100 for value in each.values.values())


def ours(protocol: str) -> tuple[dict[str, Any], str | None]:
    """The settings of our protocol by name, and its optimizer: as its code has it, and not as anybody says."""
    if protocol.partition(":")[0] == DETECT:
        _, design, name = protocol.split(":")
        schedule = SCHEDULES[name]
        return {**asdict(schedule), "design": design, "batch_norm": "trained"}, schedule.optimizer.upper()
    kind = "linear_sgd" if protocol == AUGMENTED else protocol
    (probe,) = protocols.build(kind).values()
    used = re.findall(r"torch\.optim\.(\w+)\(", inspect.getsource(type(probe)))
    return asdict(probe), used[0] if used else None  # type: ignore[call-overload]


@pytest.mark.parametrize("each", all_published(), ids=lambda each: f"{each.set} {each.protocol} {each.metric}")
def test_a_papers_probe_is_ours_to_its_rate_and_optimizer(each: Published) -> None:
    settings, optimizer = ours(each.protocol)
    named = dict(each.probe)
    assert named.pop("optimizer", None) == optimizer, "one that trains names its optimizer"
    if optimizer is not None:
        assert {"rate", "lr"} & named.keys(), "and its rate"
    assert named
    for name, value in named.items():
        assert settings[name] == (tuple(value) if isinstance(value, list) else value), name


def test_a_probe_of_another_rate_has_no_row() -> None:
    """SimSiam's is LARS with batches of 4,096, VICReg's README has a rate of 0.02, and supervised is no probe."""
    (row,) = [each for each in all_published() if each.protocol == AUGMENTED]
    assert row.values == {"Barlow Twins": 73.2}
    assert row.probe["lr"] == 0.3


@pytest.mark.parametrize(
    ("classes", "counts", "name"),
    [
        (_VOC, (16_551, 4_952), "voc0712"),
        (_VOC, (11_540, 4_952), None),
        (_COCO, (118_287, 5_000), "coco2017"),
        (_COCO, (118_287, 4_999), None),
        (sorted(_COCO)[1:], (118_287, 5_000), None),
    ],
)
def test_the_sets_of_detection_are_known_by_classes_and_counts(
    classes: Any, counts: tuple[int, int], name: str | None
) -> None:
    assert set_of(images("VOC2007:trainval + VOC2012:trainval", "VOC2007:test", counts), sorted(classes)) == name
    assert len(_COCO) == 80


def test_a_schedule_that_a_row_is_of_differs_from_every_other_papers() -> None:
    """Else the row would have to stand beside both."""
    named = {each.protocol.split(":")[2] for each in all_published() if each.protocol.startswith(DETECT)}
    assert named == SCHEDULES.keys() - {"short"}
    assert len({str(replace(SCHEDULES[name], source="")) for name in named}) == len(named)
