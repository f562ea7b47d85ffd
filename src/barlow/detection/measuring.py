"""One encoder as the backbone of a detector, trained and tested: its numbers, kept, and the same when asked again."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from barlow import __version__, ownership, storage
from barlow.checkpoints import HOME as CHECKPOINTS
from barlow.detection.annotations import AnnotatedSet
from barlow.detection.average_precision import Found, coco_precision, voc_precision
from barlow.detection.backbones import BatchNorm
from barlow.detection.detectors import DESIGNS, Detector
from barlow.detection.schedules import SCHEDULES, Schedule
from barlow.detection.training import found_in, trained
from barlow.exits import UnusableData
from barlow.probes.features import network_identity
from barlow.results import HOME, LEFT_OVER_SECONDS
from barlow.scores.labels import DETECT
from barlow.seals import digest_of
from barlow.stopping import Requests
from barlow.telling import Say

FOLDER, RESULT = "detection", "result.json"
"""In the folder of an evaluation: a folder for each question, named by its digest, and the file with the answer."""

MEASURED_WITH = ("torchvision", "pycocotools")
"""Packages that detectors and average precision are of: another release may find other numbers."""

SAY_SECONDS = 20.0
"""Between two lines on how far the training is."""


@dataclass(frozen=True)
class Question:
    """All that the numbers of an encoder follow from, but for the encoder and the seed.

    Args:
        train, test: annotated images; the test's classes have the training set's numbers.
        design: a name of `DESIGNS`.
        schedule: of the training.
        batch_norm: whether the encoder's batch norm goes on learning.
    """

    train: AnnotatedSet
    test: AnnotatedSet
    design: str
    schedule: Schedule
    batch_norm: BatchNorm

    @property
    def protocol(self) -> str:
        """What results call it, as in `detect:small_fpn:100`, `detect:c4:vicreg_voc`, `detect:fpn:100:frozen`."""
        papers = (name for name, each in SCHEDULES.items() if each == self.schedule and name != "short")
        parts = [DETECT, self.design, next(papers, str(self.schedule.steps))]
        return ":".join(parts if self.batch_norm == "trained" else [*parts, self.batch_norm])

    @property
    def masks(self) -> bool:
        """Whether masks are learned and measured: where both sets have them."""
        return self.train.has_masks and self.test.has_masks

    @cached_property
    def causes(self) -> dict[str, Any]:
        """What tells it from others."""
        return {
            "train": self.train.fingerprint,
            "test": self.test.fingerprint,
            "design": asdict(DESIGNS[self.design]),
            "schedule": asdict(self.schedule),
            "batch_norm": self.batch_norm,
            "masks": self.masks,
            "versions": {"barlow": __version__, **{name: _version_of(name) for name in MEASURED_WITH}},
        }


def _version_of(package: str) -> str:
    """The release of a package, whatever it was built for; "" where it does not say one."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return ""


def built(network: nn.Module, name: str, question: Question, seed: int) -> Detector:
    """The detector that is trained, as it is before its first step.

    Raises:
        UnfitBackbone: the encoder cannot be its backbone.
    """
    return Detector(
        network,
        len(question.train.classes),
        question.design,
        masks=question.masks,
        batch_norm=question.batch_norm,
        seed=seed,
        name=name,
    )


def measured(
    network: nn.Module,
    name: str,
    question: Question,
    seed: int,
    *,
    home: Path,
    device: torch.device,
    requests: Requests,
    say: Say,
) -> dict[str, Any]:
    """The numbers of an encoder; those that are kept, if the same was asked before.

    Args:
        network: the encoder, with `.preprocessing`; it is not changed.
        name: what messages call it.
        question: what is asked.
        seed: of the detector's new parts, and of all that is drawn.
        home: the folder of the evaluation, which can be written to.
        device: that the detector is trained on.
        requests: what signals have asked for.
        say: told how far it is.

    Returns:
        What the file says: `precision` (average precisions by name: `coco_box`, `coco_mask`, and for VOC's sets
        `voc07`), and how it was found.

    Raises:
        UnfitBackbone, UnusableData, Diverged, Interrupted: as of `Detector` and `trained`.
    """
    expected: Any = network.preprocessing
    causes = {**question.causes, "encoder": network_identity(network), "seed": seed}
    causes["normalisation"] = [list(expected.mean), list(expected.std)]
    place = home / FOLDER / digest_of(causes)[:16]
    if (before := _kept(place, say)) is not None:
        _clear(place, say)
        say(f"{name}, seed {seed}: found before, in {place.name}")
        return before
    storage.make_folder(place)
    detector = built(network, name, question, seed)
    clock = _Clock(name, seed, question.schedule.steps, say)
    trained(
        detector,
        question.train,
        question.schedule,
        seed=seed,
        device=device,
        home=place,
        requests=requests,
        say=say,
        told=clock.told,
    )
    say(f"{name}, seed {seed}: testing on {len(question.test)} images")
    found = list(found_in(detector, question.test, question.schedule, device))
    result = {
        "encoder": name,
        "encoder_identity": causes["encoder"],
        "seed": seed,
        "train": {"name": question.train.name, "images": len(question.train), "fingerprint": causes["train"]},
        "test": {"name": question.test.name, "images": len(question.test), "fingerprint": causes["test"]},
        "classes": question.train.classes,
        "design": question.design,
        "schedule": causes["schedule"],
        "batch_norm": question.batch_norm,
        "versions": causes["versions"],
        "precision": precisions(question.test, found),
        "last_loss": clock.terms,
        "processor_seconds": round(time.process_time() - clock.before, 1),
        "resumed": clock.first > 1,
    }
    storage.write_sealed(place / RESULT, result)
    _clear(place, say)
    return storage.read_sealed(place / RESULT)


def precisions(test: AnnotatedSet, found: list[Found]) -> dict[str, dict[str, Any]]:
    """The average precisions of what was found, by the convention's name. AP50 of each class is beside them."""
    made = {"coco_box": coco_precision(test, found)}
    if test.form == "voc":
        made["voc07"] = voc_precision(test, found)
    if all(image.outlines is not None for image in found):
        made["coco_mask"] = coco_precision(test, found, "mask")
    return {name: {**each.values, "by_class": each.by_class} for name, each in made.items()}


def _kept(place: Path, say: Say) -> dict[str, Any] | None:
    """The answer that a folder has; None if it has none. One that was damaged is found again."""
    try:
        found = storage.read_sealed(place / RESULT)
        if not _is_answer(found):
            raise UnusableData(f"{place / RESULT} is no answer of a detection")
        return found
    except FileNotFoundError:
        return None
    except UnusableData as error:
        say(f"{error}; it is measured again")
        return None


def _clear(place: Path, say: Say) -> None:
    """Removes what is of no use beside an answer: the checkpoints, and what a kill has left of their removal."""
    name = f"{HOME}/{FOLDER}/{place.name}"
    ownership.remove_tree(place / CHECKPOINTS, f"{name}/{CHECKPOINTS}", say)
    ownership.remove_leftovers(place, name, LEFT_OVER_SECONDS, say)


def _is_answer(content: dict[str, Any]) -> bool:
    """Whether a table has numbers where tables show them."""
    tables = content.get("precision")
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        return False
    numbers = [value for table in tables.values() for name, value in table.items() if name != "by_class"]
    return bool(numbers) and all(type(number) in (int, float) for number in numbers)


class _Clock:
    """Says now and then how far a training is, and keeps what its last step was like."""

    def __init__(self, name: str, seed: int, steps: int, say: Say) -> None:
        self.before, self.first, self.terms = time.process_time(), 0, dict[str, float]()
        self._about, self._steps, self._say = f"{name}, seed {seed}", steps, say
        self._last = time.monotonic()

    def told(self, step: int, terms: Mapping[str, float]) -> None:
        self.first, self.terms = self.first or step, dict(terms)
        if time.monotonic() - self._last > SAY_SECONDS or step == self._steps:
            self._last = time.monotonic()
            self._say(f"{self._about}: step {step} of {self._steps}, loss {sum(terms.values()):.3f}")
