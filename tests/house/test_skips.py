"""A library that is missing skips a test, or fails it where BARLOW_NOTHING_SKIPPED=1 says that none may be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest


def test_with_a_library():
    pytest.importorskip("no_such_library", reason="no_such_library is not installed (extra `export`)")


def test_elsewhere():
    pytest.skip("only on another system")
"""


@pytest.mark.nightly
@pytest.mark.parametrize(("asked", "counted"), [("0", "2 skipped"), ("1", "1 failed, 1 skipped")])
def test_what_is_not_installed_fails_only_where_that_is_asked_for(asked: str, counted: str, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((Path(__file__).parents[1] / "conftest.py").read_text())
    (tmp_path / "test_some.py").write_text(TESTS)
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)]
    environment = os.environ | {"BARLOW_NOTHING_SKIPPED": asked}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert f"{counted} in" in done.stdout
    assert ("BARLOW_NOTHING_SKIPPED=1 allows that of nothing" in done.stdout) == (asked == "1")
