"""What hangs is noticed and named, what is only slow is not, and the watch costs a step nothing."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from barlow import ending, exits, machine, watchdog
from barlow.data import folder
from barlow.data.counting import not_shown
from barlow.data.folder import FolderSource
from barlow.distributed import World
from barlow.watchdog import GONE, Doing, Watch

CPU = torch.device("cpu")


class Board:
    """Two processes' board, without processes: the other one's lines are what a test says."""

    def __init__(self, line: str = "") -> None:
        self.lines = {"1": line}

    def set(self, key: str, text: str) -> None:
        self.lines[key] = text

    def check(self, keys: list[str]) -> bool:
        return bool(self.lines.get(keys[0]))

    def get(self, key: str) -> bytes:
        return self.lines[key].encode()


def watch(tmp_path: Path, *, limit: float = 10.0, size: int = 1, line: str = "") -> Watch:
    made = Watch(World(CPU, size=size, board=Board(line)), tmp_path, lambda line: None, limit)
    if size > 1:
        made._heard = {1: (line, time.monotonic())}
    return made


def ago(doing: Doing, seconds: float) -> Doing:
    return Doing(doing.what, doing.limit, doing.step, doing.in_step, time.monotonic() - seconds)


def at_step(made: Watch, *durations: float) -> None:
    """Brings a watch into the step that follows steps of so many seconds."""
    steps = made.steps(iter(range(len(durations) + 1)), 0, 0.0, lambda batch: False)
    for _ in range(len(durations) + 1):
        next(steps)
    made._steps.clear()
    made._steps.extend(durations)


def test_a_step_may_take_twenty_times_the_usual_one_and_in_any_case_the_limit(tmp_path: Path) -> None:
    made = watch(tmp_path)
    at_step(made, 0.1, 0.1, 0.1)
    for seconds, hangs in ((9, False), (11, True)):
        made.now = ago(made.now, seconds)
        assert (made.verdict(time.monotonic()) is not None) == hangs
    at_step(made, 1.0, 1.0, 90.0, 1.0)  # one of them took long, and is not the usual one
    for seconds, hangs in ((19, False), (21, True)):
        made.now = ago(made.now, seconds)
        assert (made.verdict(time.monotonic()) is not None) == hangs
    assert "in step 5 for 21 s (the usual step takes 1 s)" in str(made.verdict(time.monotonic()))


def test_the_first_step_has_more_time_and_what_nobody_can_say_is_not_judged(tmp_path: Path) -> None:
    made = watch(tmp_path)
    at_step(made)
    for seconds, hangs in ((119, False), (121, True)):
        made.now = ago(made.now, seconds)
        assert (made.verdict(time.monotonic()) is not None) == hangs
    next(made.steps(iter([0]), 0, 0.0, lambda batch: True))
    made.now = ago(made.now, 1e6)
    assert made.verdict(time.monotonic()) is None
    made.doing("finishing")
    made.now = ago(made.now, 1e6)
    assert made.verdict(time.monotonic()) is None


def test_an_image_that_is_read_is_a_sign_of_life(tmp_path: Path) -> None:
    made, shown = watch(tmp_path), list[int]()
    counted = made.counted(lambda what, done, total: shown.append(done))
    counted("images read", 1, 3)
    made.now = ago(made.now, 11)
    assert made.verdict(time.monotonic()) == "this run has been reading images for 11 s, which is taken to hang"
    counted("images read", 2, 3)
    assert made.verdict(time.monotonic()) is None
    counted("images read", 3, 3)  # what comes next reads nothing
    made.now = ago(made.now, 11)
    assert made.verdict(time.monotonic()) is None
    assert shown == [1, 2, 3]


def test_a_disk_that_takes_long_for_each_file_is_not_taken_to_hang_while_a_folder_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(1_000):
        (tmp_path / "photos" / f"{number}.jpg").touch()
    made, clock, verdicts = watch(tmp_path, limit=300.0), [1000.0], list[str | None]()
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: clock[0])

    class Slow:
        """An entry of a folder, of which the disk tells after two seconds."""

        def __init__(self, entry: "os.DirEntry[bytes]") -> None:
            self.name, self.is_symlink, self._entry = entry.name, entry.is_symlink, entry

        def stat(self) -> os.stat_result:
            clock[0] += 2.0
            verdicts.append(made.verdict(clock[0]))
            return self._entry.stat()

    entries = folder._entries
    monkeypatch.setattr(folder, "_entries", lambda path: map(Slow, entries(path)))
    assert len(FolderSource([tmp_path / "photos"], counted=made.counted(not_shown))) == 1_000
    assert len(verdicts) == 1_000
    assert set(verdicts) == {None}
    clock[0] += 1e6
    assert made.verdict(clock[0]) is None, "what comes next has its own time"


def line(what: str, step: int, *, in_step: bool) -> str:
    return json.dumps([0.0, what, step, in_step])


@pytest.mark.parametrize(
    ("other", "hangs"),
    [
        (line("in step 4", 3, in_step=True), True),  # all are in one step, and it does not end
        (line("in step 3", 2, in_step=True), False),
        (line("waiting for the images of step 4", 3, in_step=False), False),
        (line("saving step 3", 3, in_step=False), False),
    ],
)
def test_of_several_processes_not_the_one_that_waits_is_taken_to_hang(other: str, hangs: bool, tmp_path: Path) -> None:
    made = watch(tmp_path, size=2, line=other)
    at_step(made, 0.1, 0.1, 0.1)
    made.now = ago(made.now, 11)
    assert (made.verdict(time.monotonic()) is not None) == hangs


def test_a_process_that_gives_no_sign_of_life_is_named_whatever_this_one_does(tmp_path: Path) -> None:
    made = watch(tmp_path, size=2)
    made.doing("beginning")
    made._heard[1] = ("", time.monotonic() - 11)
    found = made.verdict(time.monotonic())
    assert found is not None
    assert found.startswith("process 1 of 2 has given no sign of life for 11 s, while this one was beginning")
    made.world.board.lines["1"] = GONE
    made._listen(time.monotonic())
    assert made.verdict(time.monotonic()) is None


@contextlib.contextmanager
def looked_at(made: Watch) -> Iterator[None]:
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    yield
    made._over.set()
    thread.join(5)
    assert not thread.is_alive()


def test_what_hangs_is_told_once_with_its_stacks_and_a_program_of_somebody_elses_goes_on(tmp_path: Path) -> None:
    told: list[str] = []
    made = Watch(World(CPU), tmp_path, told.append, 0.2)
    assert not ending.may_end()
    with looked_at(made):
        made.doing("reading images", 0.2)
        time.sleep(1.0)
    assert len(told) == 1
    assert told[0].startswith(
        "barlow: this run has been reading images for 0 s, which is taken to hang. What each thread"
    )
    text = (tmp_path / watchdog.FILE).read_text()
    assert text.index("MainThread") < text.index("test_what_hangs_is_told_once"), "the main thread comes first"


def test_a_command_that_hangs_between_two_steps_is_saved_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[tuple[int, str]] = []
    monkeypatch.setattr(ending, "end", lambda code, line, say: ended.append((code, line)))
    made = Watch(World(CPU), tmp_path, lambda line: None, 0.2, lambda: "Saved at step 7", lambda: "To go on: …")
    with ending.own_process(), looked_at(made):
        made.doing("waiting for the images of step 8", 0.2)
        time.sleep(0.6)
    assert [code for code, _ in ended] == [exits.OUR_FAULT]
    assert ended[0][1].endswith("hang.txt. Saved at step 7. To go on: …")
    ended.clear()
    made._over.clear()
    at_step(made, 0.001)  # the networks' buffers are being changed
    with ending.own_process(), looked_at(made):
        time.sleep(0.6)
    assert "Saved" not in ended[0][1]


def test_one_that_hears_of_anothers_end_by_a_hang_ends_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exchange that both were in may not tell it."""
    ended: list[tuple[int, str]] = []
    monkeypatch.setattr(ending, "end", lambda code, line, say: ended.append((code, line)))
    monkeypatch.setattr(ending, "SAYING_SECONDS", 0.1)
    board = Board()
    first, second = (Watch(World(CPU, rank, 2, board=board), tmp_path, print, 0.5) for rank in (0, 1))
    with ending.own_process():
        first._heard[1] = ("", time.monotonic())
        first._end("process 1 of 2 has given no sign of life for 4 s")
        assert board.lines["0"] == watchdog.HANGS
        with looked_at(second):
            second.doing("in step 2")
            time.sleep(1.0)
    assert [(code, bool(line)) for code, line in ended] == [(exits.OUR_FAULT, True), (exits.OUR_FAULT, False)]


def test_a_disk_or_a_terminal_that_hangs_does_not_hold_up_the_end() -> None:
    began = time.monotonic()
    assert not ending.in_time(0.1, lambda: time.sleep(60))
    assert time.monotonic() - began < 5
    assert ending.in_time(5.0, lambda: None)
    assert not ending.in_time(5.0, lambda: 1 / 0)


def test_a_process_that_was_stopped_itself_blames_nobody_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a scheduler suspends a whole job: all processes find that hours have passed."""
    told: list[str] = []
    made = Watch(World(CPU, size=2, board=Board()), tmp_path, told.append, 100.0)
    clock = [1000.0]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: clock[0])
    made.doing("waiting for the images of step 8", 100.0)

    class Ticks:
        def __init__(self, *jumps: float) -> None:
            self.jumps = list(jumps)

        def wait(self, seconds: float) -> bool:
            if not self.jumps:
                return True
            clock[0] += self.jumps.pop(0)
            return False

    made._over = Ticks(1.0, 5000.0, 1.0, 90.0 / 9)  # type: ignore[assignment]
    made.run()
    assert told == []
    made._over = Ticks(*[1.0] * 200)  # type: ignore[assignment]
    made.run()
    assert len(told) == 1, "and then it judges as before"


def test_a_process_that_was_stopped_while_it_gave_its_sign_of_life_blames_nobody(tmp_path: Path) -> None:
    """It is stopped at any place in its program: after it has seen that it is awake, too."""

    class Stopped(Board):
        """The other process is alive; this one is stopped for a second while it writes its line."""

        def set(self, key: str, text: str) -> None:
            if "0" not in self.lines:
                time.sleep(1.0)
            super().set(key, text)
            self.lines["1"] = json.dumps([time.monotonic(), "in step 3", 2, True])

    made, found = watch(tmp_path, limit=0.4, size=2), list[str]()
    made.world = World(CPU, size=2, board=Stopped())
    made.now = Doing("in step 3", None, 2, in_step=True)
    made._end = found.append  # type: ignore[method-assign]
    looking = threading.Thread(target=made.run, daemon=True)
    looking.start()
    time.sleep(1.6)
    made._over.set()
    looking.join(5)
    assert found == []


def test_the_limit_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.hang_seconds() == 300.0
    monkeypatch.setenv("BARLOW_HANG_SECONDS", "2.5")
    assert machine.hang_seconds() == 2.5
    for wrong in ("soon", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("BARLOW_HANG_SECONDS", wrong)
        with pytest.raises(ValueError, match=f"BARLOW_HANG_SECONDS is '{wrong}': give a number of seconds"):
            machine.hang_seconds()


def test_to_be_watched_costs_a_step_less_than_twenty_microseconds(tmp_path: Path) -> None:
    """A thousandth of a step of 20 ms; in processor seconds, so that other programs do not count. It takes about 2."""
    count = 20_000

    def seconds(batches: Iterator[int]) -> float:
        began = time.thread_time()
        for _ in batches:
            pass
        return time.thread_time() - began

    made = watch(tmp_path)
    plain = min(seconds(iter(range(count))) for _ in range(3))
    watched = min(seconds(made.steps(iter(range(count)), 0, 0.0, lambda batch: False)) for _ in range(3))
    assert (watched - plain) / count < 20e-6
