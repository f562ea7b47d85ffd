"""Long readings are counted: on a terminal in a line that is rewritten, elsewhere now and then."""

import io
from pathlib import Path

import pytest
import tiny
from rich.console import Console

from barlow.data.counting import NowAndThen, over
from barlow.data.folder import FolderSource
from barlow.data.inventory import scan
from barlow.data.labelled import read_labelled
from barlow.data.memory import hold
from barlow.nets.preprocessing import Preprocessing
from barlow.watchers import Counter


class Clock:
    """A clock that goes on by a second at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("barlow.watchers.time.monotonic", clock.monotonic)
    return clock


def test_listing_and_reading_are_counted_to_their_end(tmp_path: Path) -> None:
    tiny.images(tmp_path, 20, classes=2)
    calls: list[tuple[str, int, int | None]] = []

    def counted(what: str, done: int, total: int | None) -> None:
        calls.append((what, done, total))

    source = FolderSource([tmp_path], counted=counted)
    assert {what for what, _, _ in calls} == {"files listed"}
    assert max(done for _, done, _ in calls) >= 10
    scan(source, sample=5, counted=counted)
    hold(source, 16, counted=counted)
    read_labelled(str(tmp_path), "test", Preprocessing(16, 1.0, "bilinear", (0.5,) * 3, (0.2,) * 3, 3), 0.0, counted)
    for call in (
        ("headers read", 20, 20),
        ("images read", 5, 5),
        ("images read", 20, 20),
        ("--test images read", 20, 20),
    ):
        assert call in calls


def test_a_terminal_has_one_line_that_is_rewritten_and_then_cleared(clock: Clock) -> None:
    out = io.StringIO()
    counter = Counter(Console(file=out, force_terminal=True, width=40))
    for _ in over(range(50), "images read", 50, counter):
        pass
    written = out.getvalue()
    assert "\n" not in written
    assert "images read: 25 of 50" in written
    assert written.endswith("\r\x1b[K")


def test_elsewhere_a_line_is_printed_now_and_then(clock: Clock) -> None:
    out = io.StringIO()
    counter = Counter(Console(file=out, force_terminal=False))
    for _ in over(range(35), "images read", 35, counter):
        pass
    assert out.getvalue().splitlines() == ["images read: 10 of 35", "images read: 20 of 35", "images read: 30 of 35"]


def test_what_is_over_at_once_is_not_shown() -> None:
    out, said = io.StringIO(), []
    counter, now_and_then = Counter(Console(file=out, force_terminal=True)), NowAndThen(said.append)
    for done in range(1, 1_001):
        counter("images read", done, 1_000)
        now_and_then("images read", done, 1_000)
    assert out.getvalue() == ""
    assert said == []


def test_lines_are_said_every_so_many_seconds(clock: Clock) -> None:
    said: list[str] = []
    now_and_then = NowAndThen(said.append)
    for done in range(1, 1_026):
        now_and_then("files listed", done, None)
    assert said[0] == "files listed: 10"
    assert said[-1] == "files listed: 1,020"
    assert len(said) == 102
