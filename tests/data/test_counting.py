"""Long readings are counted: on a terminal in a line that is rewritten, elsewhere now and then."""

import io
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image
from rich.console import Console

from barlow import pretrain, pretraining
from barlow.data.counting import LOOKED_AT, NowAndThen, over
from barlow.data.folder import FolderSource
from barlow.data.inventory import scan
from barlow.data.labelled import read_labelled
from barlow.data.memory import hold
from barlow.data.sources import open_source
from barlow.nets.preprocessing import Preprocessing
from barlow.training.live import Counter


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
    monkeypatch.setattr("barlow.training.watchers.time.monotonic", clock.monotonic)
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


class Recorder:
    """In place of the line on a screen."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int | None]] = []

    def __call__(self, what: str, done: int, total: int | None) -> None:
        self.calls.append((what, done, total))

    def ended(self) -> dict[str, int]:
        """What was counted to its end, and how many these were."""
        return {what: done for what, done, total in self.calls if done == total}

    def of(self, what: str) -> list[tuple[int, int | None]]:
        return [(done, total) for counted, done, total in self.calls if counted == what]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(pretraining.Counter, "on_screen", classmethod(lambda cls: recorder))
    return recorder


def deep_images(folder: Path, count: int) -> Path:
    folder.mkdir()
    draws = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(draws.integers(0, 4_096, (20, 24)).astype(np.uint16)).save(folder / f"{number:02}.png")
    return folder


def test_a_flat_folder_is_counted_while_its_files_are_looked_at(tmp_path: Path) -> None:
    for number in range(1_000):
        (tmp_path / f"{number}.jpg").touch()
    recorder = Recorder()
    FolderSource([tmp_path], counted=recorder)
    met = [done for done, _ in recorder.of("files listed")]
    assert len(met) > 10
    assert met == sorted(met)
    assert recorder.calls[-1] == ("files listed", 1_000, 1_000), "what comes next lists nothing"


@pytest.mark.parametrize(
    ("name", "first"), [("list.csv", "path,label"), ("list.csv", "path,labels"), ("captions.txt", "image,caption")]
)
def test_files_that_a_list_names_are_counted(name: str, first: str, tmp_path: Path) -> None:
    tiny.images(tmp_path, 20)
    paths = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*.png"))]
    (tmp_path / name).write_text("\n".join([first, *(f"{path},cat" for path in paths)]), encoding="utf-8")
    recorder = Recorder()
    open_source(str(tmp_path / name), counted=recorder)
    assert recorder.ended() == {"files listed": 20}
    assert [done for done, _ in recorder.of("files listed")][:20] == [*range(1, 21)]


def test_every_reading_before_training_is_counted_to_its_end_and_folders_are_listed_once(
    screen: Recorder, tmp_path: Path
) -> None:
    photos = deep_images(tmp_path / "photos", 24)
    small = tiny.SMALL | {"train.steps": 1, "encoder.whiten": 0.1}
    for executor in ("in_memory", "streaming"):
        screen.calls.clear()
        changes = small | {"data.executor": executor, "data.workers": int(executor == "in_memory")}
        pretrain(photos, tmp_path / executor, overrides=changes, progress=True, tell=lambda line: None)
        read = {"images read": 24} | ({"headers read": 24} if executor == "streaming" else {})
        assert screen.ended() == {"files listed": 24, LOOKED_AT: 24, "images embedded": 24} | read
        assert screen.of("files listed").count((24, 24)) == 1, "a grey and deep set is opened anew, and not listed anew"
        # A look at a few, one for the range of values, and then either at what is held, or at means and deviations.
        assert screen.of(LOOKED_AT).count((24, 24)) == 3
    screen.calls.clear()
    pretrain(photos, tmp_path / "silent", overrides=small, progress=False)
    assert screen.calls == []


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
    assert out.getvalue().splitlines() == ["images read: 11 of 35", "images read: 21 of 35", "images read: 31 of 35"]


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
    assert said[0] == "files listed: 11"
    assert said[-1] == "files listed: 1,021"
    assert len(said) == 102


@pytest.mark.parametrize("how", ["on the screen", "said"])
def test_nothing_is_shown_of_a_count_that_has_only_begun(how: str, clock: Clock) -> None:
    out, said = io.StringIO(), []
    count = NowAndThen(said.append) if how == "said" else Counter(Console(file=out, force_terminal=False, width=60))
    for what in ("files listed", "images embedded", "images embedded"):
        clock.now += 100  # what came before took long
        count(what, 0, None)
        count(what, 1, 2_000)
    assert (out.getvalue(), said) == ("", [])
    clock.now += 100
    count("images embedded", 2, 2_000)
    assert "images embedded: 2 of 2,000" in out.getvalue() + "".join(said)
