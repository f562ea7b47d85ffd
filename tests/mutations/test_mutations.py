"""Do the tests notice? The package is copied, a fault of `faults.py` written into the copy, and the tests run on it.

A fault counts as caught if each of the tests named beside it fails by a comparison of its own; an import that fails, an
error in a fixture or another exception does not. Without a fault, all of them pass in the copy.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from mutations.fault import Fault
from mutations.faults import FAULTS
from nightly_log import record

import barlow

PACKAGE = Path(barlow.__file__).parent
TESTS = Path(__file__).parents[1]
PATIENCE = 280
"""Seconds for the tests of one fault."""


def copied(to: Path) -> Path:
    """The package and its tests, side by side: also the processes that tests start look among the tests first."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(TESTS, to / "tests", ignore=ignore)
    shutil.copytree(PACKAGE, to / "tests" / "barlow", ignore=ignore)
    shutil.copy(TESTS.parent / "pyproject.toml", to)
    return to


def with_fault(fault: Fault, text: str) -> str:
    count = text.count(fault.right)
    assert count == 1, f"stale fault: its text occurs {count} times in {fault.file}; say what the code says now"
    return text.replace(fault.right, fault.wrong)


def run(copy: Path, selections: Sequence[str], patience: float = PATIENCE) -> tuple[int, dict[str, str], str]:
    """Runs tests of the copy, on the copy: pytest's exit code, how each test ended, and what was printed."""
    environment = {
        key: value for key, value in os.environ.items() if key not in ("BARLOW_NIGHTLY_LOG", "PYTEST_ADDOPTS")
    }
    environment |= {"PYTHONPATH": str(copy / "tests"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"}
    options = ["-p", "pytest_timeout", "-p", "mutations.outcomes", "-p", "no:cacheprovider", "-q", "--tb=short"]
    child = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *(f"tests/{selection}" for selection in selections)],
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = child.communicate(timeout=patience)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)  # with the processes it has started
    found = copy / "outcomes.json"
    ended = json.loads(found.read_text(encoding="utf-8")) if found.exists() else {}
    return child.returncode, {node.removeprefix("tests/"): how for node, how in ended.items()}, printed


def selected(node: str, selection: str) -> bool:
    return node == selection or node.startswith((f"{selection}[", f"{selection}::"))


def marked(fault: Fault) -> object:
    return pytest.param(fault, id=fault.name, marks=() if fault.fast else pytest.mark.nightly)


@pytest.mark.parametrize("fault", [marked(fault) for fault in FAULTS])
def test_the_fault_makes_a_test_fail(fault: Fault, tmp_path: Path) -> None:
    copy = copied(tmp_path)
    path = copy / "tests" / "barlow" / fault.file
    path.write_text(with_fault(fault, path.read_text(encoding="utf-8")), encoding="utf-8")
    code, ended, printed = run(copy, fault.caught_by)
    crashed = {node: how for node, how in ended.items() if how.startswith("crashed")}
    failed = [node for node, how in ended.items() if how == "failed"]
    assert code != 0, f"SURVIVED: no test of {', '.join(fault.caught_by)} notices"
    assert (code, crashed) == (1, {}), printed
    for selection in fault.caught_by:
        assert any(selected(node, selection) for node in failed), f"{selection} does not notice\n{printed}"
    record(kind="mutation", name=fault.name, caught=True, by=failed)


@pytest.mark.timeout(1300)
@pytest.mark.parametrize("which", ["fast", pytest.param("all", marks=pytest.mark.nightly)])
def test_without_a_fault_the_same_tests_pass(which: str, tmp_path: Path) -> None:
    chosen = {selection for fault in FAULTS if fault.fast or which == "all" for selection in fault.caught_by}
    # Of the fast ones, those that start no processes.
    selections = sorted(s for s in chosen if which == "all" or not s.startswith("equivalence"))
    code, ended, printed = run(copied(tmp_path), selections, patience=1200)
    assert code == 0, printed
    assert set(ended.values()) == {"passed"}
    assert all(any(selected(node, selection) for node in ended) for selection in selections)
    record(kind="mutation", name="no fault", caught=False, by=[], tests=len(ended))


def test_every_fault_fits_the_code_and_names_tests_that_exist() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        text = (PACKAGE / fault.file).read_text(encoding="utf-8")
        assert with_fault(fault, text) != text
        for selection in fault.caught_by:
            file, _, test = selection.partition("::")
            assert f"def {test.partition('[')[0]}(" in (TESTS / file).read_text(encoding="utf-8"), selection


@pytest.mark.parametrize(("text", "count"), [("", 0), ("right, right", 2)])
def test_a_stale_fault_is_a_failure_that_says_so(text: str, count: int) -> None:
    with pytest.raises(AssertionError, match=f"stale fault: its text occurs {count} times in linalg.py"):
        with_fault(Fault("stale", "linalg.py", "right", "wrong", caught_by=()), text)
