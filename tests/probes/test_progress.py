"""What is said of work while it lasts."""

import threading
import time

import pytest

from barlow.probes import progress


def test_work_that_counts_nothing_is_told_now_and_then_and_no_more_when_it_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "SECONDS_MEANWHILE", 0.02)
    said, twice = list[str](), threading.Event()

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 2:
            twice.set()

    with progress.told_meanwhile(say, "svm on pixels_32, 300 images of 3,072 features"):
        assert twice.wait(30)
    count = len(said)
    assert set(said) == {"svm on pixels_32, 300 images of 3,072 features: 0:00:00 so far"}
    time.sleep(0.1)
    assert len(said) <= count + 1, "one may have been on its way"


def test_nothing_is_said_of_short_work_and_an_error_passes() -> None:
    said = list[str]()
    with pytest.raises(ValueError, match="wrong"), progress.told_meanwhile(said.append, "knn"):
        raise ValueError("wrong")
    assert said == []
    assert "barlow told meanwhile" not in {thread.name for thread in threading.enumerate()}
