"""Child processes that do a piece of work at each question, loops that are held in between, functions with a clock."""

import sys
import textwrap
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import workers

BENCHMARKS = Path(workers.__file__).parent
HELD = """
    turns = Turns(Questions())
    print("not an answer")
    while True:
        turns()
"""


@pytest.fixture
def child(tmp_path: Path) -> Iterator[workers.Worker]:
    """A worker that runs a loop in which nothing happens, and is held at every step."""
    worker = started(tmp_path, HELD)
    yield worker
    worker.close()


def started(folder: Path, code: str) -> workers.Worker:
    program = folder / "child.py"
    program.write_text(f"import sys\nsys.path.append({str(BENCHMARKS)!r})\nfrom workers import Questions, Turns\n")
    program.write_text(program.read_text() + textwrap.dedent(code))
    return workers.Worker([str(program)])


def test_a_loop_makes_as_many_steps_as_it_is_asked_for_and_tells_what_each_took(tmp_path: Path) -> None:
    worker = started(
        tmp_path,
        """
        import time
        turns, made = Turns(Questions()), 0
        while True:
            turns()
            made += 1
            time.sleep(0.1)
            sys.stderr.write(f"{made} ")
            sys.stderr.flush()
        """,
    )
    two, one = worker.cost(steps=2), worker.cost(steps=1)
    assert 0.1 <= two.wall < two.wall + one.wall < 10
    assert two.processor is not None
    assert two.processor < 0.1
    worker._said.seek(0)
    assert worker._said.read() == "1 2 3 "
    worker.close()


def test_a_worker_that_is_not_asked_costs_nothing(child: workers.Worker) -> None:
    child.ask(steps=1)
    before = workers.Stopwatch()
    time.sleep(0.5)
    cost = before.cost()
    assert cost.processor is not None
    assert cost.processor < 0.05


def test_a_child_that_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    worker = started(tmp_path, "raise RuntimeError('no such recipe')")
    with pytest.raises(workers.WorkerFailed, match=r"ended with 1: (.|\n)*RuntimeError: no such recipe"):
        worker.ask(steps=1)
    worker.close()


def test_an_answer_that_never_comes_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE_SECONDS", 0.2)
    worker = started(tmp_path, "import time\ntime.sleep(60)")
    with pytest.raises(workers.WorkerFailed, match="ended with -9"):
        worker.ask(steps=1)
    worker.close()


def test_a_child_uses_the_package_of_its_tree(tmp_path: Path) -> None:
    (tmp_path / "src" / "barlow").mkdir(parents=True)
    (tmp_path / "src" / "barlow" / "__init__.py").write_text("NAME = 'the old one'")
    (tmp_path / "child.py").write_text("import barlow, sys\nprint(repr({'n': barlow.NAME}).replace(chr(39), chr(34)))")
    worker = workers.Worker([str(tmp_path / "child.py")], tree=tmp_path)
    assert worker.ask() == {"n": "the old one"}
    worker.close()


def test_a_function_with_a_clock_does_what_it_did_and_its_processor_seconds_add_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Speaker:
        def shout(self, word: str) -> str:
            until = time.process_time() + 0.05
            while time.process_time() < until:
                pass
            return word.upper()

    module = types.ModuleType("a_module")
    monkeypatch.setitem(sys.modules, "a_module", module)
    module.Speaker = Speaker  # type: ignore[attr-defined]
    seconds: dict[str, float] = {}
    workers.clocked("a_module:Speaker.shout", seconds)
    assert seconds == {"a_module:Speaker.shout": 0.0}
    assert [Speaker().shout("a"), Speaker().shout("b")] == ["A", "B"]
    assert 0.1 <= seconds["a_module:Speaker.shout"] < 0.3


@pytest.mark.skipif(sys.platform != "linux", reason="a thread's processor seconds are read as on Linux")
def test_what_another_thread_does_during_a_call_is_no_part_of_its_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            sum(range(1000))

    module = types.ModuleType("a_module")
    monkeypatch.setitem(sys.modules, "a_module", module)
    module.wait = lambda: time.sleep(0.3)  # type: ignore[attr-defined]
    seconds: dict[str, float] = {}
    workers.clocked("a_module:wait", seconds)
    other = threading.Thread(target=work)
    other.start()
    before = time.process_time()
    module.wait()
    spent = time.process_time() - before
    ended.set()
    other.join()
    assert seconds["a_module:wait"] < 0.05 < spent
