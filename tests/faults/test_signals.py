"""What asks to stop is heard in ten seconds, in every phase, by one process and by two; the same command goes on."""

import gc
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import tiny
from commands import Command
from forks import children

from barlow import exits, stopping
from barlow.runs.run import Run
from barlow.stopping import Asked, listening
from barlow.training.learner import Learner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sends signals to forks, and reads /proc")

PROMISED_SECONDS = 10.0

STEPS = 100
SLOW = {"encoder__options": {"layers": [1, 1, 1, 1], "channels": [48, 48, 48, 48]}, "data__image_size": 48}
"""Steps of some dozens of milliseconds, so that measuring their time takes a second or more."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images enough that they are read for a second."""
    return tiny.images(tmp_path_factory.mktemp("data") / "photos", 4000)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


def words(photos: Path, out: Path, processes: int, **overrides: Any) -> list[str]:
    devices = ["--devices", "2"] if processes == 2 else []
    return ["pretrain", str(photos), "--out", str(out), "--resume", *tiny.words(**overrides), *devices]


def with_minutes(command: list[str]) -> list[str]:
    place = command.index("--train.steps")
    return [*command[:place], *command[place + 2 :], "--minutes", "0.02"]


@pytest.fixture(scope="module")
def reference(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """The weights of runs that nobody has asked to stop, by their number of processes; made when asked for."""
    home = tmp_path_factory.mktemp("reference")

    class Made(dict[int, str]):
        def __missing__(self, processes: int) -> str:
            out = home / str(processes)
            command = Command(words(photos, out, processes, train__steps=STEPS), home / f"log{processes}")
            assert command.ended() == exits.OK, command.said
            self[processes] = tiny.weights(out)
            return self[processes]

    return Made()


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to be evaluated."""
    home = tmp_path_factory.mktemp("trained")
    command = Command(words(photos, home / "run", 1, train__steps=2), home / "log")
    assert command.ended() == exits.OK, command.said
    return home / "run"


NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
SELECTED = [
    ("reading", 1, "SIGHUP"),
    ("measuring", 1, "SIGINT"),
    ("training", 1, "SIGUSR1"),
    ("evaluating", 1, "SIGXCPU"),
    ("checking", 1, "SIGTERM"),
    ("reading", 2, "SIGUSR2"),
]
"""Each signal, each phase, and one and two processes: what every change must pass. The rest of the grid is nightly.

Two processes that train and are asked to stop are in test_process_faults.py.
"""


def grid() -> Iterator[Any]:
    phases = [*product(("reading", "measuring", "training"), (1, 2)), ("evaluating", 1), ("checking", 1)]
    for (phase, processes), name in product(phases, NAMES):
        marks = [] if (phase, processes, name) in SELECTED else [pytest.mark.nightly]
        yield pytest.param(phase, processes, name, marks=marks)


@pytest.mark.parametrize(("phase", "processes", "name"), list(grid()))
def test_a_signal_ends_a_command_in_time_and_the_same_command_goes_on(
    phase: str,
    processes: int,
    name: str,
    photos: Path,
    folder: Path,
    labelled: Path,
    trained: Path,
    reference: dict[int, str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    given, begins, said = {
        "reading": (words(folder, out, processes, train__steps=1), "reading ", "before the first step"),
        "measuring": (with_minutes(words(photos, out, processes, **SLOW)), "\nbatch ", "before the first step"),
        "training": (words(photos, out, processes, train__steps=STEPS), "", "saved. To go on"),
        "evaluating": (
            ["evaluate", str(trained), "--train", str(labelled), "--test", str(labelled), "--out", str(tmp_path / "e")],
            "embedding ",
            "what was found so far is kept",
        ),
        "checking": (["check", str(folder), "--fast"], "reading ", "a check keeps nothing"),
    }[phase]
    command = Command(given, tmp_path / "log")
    command.until((lambda: Run(out).metrics()) if phase == "training" else lambda: begins in command.said)
    code, seconds = command.signalled(getattr(signal, name))
    assert code == exits.STOPPED, command.said
    assert seconds < PROMISED_SECONDS
    assert said in command.said
    assert "Traceback" not in command.said
    assert command.said.count("barlow: ") == 1, command.said
    if phase == "reading":
        given = words(photos, out, processes, train__steps=1)
    again = Command(given, tmp_path / "again")
    assert again.ended() == exits.OK, again.said
    if phase == "training":
        assert tiny.weights(out) == reference[processes]


def hanging_step() -> None:
    """From the sixth step on, a step never ends."""
    step = Learner.step

    def hanging(self: Learner, batch: Any, *rest: Any) -> Any:
        if batch.step == 5:
            sys.stderr.write("it hangs\n")
            time.sleep(1000)
        return step(self, batch, *rest)

    Learner.step = hanging  # type: ignore[method-assign]
    stopping.ANSWER_SECONDS = 1.0


def test_a_step_that_does_not_end_is_given_up_and_the_newest_checkpoint_is_named(photos: Path, tmp_path: Path) -> None:
    given = words(photos, tmp_path / "run", 1, train__steps=STEPS, train__checkpoint_steps=2)
    command = Command(given, tmp_path / "log", hanging_step)
    command.until(lambda: "it hangs" in command.said)
    code, seconds = command.signalled(signal.SIGTERM)
    assert (code, seconds < 3) == (exits.STOPPED, True), command.said
    assert re.search(r"barlow: asked to stop 1 s ago: given up while in step 6\. To go on from step 4: ", command.said)


def test_a_second_request_ends_at_once_what_does_not_answer(photos: Path, tmp_path: Path) -> None:
    command = Command(words(photos, tmp_path / "run", 1, train__steps=STEPS), tmp_path / "log", hanging_step)
    command.until(lambda: "it hangs" in command.said)
    os.kill(command.pid, signal.SIGINT)
    time.sleep(stopping.ONE_REQUEST_SECONDS + 0.1)
    code, _ = command.signalled(signal.SIGINT)
    assert code == exits.AT_ONCE, command.said
    assert "stopped at once" in command.said


def test_a_long_step_is_finished_where_it_is_known_to_be_long(photos: Path, tmp_path: Path) -> None:
    """Here a long step has 0.6 s, and a request has 1 s where nothing is known."""

    def slow() -> None:
        step = Learner.step

        def slower(self: Learner, batch: Any, *rest: Any) -> Any:
            if batch.step == 3:
                sys.stderr.write("a longer one\n")
            time.sleep(0.6 if batch.step < 3 else 2.0)
            return step(self, batch, *rest)

        Learner.step = slower  # type: ignore[method-assign]
        stopping.ANSWER_SECONDS = 1.0

    command = Command(words(photos, tmp_path / "run", 1, train__steps=STEPS), tmp_path / "log", slow)
    command.until(lambda: "a longer one" in command.said)
    code, _ = command.signalled(signal.SIGTERM)
    assert code == exits.STOPPED
    assert f"stopped at step 4 of {STEPS}, saved" in command.said


def test_a_signal_gets_through_to_a_process_that_was_stopped(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = Command(words(photos, out, 2, train__steps=100_000), tmp_path / "log")
    command.until(lambda: Run(out).metrics())
    os.kill(children(command.pid)[1], signal.SIGSTOP)
    time.sleep(0.5)
    code, seconds = command.signalled(signal.SIGTERM)
    assert code == exits.STOPPED, command.said
    assert seconds < PROMISED_SECONDS
    assert "saved. To go on" in command.said


@pytest.mark.nightly
def test_of_several_processes_one_that_is_ignored_on_purpose_stays_ignored(photos: Path, tmp_path: Path) -> None:
    """`nohup barlow pretrain … --devices 2`: the terminal is closed, and the run goes on."""
    out = tmp_path / "run"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        command = Command(words(photos, out, 2, train__steps=100_000), tmp_path / "log")
    finally:
        signal.signal(signal.SIGHUP, before)
    command.until(lambda: Run(out).metrics())
    os.kill(command.pid, signal.SIGHUP)
    step = Run(out).metrics()[-1]["step"]
    command.until(lambda: Run(out).metrics()[-1]["step"] > step + 3)
    code, _ = command.signalled(signal.SIGTERM)
    assert code == exits.STOPPED


def test_a_request_for_a_process_that_reads_is_not_one_for_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a process is a fork, and has the socket by which the main process learns of requests."""
    ends: list[int] = []
    monkeypatch.setattr(stopping, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(stopping.ending, "end", lambda code, line, say: ends.append(code))
    for asked, expected in (("the fork", []), ("this process", [exits.STOPPED])):
        with listening() as requests:
            requests.finishing = True
            if asked == "this process":
                os.kill(os.getpid(), signal.SIGUSR1)
            elif (pid := os.fork()) == 0:
                os.kill(os.getpid(), signal.SIGUSR1)
                os._exit(0)
            else:
                os.waitpid(pid, 0)
            time.sleep(1.0)
        assert ends == expected


class Dropped:
    """Something whose finalizer is at work when the request comes."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        sum(range(1000))


def in_a_finalizer() -> None:
    Dropped()


def while_garbage_is_collected() -> None:
    """Libraries have callbacks there: hypothesis does, and in a large process a collection takes a second."""

    def callback(phase: str, info: object) -> None:
        if phase == "stop":
            gc.callbacks.remove(callback)
            os.kill(os.getpid(), signal.SIGUSR1)
            sum(range(1000))

    gc.callbacks.append(callback)
    gc.collect()


@pytest.mark.parametrize("request_comes", [in_a_finalizer, while_garbage_is_collected])
def test_a_request_that_comes_where_python_drops_exceptions_is_not_lost(
    request_comes: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[int] = []
    monkeypatch.setattr(stopping.ending, "end", lambda code, line, say: ends.append(code))
    heard: list[stopping.Requests] = []

    def asked_while_it_waits() -> None:
        with listening() as requests:
            heard.append(requests)
            request_comes()
            time.sleep(5)

    began = time.monotonic()
    with pytest.raises(Asked):
        asked_while_it_waits()
    assert time.monotonic() - began < 3
    assert len(heard[0].times) == 1, "it is one request, however often it is raised"
    assert ends == []


def test_a_disk_that_hangs_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line asks it for the newest checkpoint."""
    lines: list[str] = []
    monkeypatch.setattr(stopping, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(stopping.ending, "SAYING_SECONDS", 0.1)
    monkeypatch.setattr(stopping.ending, "end", lambda code, line, say: lines.append(line))
    with listening() as requests:
        requests.finishing, requests.given_up = True, lambda: str(time.sleep(60))
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(1.0)
    assert lines == ["asked to stop 0 s ago: given up; the same command goes on from the newest checkpoint"]
