"""What all tests share: one thread per process (two processes test on two cores), and where real images may lie.

With BARLOW_NOTHING_SKIPPED=1 a test that is skipped because something "is not installed" fails: a nightly job that has
installed everything would otherwise be green though it tried nothing.
"""

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import forks
import pytest
import torch

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
"""The processes that tests start have one, too: a run in one may be compared with a run here, to the last digit."""

SHARED_DATA = Path(os.environ.get("BARLOW_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What is missing is a failure, where nothing may be."""
    report = yield
    why: Any = report.longrepr
    if report.skipped and os.environ.get("BARLOW_NOTHING_SKIPPED") == "1" and "not installed" in str(why):
        report.outcome = "failed"
        report.longrepr = f"skipped, and BARLOW_NOTHING_SKIPPED=1 allows that of nothing: {why}"
    return report


@pytest.fixture(autouse=True)
def the_same_whatever_ran_before() -> None:
    """A network that a test makes without a seed has the same weights alone, in the whole suite and on any worker."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    """A test that fails while a command of its own runs does not leave it running: some would train for hours."""
    yield
    forks.end_all()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real image sets (tar files) beside the checkout; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real images at {SHARED_DATA} (set BARLOW_TEST_DATA to the folder that holds them)")
    return SHARED_DATA


@pytest.fixture(params=["opencv", "torch alone"])
def with_and_without_opencv(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test twice: once as where OpenCV is installed (skipped where it is not), once as where it is not."""
    if request.param == "opencv":
        pytest.importorskip("cv2", reason="OpenCV is not installed (extra `opencv`)")
    else:
        monkeypatch.setattr("barlow.views.ops._opencv.opencv", lambda: None)
