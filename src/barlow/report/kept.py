"""What an evaluation has kept: the features of its images, found again without the images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from barlow.data.labelled import labels_digest
from barlow.exits import UnusableData
from barlow.probes.features import FeatureSet, content_key, load_features
from barlow.record import Record, table_of, value_of
from barlow.report.before import Before
from barlow.results import HOME
from barlow.telling import Say, silent

MOST_PRODUCTS = 2e12
"""Of comparing every test image with every training image: half a minute of one core. ImageNet's are sixty times as
many, and its features ten gigabytes."""


@dataclass(frozen=True)
class Kept:
    """The features that the newest evaluation was made of."""

    report: dict[str, Any]
    train: FeatureSet | None
    """None where so many images are too many to be searched for a report."""
    test: FeatureSet
    before: FeatureSet | None
    """Of the test images, from the network before training, treated as the encoder was."""
    classes: list[str]


def kept(run: Record, encoder: nn.Module | None, before: Before | None, say: Say = silent) -> Kept | None:
    """What the newest evaluation has kept of its features; None where that is not whole any more.

    Labels are taken as they were kept, if they are those of the evaluation: files of features may be shared by
    evaluations that number their classes differently.

    Args:
        run: the run.
        encoder: the network that was measured; None where it cannot be built.
        before: the network before training, if it can be had.
        say: told of features that are damaged.
    """
    report = run.results
    if report is None:
        return None
    of_encoder = str(report.get("encoder_identity"))
    if (test := _features(run, report, "test", of_encoder, say)) is None:
        return None
    train = None
    if len(test) * (value_of(report, "images", "train", "count") or 0) * test.features.shape[1] <= MOST_PRODUCTS:
        train = _features(run, report, "train", of_encoder, say)
        if train is None:
            return None
    learned_from = str(table_of(report, "images", "train").get("fingerprint"))
    of_before = None if before is None else before.identity(learned_from)
    other = None if of_before is None else _features(run, report, "test", of_before, say)
    return Kept(report, train, test, other, [str(each) for each in report["classes"]])


def _features(run: Record, report: Mapping[str, Any], part: str, encoder: str, say: Say) -> FeatureSet | None:
    images = table_of(report, "images", part)
    key = content_key(
        encoder=encoder, source=str(images["fingerprint"]), preprocessing=table_of(report, "preprocessing")
    )
    try:
        found = load_features(run.path / HOME / "features", key, int(value_of(images, "count") or 0))
    except UnusableData as damage:
        say(f"{damage}: these features are left out")
        return None
    digest = images.get("labels")  # results of the first release have none
    return found if found is not None and digest in (None, labels_digest(found.labels)) else None
