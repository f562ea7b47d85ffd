"""Shared memory (/dev/shm) of a container is often 64 MB: fewer processes read then, and it is said."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from barlow import exits
from barlow.planning import choices, facts
from barlow.planning.facts import Machine
from barlow.pretraining import pretrain
from barlow.runs.run import Run

BATCH = 16 * 3 * 16 * 16 * 2
"""Bytes of a batch of the smallest runs: rows, channels, height, width, views."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data") / "photos", 48)


def machine(shared: int | None) -> Machine:
    return Machine(torch.device("cpu"), 1, 8, 1, half=False, shared=shared)


@pytest.mark.parametrize(
    ("shared", "fitting"),
    [(None, 8), (18 * BATCH, 8), (18 * BATCH - 1, 7), (6 * BATCH, 2), (4 * BATCH, 1), (4 * BATCH - 1, 0), (0, 0)],
)
def test_each_process_takes_two_batches_and_the_run_two_more(shared: int | None, fitting: int) -> None:
    assert choices.workers_that_fit(8, BATCH, machine(shared)) == fitting
    assert choices.workers_that_fit(0, BATCH, machine(shared)) == 0


def streamed(photos: Path, out: Path, said: list[str], workers: int) -> Run:
    overrides: dict[str, Any] = {"data.executor": "streaming", "data.workers": workers, "train.steps": 3}
    return Run(pretrain(photos, out, overrides=tiny.SMALL | overrides, progress=False, tell=said.append).run_folder)


def test_fewer_processes_read_and_nothing_else_changes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(facts, "free_shared_memory", lambda: 4 * BATCH)
    fewer = streamed(photos, tmp_path / "fewer", said, 2)
    told = [line for line in said if line.startswith("workers ")]
    assert told == [
        "workers  1 in place of 2: /dev/shm has 0 MB free for this process, and each takes 0.0492 MB of it; "
        "a container gets more by --shm-size"
    ]
    assert any("streamed by 1 workers" in line for line in said)
    assert "workers: 2" in (fewer.path / "recipe.yaml").read_text(), "where there is more, more are used again"
    monkeypatch.setattr(facts, "free_shared_memory", lambda: 2**40)
    said.clear()
    enough = streamed(photos, tmp_path / "enough", said, 2)
    assert not [line for line in said if line.startswith("workers ")]
    assert tiny.weights(fewer.path) == tiny.weights(enough.path)


def in_small_shared_memory(kilobytes: int, words: list[str], log: Path) -> int:
    """Runs a command where /dev/shm has so many kilobytes; skips the test where one may not mount that."""
    mount = f"mount -t tmpfs -o size={kilobytes}k tmpfs /dev/shm"
    tried = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"may not mount a small /dev/shm here: {tried.stderr.decode().strip()}")
    with open(log, "wb") as file:
        command = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, *words]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(command, stdout=file, stderr=file, env=environment, check=False, timeout=120).returncode


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small /dev/shm")
@pytest.mark.parametrize("looked", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_a_run_in_a_really_small_shared_memory(looked: bool, photos: Path, tmp_path: Path) -> None:
    """Where one looks beforehand it goes well; where one does not, one line says what was wrong."""
    blind = "" if looked else "facts.free_shared_memory = lambda: None"
    program = textwrap.dedent(f"""
        import sys
        from barlow import cli
        from barlow.planning import facts
        {blind}
        sys.exit(cli.main(sys.argv[1:]))
    """)
    sizes = {"data__image_size": 64, "train__batch_size": 32}  # 786 kB a batch
    steps = 5 if looked else 20
    given = tiny.words(data__executor="streaming", data__workers=4, train__steps=steps, **sizes)
    words = ["-c", program, "pretrain", str(photos), "--out", str(tmp_path / "run"), *given]
    code = in_small_shared_memory(4000, words, tmp_path / "log")
    said = (tmp_path / "log").read_text()
    assert "Traceback" not in said
    if looked:
        assert code == exits.OK, said
        assert "workers  1 in place of 4: /dev/shm has 4 MB free" in said
    else:
        assert code == exits.STOPPED, said
        assert "barlow: processes that read images found no room in shared memory (/dev/shm): use fewer" in said
        assert "of 20, saved. To go on" in said
