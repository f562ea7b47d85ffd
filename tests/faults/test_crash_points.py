"""A command that is killed at any of its changes of the disk is given again, and all is as if it had not been.

Each change of the run folder (`disk.py`: a file opened for writing, half of a write, a name made, moved or removed) is
one point. The command runs in a process of its own, which is killed there for real. Then the same command runs again,
and nobody cleans up in between. Not modelled is a power cut, which may also take back what was written and not synced.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
from injections import record
from nightly_cases import nightly_but
from run_folders import meaning, wrong_in
from warm import Warm

from barlow import checkpoints, exits, results

Words = list[object]


@dataclass(frozen=True)
class Course:
    """A command, and the folder that it finds."""

    words: Callable[["Places"], Words]
    before: Callable[["Places", Warm], None]
    """Prepares the folder."""
    least: int
    """How many points there are at the least: fewer, and the counting is broken."""
    first: str | None = None
    """The last point is the first change that begins like this; None: the last one of the command."""


@dataclass(frozen=True)
class Places:
    """Where a course takes place."""

    photos: Path
    labelled: Path
    run: Path
    other: Path
    """A finished run, of two steps."""

    def pretrain(self, *more: object, steps: int = 2, **overrides: Any) -> Words:
        words = tiny.words(train__steps=steps, train__checkpoint_steps=1, **overrides)
        return ["pretrain", self.photos, "--out", self.run, *more, *words]

    def evaluate_two(self) -> Words:
        """A run and an untrained network, with all results in the run's folder."""
        encoders = [self.run, "random:resnet18", "--image-size", "16"]
        encoders += ["--encoder.options", json.dumps(tiny.SMALL["encoder.options"])]
        images = ["--train", self.labelled, "--test", self.labelled, "--out", self.run / results.HOME]
        return ["evaluate", *encoders, *images, "--protocol", "knn"]


def nothing(places: Places, warm: Warm) -> None:
    pass


def finished(places: Places, warm: Warm) -> None:
    shutil.copytree(places.other, places.run)


def unfinished(places: Places, warm: Warm) -> None:
    """A run of three steps that was killed in its third, with its newest checkpoint damaged since."""
    words = places.pretrain(steps=3)
    ended = warm.run(words, fault=at_commit(places.run, warm, words, 3))
    assert ended.killed
    assert list(checkpoints.folders(places.run)) == [1, 2]
    (checkpoints.folders(places.run)[2] / "tensors.safetensors").write_bytes(b"damaged")


def at_commit(run: Path, warm: Warm, words: Words, step: int) -> dict[str, Any]:
    """The fault that kills a command just before it commits the checkpoint of a step."""
    changes = counted(run, warm, words)
    shutil.rmtree(run)
    at = next(i for i, change in enumerate(changes, 1) if change == ("rename", f"checkpoints/.tmp-step-{step:06d}-*"))
    return {"home": str(run), "how": "die", "at": at}


def counted(run: Path, warm: Warm, words: Words) -> list[tuple[str, str]]:
    """The points of a command that nobody disturbs."""
    ended = warm.run(words, fault={"home": str(run), "how": "count"})
    assert ended.code == exits.OK, ended.output
    return ended.changes


COURSES = {
    "begin, save, rotate and write the encoder": Course(
        lambda p: p.pretrain("--resume", train__monitor_images=16), nothing, 60
    ),
    "overwrite": Course(lambda p: p.pretrain("--overwrite", seed=1), finished, 25, first="open .data.json"),
    "begin from weights": Course(
        lambda p: p.pretrain("--resume", "--init", p.other), nothing, 35, first="open .recipe.yaml"
    ),
    "go on from the checkpoint before a damaged one": Course(lambda p: p.pretrain("--resume", steps=3), unfinished, 35),
    "extend and stretch": Course(lambda p: p.pretrain("--resume", steps=3, schedule__steps=3), finished, 25),
    "evaluate": Course(
        lambda p: ["evaluate", p.run, "--train", p.labelled, "--test", p.labelled, "--protocol", "knn"], finished, 20
    ),
    "evaluate two encoders": Course(lambda p: p.evaluate_two(), finished, 45),
}


ORDINARY = ("begin, save, rotate and write the encoder", "go on from the checkpoint before a damaged one", "evaluate")
"""Courses of the ordinary test command. They pass the same places of the program as the others do."""

SHARE = 5
"""The ordinary test command kills at one in so many points, and `make nightly` at each of them, in all courses."""


def let_an_hour_pass(evaluation: Path) -> None:
    """An evaluation takes what another one has not finished for its own leftovers only when it is an hour old."""
    for path in evaluation.rglob(".*"):
        os.utime(path, (time.time() - 2 * results.LEFT_OVER_SECONDS,) * 2)


@pytest.fixture(scope="module")
def other(photos: Path, warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    places = Places(photos, photos, tmp_path_factory.mktemp("other") / "run", photos)
    assert warm.run(places.pretrain()).code == exits.OK
    return places.run


@pytest.mark.timeout(900)  # a minute at the most on a machine that does nothing else
@pytest.mark.parametrize(
    ("name", "share"),
    nightly_but([*((name, SHARE) for name in ORDINARY), *((name, 1) for name in COURSES)], lambda case: case[1] > 1),
)
def test_killed_at_any_change_of_the_disk_the_same_command_goes_on(
    name: str,
    share: int,
    photos: Path,
    labelled: Path,
    other: Path,
    warm: Warm,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    course = COURSES[name]
    places = Places(photos, labelled, tmp_path / "run", other)
    words = course.words(places)
    course.before(places, warm)
    prepared = tmp_path / "prepared"
    if places.run.exists():
        shutil.copytree(places.run, prepared)

    changes = counted(places.run, warm, words)
    expected = meaning(places.run)
    if course.first is not None:
        last = next(i for i, change in enumerate(changes) if " ".join(change).startswith(course.first))
        changes = changes[: last + 1]
    wrong: list[str] = []
    points = [*enumerate(changes, 1)][share - 1 :: share]
    for at, (operation, path) in points:
        shutil.rmtree(places.run)
        if prepared.exists():
            shutil.copytree(prepared, places.run)
        ended = warm.run(words, fault={"home": str(places.run), "how": "die", "at": at})
        assert ended.killed, f"{operation} of {path}: {ended.output}"
        let_an_hour_pass(places.run / "evaluation")
        again = warm.run(words)
        place = f"killed before point {at}, {operation} of {path}: "
        if again.code != exits.OK:
            wrong.append(f"{place}the same command ends with {again.code}: {again.told or again.output}")
            continue
        found = meaning(places.run)
        differ = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
        wrong += [place + line for line in [*wrong_in(places.run), *(f"{name} differs" for name in differ)]]
    if share == 1:
        record(f"killed at each change of the disk: {name}", len(points), len({line.split(",")[0] for line in wrong}))
    record_property("points", len(points))
    assert not wrong, "\n".join(wrong)
    assert len(changes) >= course.least, changes
