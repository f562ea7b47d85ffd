"""What an evaluation has kept: the features of its images, found again without the images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from barlow.data.labelled import labels_digest
from barlow.exits import UnusableData
from barlow.nets.building import build_encoder
from barlow.nets.weights import description_of, read_encoder
from barlow.probes.features import FeatureSet, content_key, load_features, network_identity
from barlow.report.record import Record, table_of, value_of
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
    """Of the test images, from the network before training."""
    classes: list[str]


def before_training(run: Record, encoder: nn.Module | None) -> tuple[nn.Module | None, str]:
    """The network as it was before it was trained, and what it was then.

    A run with `--init` has kept the weights that it started from; any other network is built anew from its seed. One
    that was given in Python can be had in neither way.
    """
    if encoder is None:
        return None, ""
    config = description_of(encoder)
    if config["kind"] == "custom":
        return None, ""
    if (run.path / "start").is_dir():
        return read_encoder(run.path / "start"), "the weights that the run started from"
    keys = ("in_channels", "image_size", "stem", "zero_init_last", "seed", "options")
    return build_encoder(config["name"], **{key: config[key] for key in keys}), "weights drawn at random"


def kept(run: Record, encoder: nn.Module | None, before: nn.Module | None, say: Say = silent) -> Kept | None:
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
    of_before = None if before is None else network_identity(before)
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
