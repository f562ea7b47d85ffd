"""OpenCV is looked for once, whatever the number of threads that ask at the same time."""

import contextlib
import importlib.util
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from barlow.views.ops import _opencv


@pytest.fixture
def forgotten() -> Iterator[None]:
    """As if nobody had asked yet."""
    _opencv.opencv.cache_clear()
    yield
    _opencv.opencv.cache_clear()


def most_at_once(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many of eight threads look for cv2 at the same time: one of them would find half a module."""
    inside: list[int] = []
    counts: list[int] = []
    started = threading.Barrier(8)

    def find_spec(name: str) -> None:
        inside.append(1)
        counts.append(len(inside))
        time.sleep(0.02)
        inside.pop()

    def ask() -> None:
        started.wait()
        _opencv.opencv()

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    with ThreadPoolExecutor(8) as pool:
        for asked in [pool.submit(ask) for _ in range(8)]:
            asked.result()
    return max(counts)


def test_threads_look_for_opencv_one_after_the_other(forgotten: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert most_at_once(monkeypatch) == 1


def test_without_the_lock_they_would_look_at_once(forgotten: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_opencv, "_LOADING", contextlib.nullcontext())
    assert most_at_once(monkeypatch) > 1
