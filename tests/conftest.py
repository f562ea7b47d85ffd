"""What all tests share: one thread per process (two processes test on two cores), and where real images may lie."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

SHARED_DATA = Path(os.environ.get("BARLOW_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


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
