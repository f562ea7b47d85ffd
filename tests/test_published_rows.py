"""The papers' numbers stand beside ours where set and protocol are theirs, and nowhere else."""

from typing import Any

import pytest

from barlow import protocols
from barlow.probes.report import AUGMENTED
from barlow.scores.published import _VOC, all_published, published_for, set_of

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
        assert each.protocol.partition(":")[0] in (*protocols.kinds(), AUGMENTED)
        assert "arXiv" in each.source
        assert "Table" in each.source
        assert all(0 < value < 100 for value in each.values.values())
