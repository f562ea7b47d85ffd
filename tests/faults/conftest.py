"""Images that most tests of faults begin with; nobody changes them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from warm import Warm, warmed


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data") / "photos", 40)


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data") / "labelled", 24, classes=3)


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Where commands of barlow begin at once, each in a process of its own."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs Linux: faults are injected into processes that are forked and found in /proc")
    with warmed(tmp_path_factory.mktemp("warm")) as process:
        yield process
