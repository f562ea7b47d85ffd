"""A script without a main guard, where worker processes import it again: one line that shows the guard, and no run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from nightly_cases import nightly_but

SCRIPT = """
import multiprocessing, pathlib
import barlow

small = {small!r}

def train():
    barlow.pretrain("photos", "run", recipe="small_vicreg", overrides=small, progress=False)

{guard}
    multiprocessing.set_start_method({method!r}, force=True)
    train()
    pathlib.Path("finished").touch()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    tiny.images(tmp_path / "photos", 20)
    return tmp_path / "script.py"


def run(script: Path, method: str, guard: str, executor: str = "streaming") -> subprocess.CompletedProcess[str]:
    small = tiny.SMALL | {"train.steps": 2, "data.executor": executor, "data.workers": 1}
    script.write_text(SCRIPT.format(small=small, guard=guard, method=method), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(script)],
        cwd=script.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


@pytest.mark.parametrize("method", nightly_but(["spawn", "forkserver"], "spawn".__eq__))
def test_without_a_guard_nothing_is_written_and_one_line_shows_it(method: str, script: Path) -> None:
    done = run(script, method, "if True:")
    assert done.returncode != 0
    *_, last = done.stderr.splitlines()
    assert last.startswith("barlow.main_guard.Unguarded: ")
    assert "script.py, line 12: the processes that read images import this script again" in last
    assert f"(start method {method})" in last
    assert "`if __name__ == '__main__':`" in last
    assert last.endswith(", or give data.executor in_memory")
    assert not (script.parent / "run").exists(), "not even a folder"
    assert not (script.parent / "finished").exists()


def test_the_guard_is_asked_for_before_anything_is_listed_and_where_the_executor_is_not_chosen_yet(
    script: Path,
) -> None:
    (script.parent / "photos").rename(script.parent / "elsewhere")
    done = run(script, "spawn", "if True:", "auto")
    assert done.stderr.splitlines()[-1].startswith("barlow.main_guard.Unguarded: "), done.stderr[-2000:]
    assert not (script.parent / "run").exists()


@pytest.mark.parametrize(
    ("guard", "executor"),
    nightly_but(
        [('if __name__ == "__main__":', "streaming"), ("if True:", "in_memory")], lambda case: case[1] == "streaming"
    ),
)
def test_with_a_guard_or_without_processes_it_trains(guard: str, executor: str, script: Path) -> None:
    done = run(script, "spawn", guard, executor)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (script.parent / "finished").exists()


def test_a_worker_that_has_come_to_train_stops_with_one_line_before_anything_is_touched(script: Path) -> None:
    """What the parent cannot see, as in a script that it cannot read, its worker does."""
    program = (
        "import multiprocessing, barlow\n"
        "multiprocessing.current_process()._inheriting = True\n"
        "barlow.pretrain('photos', 'run', steps=1)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=script.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("barlow: a process that reads images has run the whole script again: put what it does under")
    assert not (script.parent / "run").exists()
