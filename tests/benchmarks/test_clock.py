"""Wall and processor seconds: of this process, its threads, and its children."""

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import clock

BURNED = 0.3
BURN = f"""
import time
while time.process_time() < {BURNED}:
    pass
"""
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of running children")


def burn() -> None:
    until = time.thread_time() + BURNED
    while time.thread_time() < until:
        pass


def test_work_costs_processor_seconds_and_waiting_does_not() -> None:
    worked, waited = clock.counted(burn)(), clock.counted(lambda: time.sleep(BURNED))()
    assert worked.processor is not None
    assert waited.processor is not None
    assert BURNED <= worked.processor < BURNED + 0.1
    assert waited.processor < 0.1 < BURNED <= waited.wall


def test_threads_are_counted() -> None:
    def digest() -> None:
        hashlib.pbkdf2_hmac("sha256", b"word", b"salt", 200_000)  # without the lock of the interpreter

    def both() -> None:
        other = threading.Thread(target=digest)
        other.start()
        digest()
        other.join()

    one, two = clock.counted(digest)().processor, clock.counted(both)().processor
    assert one is not None
    assert two is not None
    assert 1.5 < two / one < 2.8


def test_a_child_that_was_waited_for_is_counted() -> None:
    cost = clock.counted(lambda: subprocess.run([sys.executable, "-c", BURN], check=True))()
    assert cost.processor is not None
    assert cost.processor >= BURNED - 0.02


@pytest.fixture
def running() -> Iterator[subprocess.Popen[str]]:
    """A child that has burned its seconds and lives on, with a child of its own that did the same."""
    grandchild = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r} + {WAIT!r}])"
    code = f"import subprocess, sys\nother = subprocess.Popen([sys.executable, '-c', {grandchild!r}])\n{BURN}{WAIT}"
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        yield child
        child.stdin.close()  # all of them read it, and end


WAIT = "print('burned', flush=True)\nimport sys\nsys.stdin.read()\n"


@LINUX
def test_running_children_and_theirs_are_counted(running: subprocess.Popen[str]) -> None:
    before = clock.Stopwatch()
    for _ in range(2):
        assert running.stdout.readline() == "burned\n"
    told = clock.of_process(running.pid)
    assert told >= 2 * BURNED
    assert told < 2 * BURNED + 1
    cost = before.cost()
    assert cost.processor is not None
    assert cost.processor < told + 0.1


@LINUX
def test_others_on_the_machine_are_seen_and_we_and_our_children_are_not_others() -> None:
    neighbours = clock.Neighbours()
    subprocess.run([sys.executable, "-c", BURN], check=True)
    burn()
    share = neighbours.share()
    assert share is not None
    assert 0 <= share <= 1.05


def test_costs_are_added_and_divided_and_a_gpu_has_no_processor_seconds() -> None:
    assert (clock.Cost(1, 2) + clock.Cost(3, 4)) / 2 == clock.Cost(2, 3)
    assert (clock.Cost(1, None) + clock.Cost(3, 4)) / 2 == clock.Cost(2, None)
