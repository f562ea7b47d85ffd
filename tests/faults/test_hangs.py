"""Runs in which nothing goes on any more end by themselves, say what hangs, and go on afterwards."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from commands import Command
from forks import children

from barlow import checkpoints, exits, ownership
from barlow.data.loader import MemoryLoader
from barlow.runs.run import Run
from barlow.training.learner import Learner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="starts forks, and reads /proc")

LIMIT = {"BARLOW_HANG_SECONDS": "4"}
"""In place of five minutes."""


def words(photos: Path, out: Path, *more: str, **overrides: Any) -> list[str]:
    return ["pretrain", str(photos), "--out", str(out), "--resume", *tiny.words(**overrides), *more]


def images_that_never_come() -> None:
    stream = MemoryLoader.stream

    def hanging(self: MemoryLoader, start: int, stop: int) -> Iterator[Any]:
        for batch in stream(self, start, stop):
            if batch.step == 5:
                time.sleep(1000)
            yield batch

    MemoryLoader.stream = hanging  # type: ignore[method-assign]


def a_step_that_never_ends() -> None:
    step = Learner.step

    def hanging(self: Learner, batch: Any, *rest: Any) -> Any:
        if batch.step == 5:
            time.sleep(1000)
        return step(self, batch, *rest)

    Learner.step = hanging  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("what", "said", "saved"),
    [
        (images_that_never_come, "this run has been waiting for the images of step 6 for", [0, 5]),
        (a_step_that_never_ends, "this run has been in step 6 for", [0]),
    ],
)
def test_a_run_that_hangs_says_where_keeps_what_it_can_and_goes_on(
    what: Any, said: str, saved: list[int], photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    given = words(photos, out, train__steps=9)
    command = Command(given, tmp_path / "log", what, **LIMIT)
    assert command.ended() == exits.OUR_FAULT, command.said
    assert said in command.said
    assert f"barlow pretrain --resume --out {out}" in command.said
    assert command.said.count("barlow: ") == 1, command.said
    assert list(checkpoints.folders(out)) == saved
    assert "in hanging" in (out / "hang.txt").read_text(), "the stack of the main thread"
    assert ownership.foreign(out) == []
    again = Command(given, tmp_path / "again")
    assert again.ended() == exits.OK, again.said
    straight = Command(words(photos, tmp_path / "straight", train__steps=9), tmp_path / "straight.log")
    assert straight.ended() == exits.OK
    assert tiny.weights(out) == tiny.weights(tmp_path / "straight")


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.nightly), 1])
def test_one_of_two_processes_that_was_stopped_is_named_and_both_end(rank: int, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = Command(words(photos, out, "--devices", "2", train__steps=100_000), tmp_path / "log", **LIMIT)
    command.until(lambda: Run(out).metrics())
    started = children(command.pid)
    os.kill(started[rank], signal.SIGSTOP)
    stopped = time.monotonic()
    assert command.ended() == exits.OUR_FAULT, command.said
    assert time.monotonic() - stopped < 4 + 10
    assert f"process {rank} of 2 has given no sign of life for 4 s, while this one was in step " in command.said
    assert command.said.count("barlow: ") == 1, command.said
    assert "MainThread" in (out / ("hang-1.txt" if rank == 0 else "hang.txt")).read_text()
    for pid in started:
        assert not Path(f"/proc/{pid}").exists()
    again = Command(words(photos, out, train__steps=100_000), tmp_path / "again")
    again.until(lambda: (rows := Run(out).metrics()) and rows[-1]["step"] == len(rows) > 3)
    code, _ = again.signalled(signal.SIGTERM)
    assert code == exits.STOPPED, again.said


@pytest.mark.nightly
def test_a_run_that_was_suspended_whole_goes_on(photos: Path, tmp_path: Path) -> None:
    """As a scheduler does it to make room for another job."""
    out = tmp_path / "run"
    command = Command(words(photos, out, "--devices", "2", train__steps=100_000), tmp_path / "log", **LIMIT)
    command.until(lambda: Run(out).metrics())
    everyone = [command.pid, *children(command.pid)]
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in everyone:
            os.kill(pid, number)
        time.sleep(8.0 if number == signal.SIGSTOP else 0.0)
    step = Run(out).metrics()[-1]["step"]
    time.sleep(6.0)
    command.until(lambda: Run(out).metrics()[-1]["step"] > step + 3)
    code, _ = command.signalled(signal.SIGTERM)
    assert code == exits.STOPPED, command.said
