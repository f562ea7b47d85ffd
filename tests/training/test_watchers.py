"""What stands on the screen while a run trains."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from barlow import storage
from barlow.diagnostics.finding import About
from barlow.diagnostics.health import Health
from barlow.training.live import LiveLine, screen
from barlow.training.step_log import StepLog
from barlow.training.watchers import Checkpointer, MetricsLog
from barlow.types import Outputs


def moment(step: int, total: int, loss: float = 1013.4, wait: float = 0.0) -> Any:
    z = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    outcome = SimpleNamespace(
        outputs=Outputs([z, z], [(z, z)]), rate=0.1, gradient_norm=torch.tensor(1.0), without_gradient=()
    )
    return SimpleNamespace(
        step=step,
        total=total,
        images=8,
        outcome=outcome,
        batch=SimpleNamespace(epoch=0, replaced=[], rows=SimpleNamespace(views=[])),
        wait_seconds=wait,
        step_seconds=1.0,
        settle=lambda: None,
        terms=lambda: {"invariance": loss - 43.0, "redundancy": 43.0},
    )


@pytest.fixture
def metrics(tmp_path: Any) -> MetricsLog:
    log = StepLog(tmp_path / "metrics.jsonl", print)
    return MetricsLog(log, 50, lambda line: None, Health(About(200_000)), lambda rows, width, groups: (1074.13, 35.603))


def shown(metrics: MetricsLog | None, *moments: Any) -> list[str]:
    """The lines of a terminal of 80 columns."""
    screen = io.StringIO()
    line = LiveLine(Console(file=screen, force_terminal=True, width=80), metrics)
    line.REFRESH_SECONDS = 0.0
    for each in moments:
        if metrics is not None:
            metrics(each)
        line(each)
    return [part.rstrip() for part in screen.getvalue().split("\r") if part.strip()]


def test_a_line_says_the_word_and_the_loss_beside_what_is_expected_from_the_first_step_on(metrics: MetricsLog) -> None:
    first, second = shown(metrics, moment(1, 200_000), moment(2, 200_000))
    assert first == "step 1/200000 eta ? starting loss 1013 (unrelated 1074, floor 35.6) 8 img/s"
    assert second.endswith("8 img/s")
    assert "wait" not in second


def test_the_newest_score_of_labelled_images_stands_beside_the_word(metrics: MetricsLog) -> None:
    out, scores = io.StringIO(), iter([None, "knn.top1 42 %"])
    line = LiveLine(Console(file=out, force_terminal=True, width=80), metrics, lambda: next(scores))
    line.REFRESH_SECONDS = 0.0
    for step in (1, 2):
        metrics(moment(step, 9))
        line(moment(step, 9))
    one, other = (part.strip() for part in out.getvalue().split("\r") if part.strip())
    assert "knn" not in one
    assert "starting knn.top1 42 % loss" in other


def test_the_screen_is_no_terminal_where_only_colours_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not screen().is_terminal, "a line that is rewritten would run into what is printed after it"


def test_waiting_is_told_where_there_is_much_of_it() -> None:
    (line,) = shown(None, moment(1, 9, wait=0.4))
    assert line == "step 1/9 eta ? loss 1013 (invariance 970, redundancy 43) 8 img/s wait 40%"


def test_the_longest_line_still_has_its_eta_at_80_columns(metrics: MetricsLog) -> None:
    metrics.expected = lambda rows, width, groups: (12345.6, 1122.2)
    line = shown(metrics, moment(100_000, 200_000, 9999.9), moment(100_001, 200_000, 12345.0))[-1]
    assert len(line) <= 79
    assert "eta " in line


def test_checkpoints_that_cannot_be_written_are_told_once_and_again_after_one_that_could() -> None:
    tried: list[int] = []
    said: list[str] = []

    def save(step: int) -> None:
        tried.append(step)
        if step != 3:
            raise storage.StorageError("the disk is full")

    checkpointer = Checkpointer(save, None, 1, said.append)
    for step in (1, 2, 3, 4, 5):
        checkpointer(moment(step, 6))
    assert tried == [1, 2, 3, 4, 5]
    assert said == ["the disk is full. Training goes on, and the next checkpoint is tried when it is due"] * 2
    with pytest.raises(storage.StorageError):  # there is no next one
        checkpointer(moment(6, 6))


def taken_up(tmp_path: Any, *lines: dict[str, Any], since: int) -> tuple[MetricsLog, list[str]]:
    """A log that is gone on with from a step, and what is said then."""
    said: list[str] = []
    log = StepLog(tmp_path / "metrics.jsonl", said.append)
    for line in lines:
        log.append(line)
    log.since = since
    metrics = MetricsLog(log, 50, said.append, Health(About(200)))
    metrics.take_up(since)
    return metrics, said


def test_what_a_log_says_before_the_step_that_is_gone_on_from_counts_and_is_said_once(tmp_path: Any) -> None:
    alike = [{"step": step, "embeddings": {"std": 0.01, "effective_rank": 9.0}} for step in (50, 100, 150)]
    (tmp_path / "a").mkdir()
    metrics, said = taken_up(tmp_path / "a", *alike, since=100)
    assert (metrics.health.word, metrics.health.lines) == ("collapsed", 1), "the line of step 150 is forgotten"
    assert [line.partition(": all")[0] for line in said] == ["step 100: collapsed: head-only collapse"]
    (tmp_path / "b").mkdir()
    metrics, said = taken_up(tmp_path / "b", *alike, since=0)
    assert (metrics.health.word, said) == ("starting", [])


def test_a_log_of_another_form_is_no_reason_not_to_go_on(tmp_path: Any) -> None:
    metrics, said = taken_up(tmp_path, {"step": 90, "embeddings": {"std": 0.1}, "healthy": 3}, since=90)
    assert metrics.health.word == "starting"
    assert said == [f"{tmp_path}/metrics.jsonl cannot be read, so the run is judged by its lines from here on"]
