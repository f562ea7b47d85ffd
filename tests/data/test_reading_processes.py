"""Processes that read ahead may die or hang: the batches are the same, and a request to stop is heard all the same."""

import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from commands import Command
from nightly_cases import nightly_but
from torch.utils.data import DataLoader, Dataset

from barlow import cli, exits
from barlow.data import workers
from barlow.data.folder import FolderSource
from barlow.data.loader import StreamingLoader
from barlow.pretraining import pretrain
from barlow.runs.run import Run
from barlow.stopping import Interrupted
from barlow.training.watchers import ReplacedImages

pytestmark = pytest.mark.skipif(os.name == "nt", reason="ends processes by signals that Windows has not")

COUNT = 12


class Numbers(Dataset[int]):
    def __getitem__(self, index: int) -> int:
        return index


def loader(done: int) -> "DataLoader[int]":
    return DataLoader(Numbers(), sampler=range(done, COUNT), batch_size=None, num_workers=2, timeout=0.5)


def signalled(number: int, at: tuple[int, ...]) -> Iterator[tuple[int, list[str]]]:
    """The numbers, with a signal to the reading processes after some of them."""
    told: list[str] = []
    for value in workers.served(loader, COUNT, told.append):
        if int(value) in at:
            for process in multiprocessing.active_children():
                os.kill(process.pid or 0, number)
        yield int(value), told


@pytest.mark.parametrize("at", [(0,), (5,), (2, 9)])
def test_processes_that_are_killed_are_replaced_and_nothing_is_missed_or_repeated(at: tuple[int, ...]) -> None:
    *_, (_, told) = served = list(signalled(signal.SIGKILL, at))
    assert [value for value, _ in served] == list(range(COUNT))
    assert 1 <= len(told) <= len(at)
    assert all("died and were replaced" in line for line in told)


def test_a_process_that_is_killed_is_missed_long_before_one_that_hangs() -> None:
    """A batch may be waited for for minutes, but not from a process that is not there any more."""
    began = time.monotonic()
    list(signalled(signal.SIGKILL, (5,)))
    assert time.monotonic() - began < workers.LIMIT_SECONDS / 10


def test_one_that_is_only_slow_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Numbers):
        def __getitem__(self, index: int) -> int:
            time.sleep(1.5 if index == 4 else 0.0)
            return index

    def slow(done: int) -> "DataLoader[int]":
        return DataLoader(Slow(), sampler=range(done, COUNT), batch_size=None, num_workers=2, timeout=0.2)

    told: list[str] = []
    assert [int(value) for value in workers.served(slow, COUNT, told.append)] == list(range(COUNT))
    assert told == []


def test_processes_that_hang_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LIMIT_SECONDS", 1.0)
    *_, (_, told) = served = list(signalled(signal.SIGSTOP, (3,)))
    assert [value for value, _ in served] == list(range(COUNT))
    assert len(told) == 1
    assert "did not answer and were replaced" in told[0]


def test_after_the_third_time_it_is_no_accident_any_more() -> None:
    with pytest.raises(workers.WorkersLost, match="3 times in one run: is there enough memory"):
        list(signalled(signal.SIGKILL, tuple(range(COUNT))))


def test_an_error_inside_of_a_process_is_that_error() -> None:
    class Broken(Numbers):
        def __getitem__(self, index: int) -> int:
            raise RuntimeError("DataLoader worker: broken on purpose")

    def broken(done: int) -> "DataLoader[int]":
        return DataLoader(Broken(), sampler=range(COUNT), batch_size=None, num_workers=1)

    with pytest.raises(RuntimeError) as caught:
        list(workers.served(broken, COUNT, lambda line: None))
    assert str(caught.value) == "DataLoader worker: broken on purpose"
    assert "in __getitem__" in caught.value.__notes__[0], "--debug shows where"


@pytest.mark.parametrize("processes", [0, 1])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (lambda: ZeroDivisionError("why"), exits.OUR_FAULT),
        (lambda: OSError(5, "why"), exits.IO),
        (lambda: KeyError("why"), exits.OUR_FAULT),
    ],
)
def test_an_error_that_was_not_foreseen_is_one_line_with_the_image(
    error: Callable[[], Exception],
    code: int,
    processes: int,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is raised in another process, whose traceback of forty lines is its text when it arrives."""
    read = FolderSource.read

    def failing(self: FolderSource, index: int, *rest: Any) -> Any:
        if failing.armed and self.locate(index).endswith("007.png"):
            raise error()
        return read(self, index, *rest)

    failing.armed = False
    stream = StreamingLoader.stream

    def armed(self: StreamingLoader, start: int, stop: int) -> Any:
        failing.armed = True
        return stream(self, start, stop)

    monkeypatch.setattr(FolderSource, "read", failing)
    monkeypatch.setattr(StreamingLoader, "stream", armed)
    words = tiny.words(data__executor="streaming", data__workers=processes, train__steps=9)
    assert cli.main(["pretrain", str(photos), "--out", str(tmp_path / "run"), *words]) == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"barlow: .{0,12}why.{0,3}; it was reading \S*007\.png( \[.*\])?", last), last


@pytest.mark.parametrize(
    "error", [ConnectionResetError(104, "Connection reset by peer"), EOFError(), FileNotFoundError(2, "No such file")]
)
def test_a_batch_that_cannot_be_fetched_from_a_dead_process_is_read_again(error: Exception) -> None:
    """A process may be gone between its word that a batch is ready and the batch: that is a broken connection."""

    class Breaking:
        """A loader's iterator whose process is dead at the second batch."""

        def __init__(self, first: int, dead: bool) -> None:
            self.left, self.dead = iter(range(first, 5)), dead
            self._workers = [multiprocessing.get_context("fork").Process(target=int)]
            self._workers[0].start()
            self._workers[0].join()

        def __iter__(self) -> "Breaking":
            return self

        def __next__(self) -> int:
            number = next(self.left)
            if number == 2 and self.dead:
                raise error
            return number

    loaders = []

    def loader(done: int) -> Breaking:
        loaders.append(Breaking(done, dead=not loaders))
        return loaders[-1]

    said: list[str] = []
    assert list(workers.served(loader, 5, said.append)) == [0, 1, 2, 3, 4]  # type: ignore[arg-type]
    assert len(said) == 1
    assert said[0].startswith("processes that read images died and were replaced (")
    caught = FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0.")
    assert not workers._is_of_a_dead_one(caught, loaders[0])


def test_a_dead_child_of_somebody_elses_ends_no_step() -> None:
    """torch's own handler of dead children would raise wherever the program is."""
    before = signal.getsignal(signal.SIGCHLD)
    stream = signalled(signal.SIGKILL, ())
    next(stream)
    assert signal.getsignal(signal.SIGCHLD) == before
    stream.close()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data") / "photos", 48)


STREAMED = tiny.SMALL | {"data.executor": "streaming", "data.workers": 1, "train.steps": 9}


def test_a_run_whose_processes_die_equals_one_whose_do_not(photos: Path, tmp_path: Path) -> None:
    said: list[str] = []

    class Deadly:
        """VICReg's distance, and now and then a shot at who reads the images."""

        calls = 0

        def __call__(self, za: torch.Tensor, zb: torch.Tensor) -> dict[str, torch.Tensor]:
            Deadly.calls += 1
            if Deadly.calls == 4 and self is deadly_one:
                for process in multiprocessing.active_children():
                    os.kill(process.pid or 0, signal.SIGKILL)
            return {"distance": (za - zb).square().mean()}

    deadly_one, harmless = Deadly(), Deadly()
    weights = []
    for name, objective in (("harmless", harmless), ("deadly", deadly_one)):
        Deadly.calls = 0
        run = pretrain(
            photos, tmp_path / name, overrides=STREAMED, objective=objective, progress=False, tell=said.append
        ).run_folder
        weights.append(tiny.weights(run))
    assert weights[0] == weights[1]
    assert [line for line in said if "died and were replaced" in line]


def test_a_run_whose_processes_die_for_good_is_saved(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "MOST_FAILURES", 1)

    class Deadly:
        def __call__(self, za: torch.Tensor, zb: torch.Tensor) -> dict[str, torch.Tensor]:
            for process in multiprocessing.active_children():
                os.kill(process.pid or 0, signal.SIGKILL)
            return {"distance": (za - zb).square().mean()}

    with pytest.raises(Interrupted, match=r"1 times in one run.*stopped at step \d+ of 9, saved") as caught:
        pretrain(photos, tmp_path / "run", overrides=STREAMED, objective=Deadly(), progress=False)
    assert exits.code_of(caught.value) == exits.STOPPED


def its_processes_hang() -> None:
    """After the second step those that read images are stopped, and do not know it."""
    told = ReplacedImages.__call__

    def stopping(self: ReplacedImages, moment: Any) -> None:
        told(self, moment)
        if moment.step == 2:
            for process in multiprocessing.active_children():
                os.kill(process.pid or 0, signal.SIGSTOP)

    ReplacedImages.__call__ = stopping  # type: ignore[method-assign]


@pytest.mark.skipif(sys.platform != "linux", reason="starts processes as Linux does")
@pytest.mark.parametrize("number", nightly_but([signal.SIGTERM, signal.SIGINT], signal.SIGTERM.__eq__))
def test_a_signal_is_heard_while_images_are_waited_for_in_vain_and_the_run_goes_on(
    number: signal.Signals, photos: Path, tmp_path: Path
) -> None:
    words = tiny.words(data__executor="streaming", data__workers=1, train__steps=12)
    given = ["pretrain", str(photos), "--out", str(tmp_path / "run"), *words]
    command = Command(given, tmp_path / "log", its_processes_hang)
    command.until(lambda: len(Run(tmp_path / "run").metrics()) >= 2)
    time.sleep(1.0)  # the batches that had been read by then are used up
    code, seconds = command.signalled(number)
    assert code == exits.STOPPED, command.said
    assert seconds < 10.0
    assert "saved. To go on" in command.said
    assert cli.main(["pretrain", "--resume", "--out", str(tmp_path / "run")]) == exits.OK
    assert cli.main(["pretrain", str(photos), "--out", str(tmp_path / "whole"), *words]) == exits.OK
    assert tiny.weights(tmp_path / "run") == tiny.weights(tmp_path / "whole")
