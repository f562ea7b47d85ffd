"""What users of several processes meet: one line for what is wrong, a stop that saves, a process that dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
from commands import Command
from forks import children

from barlow import checkpoints, exits, launching

LONG = 100_000


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data") / "photos", 48)


def start(data: Path, log: Path, out: Path, *words: str, **overrides: object) -> Command:
    given = ["pretrain", str(data), *tiny.words(**overrides), "--out", str(out), "--devices", "2", *words]
    return Command(given, log)


def training(out: Path) -> None:
    """Waits until the run in a folder has made its first step."""
    deadline = time.monotonic() + 120
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").stat().st_size:
        assert time.monotonic() < deadline, "the run did not begin"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("given", "out", "overrides", "expected", "code"),
    [
        ("photos", "a", {"train__batch_size": 15}, "a batch of 15 cannot be shared equally by 2", exits.USAGE),
        ("nowhere", "b", {}, "no folder", exits.NO_INPUT),
        ("photos", "full", {}, "is not empty", exits.CANNOT_CREATE),
    ],
)
def test_what_is_wrong_for_all_is_said_once_and_in_one_line(
    given: str, out: str, overrides: dict[str, Any], expected: str, code: int, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    command = start(data if given == "photos" else tmp_path / given, tmp_path / "log", tmp_path / out, **overrides)
    assert command.ended() == code, command.said
    told = [line for line in command.said.splitlines() if line.startswith("barlow: ")]
    assert len(told) == 1, command.said
    assert expected in told[0]
    assert "Traceback" not in command.said
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_processes_that_begin_as_a_users_do_end_with_one_line(data: Path, tmp_path: Path) -> None:
    """All others here are forks (`forks`)."""
    words = ["pretrain", str(data), *tiny.words(train__batch_size=15), "--out", str(tmp_path / "a"), "--devices", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "barlow.cli", *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == exits.USAGE, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("barlow: ")]
    assert len(told) == 1, done.stderr
    assert "a batch of 15 cannot be shared equally by 2" in told[0]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")
@pytest.mark.parametrize("asked", ["the launcher", pytest.param("one process", marks=pytest.mark.nightly)])
def test_a_signal_stops_all_after_the_same_step_saved(asked: str, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = start(data, tmp_path / "log", out, train__steps=LONG)
    training(out)
    os.kill(command.pid if asked == "the launcher" else children(command.pid)[1], signal.SIGTERM)
    assert command.ended() == exits.STOPPED, command.said
    assert command.said.count("saved. To go on") == 1, command.said
    first, step = checkpoints.folders(out)
    assert first == 0
    assert f"stopped at step {step} of {LONG}" in command.said


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")
@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.nightly), 1])
def test_when_a_process_is_killed_the_others_end_and_one_line_says_so(rank: int, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = start(data, tmp_path / "log", out, train__steps=LONG, train__checkpoint_steps=1)
    training(out)
    started = children(command.pid)
    os.kill(started[rank], signal.SIGKILL)
    killed = time.monotonic()
    assert command.ended() == exits.OUR_FAULT
    assert time.monotonic() - killed < 20
    told = [line for line in command.said.splitlines() if line.startswith("barlow: ")]
    assert len(told) == 1, command.said
    assert f"process {rank} of 2 was killed by signal 9" in told[0]
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be asked for this")
def test_when_the_launcher_is_killed_the_processes_save_and_end(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = start(data, tmp_path / "log", out, train__steps=LONG)
    training(out)
    started = children(command.pid)
    os.kill(command.pid, signal.SIGKILL)
    command.ended()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in started):
        assert time.monotonic() < deadline, "a process trains on, and holds the folder"
        time.sleep(0.1)
    assert list((out / "checkpoints").glob("step-*"))


@pytest.mark.parametrize(("codes", "told"), [([75, -signal.SIGTERM], True), ([-signal.SIGTERM, 75], False)])
def test_one_that_was_asked_to_stop_while_it_imported_has_stopped_like_the_others(codes: list[int], told: bool) -> None:
    """It had no handler yet, and the signal itself ended it. No fork is ever in that state."""
    ended: Any = [SimpleNamespace(returncode=code) for code in codes]
    with pytest.raises(launching.Stopped) as stopped:
        launching._Launched("go on", ended, asked={signal.SIGTERM}).verdict()
    assert stopped.value.told is told
    ended[1].returncode = -signal.SIGKILL
    with pytest.raises(RuntimeError, match="process 1 of 2 was killed by signal 9"):
        launching._Launched("go on", ended, asked={signal.SIGTERM}).verdict()


def test_more_processes_than_cores_are_refused_before_they_start(data: Path, tmp_path: Path) -> None:
    command = start(data, tmp_path / "log", tmp_path / "run", "--devices", "9999")
    assert command.ended() == exits.USAGE
    assert command.said.startswith("barlow: --devices 9999: there are")
    assert len(command.said.splitlines()) == 1
