"""Evaluations are killed at random changes of the disk, given again, and have the numbers of one that was not.

Detection, and the protocols that train. Everything is tiny, and saved after every step, so that there is much to kill.
"""

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command
from disk import How, inject
from injections import record

from barlow import cli, exits, ownership, protocols, results, storage
from barlow.detection import evaluating, generated, measuring, training
from barlow.detection.annotations import AnnotatedSet
from barlow.detection.average_precision import Found
from barlow.detection.detectors import DESIGNS
from barlow.detection.schedules import SCHEDULES

KILLS = int(os.environ.get("BARLOW_TEST_KILLS", "10"))
"""Of each course."""

ENCODER = ["random:resnet18", "--image-size", "16", "--device", "cpu"]
ENCODER += ["--encoder.options", '{"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}']

OF_ONE_START = ("processor_seconds", "resumed", "times_measured")
"""What two evaluations that are otherwise the same differ in."""


@dataclass(frozen=True)
class Course:
    """A command, and what makes it small in its process."""

    words: Callable[[Path], list[object]]
    smaller: Callable[[], None]
    least: int
    """Changes of the disk that there are at the least: fewer, and the counting is broken."""


def seen_in_all_weights(test: AnnotatedSet, found: list[Found]) -> dict[str, dict[str, Any]]:
    """In place of average precision, which is zero after four steps: numbers that change with any weight."""
    scores, corners = (np.concatenate(rows) for rows in ([f.scores for f in found], [f.boxes.ravel() for f in found]))
    assert len(scores)
    return {"coco_box": {"AP": float(scores.mean()), "AP50": float(scores.max()), "AP75": float(corners.mean()) / 100}}


def small_detector() -> None:
    """Four steps on four images, saved after each."""
    measuring.precisions = seen_in_all_weights
    sizes: dict[str, Any] = {"channels": 8, "head": 16, "mask_layers": (8,), "after_nms": (30, 30), "boxes_trained": 16}
    DESIGNS["small_fpn"] = replace(DESIGNS["small_fpn"], **sizes)
    course = replace(SCHEDULES["short"], steps=4, warmup_steps=1, sides=(64,), test_side=64, longest=96)
    evaluating.chosen_schedule = lambda *given: course
    generated.COUNTS |= {"train": 4, "test": 2}
    training.SAVE_SECONDS = 0.0
    measuring.SAY_SECONDS = 0.0


def few_updates() -> None:
    """Of the protocol that trains the encoder."""
    build = protocols.build

    def smaller(*given: Any) -> dict[str, Any]:
        quick: dict[str, Any] = {"draws": 2, "fewest_updates": 8, "epochs": 1, "choice_updates": 4}
        made = build(*given)
        return {name: replace(each, **quick) if each.trains_encoder else each for name, each in made.items()}  # type: ignore[type-var]

    protocols.build = smaller


COURSES = {
    "detect": Course(
        lambda images: [
            *("--protocol", "detect", "--train", "shapes_boxes", "--test", "shapes_boxes", "--detection.seeds", 2)
        ],
        small_detector,
        60,
    ),
    "protocols that choose and train": Course(
        lambda images: [
            *("--protocol", "knn,linear_sgd,svm,fewshot:1,retrieval,semi:30", "--train", images, "--test", images)
        ],
        few_updates,
        60,
    ),
}


def started(course: Course, images: Path, home: Path, how: How | None = None, at: int = 0) -> tuple[int, int]:
    """The exit code of the command, and how many changes of the disk it made, if they were counted."""
    counted, log = (home.parent.parent / name for name in ("changes", "log"))

    def prepare() -> None:
        course.smaller()
        if how is None:
            return
        changes, whole = inject(home, how, at, None), cli.main

        def main(words: list[str]) -> int:
            code = whole(words)
            counted.write_text(str(len(changes)))
            return code

        cli.main = main  # type: ignore[assignment]

    words = ["evaluate", *ENCODER, *course.words(images), "--out", home]
    command = Command(list(map(str, words)), log, prepare)
    code = command.ended()
    assert code in (exits.OK, -9), command.said
    return code, int(counted.read_text()) if how == "count" else 0


def numbers(home: Path) -> dict[str, Any]:
    """Every file of the results, and what the JSON among them says."""
    return {
        path.relative_to(home).as_posix(): _lasting(storage.read_sealed(path)) if path.suffix == ".json" else None
        for path in home.rglob("*")
        if path.is_file() and path.name != results.HISTORY
    }


def _lasting(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    return {key: _lasting(value) for key, value in content.items() if key not in OF_ONE_START}


def let_an_hour_pass(home: Path) -> None:
    """An evaluation takes what another one has not finished for its own leftovers only when it is an hour old."""
    for path in home.rglob(".*"):
        os.utime(path, (time.time() - 2 * results.LEFT_OVER_SECONDS,) * 2)


@pytest.mark.nightly
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("name", COURSES)
def test_killed_anywhere_an_evaluation_goes_on_to_the_same_numbers(name: str, labelled: Path, tmp_path: Path) -> None:
    if name == "detect":
        pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `detection`)")
    course, rng = COURSES[name], random.Random(0)
    straight = tmp_path / "straight" / results.HOME
    straight.parent.mkdir()
    code, changes = started(course, labelled, straight, "count")
    assert code == exits.OK
    assert changes >= course.least
    expected, wrong = numbers(straight), list[str]()
    assert any(file.startswith("results-") for file in expected)
    for kill in range(KILLS):
        home = tmp_path / f"killed-{kill}" / results.HOME
        home.parent.mkdir()
        points = [rng.randint(1, changes) for _ in range(2)]
        assert started(course, labelled, home, "die", points[0])[0] == -9
        let_an_hour_pass(home)
        started(course, labelled, home, "die", points[1])  # once more, unless it is through before
        let_an_hour_pass(home)
        assert started(course, labelled, home)[0] == exits.OK
        found = numbers(home)
        differ = sorted(file for file in {*expected, *found} if expected.get(file) != found.get(file))
        wrong += [f"killed at {points} of {changes}: {file} differs" for file in differ]
        wrong += [f"killed at {points}: {file} was left over" for file in ownership.foreign(home.parent)]
    record(f"killed at random changes of the disk: evaluate, {name}", 2 * KILLS, len(wrong))
    assert not wrong, "\n".join(wrong)
