"""Child processes that live as long as a row and do one short piece of work whenever they are asked.

What starts slowly (torch, a command, its images) is started once, and no start is measured. Two of them, an old tree
and a new one or ours and a reference, live at the same time and are asked in turn. The one that is not asked waits for
its pipe to be written to, which costs nothing.

Questions and answers are lines of JSON, on the child's standard input and output.
"""

import contextlib
import functools
import importlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clock import Cost, Stopwatch

PATIENCE_SECONDS = 600.0
"""How long an answer may take, the start of the child included."""
TAIL = 2000
"""Characters of what a child said on standard error that are told when it fails."""


class WorkerFailed(RuntimeError):
    """A child ended, or could not do what it was asked for; with what it said."""


class Worker:
    """The parent's side: starts the child at once and waits for nothing.

    Args:
        words: the command, in words.
        tree: a checkout whose package the child is to use; None: the one that is installed.
        environment: variables beside those of this process.
    """

    def __init__(
        self, words: Sequence[str], tree: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        variables = dict(os.environ) | dict(environment or {})
        if tree is not None:
            before = [variables["PYTHONPATH"]] if variables.get("PYTHONPATH") else []
            variables["PYTHONPATH"] = os.pathsep.join([str(tree / "src"), *before])
        self._said = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._child = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=variables,
        )

    def ask(self, **question: Any) -> dict[str, Any]:
        """Puts a question and waits for the answer.

        Raises:
            WorkerFailed: the child ended, answered with an error, or took too long.
        """
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(question).encode() + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError as error:
            raise WorkerFailed(self._end()) from error
        line = self._line()
        if not line:
            raise WorkerFailed(self._end())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer

    def cost(self, **question: Any) -> Cost:
        """The cost of the piece of work that was asked for."""
        answer = self.ask(**question)
        return Cost(answer["wall"], answer["processor"])

    def close(self) -> None:
        """Lets the child end, by closing its input; kills it if it does not."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.close()
        try:
            self._child.wait(20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()
        self._said.close()

    def _line(self) -> bytes:
        """One line of the child's output; empty when there is none to come. (The pipe never holds more than one.)"""
        assert self._child.stdout is not None
        until, text = time.monotonic() + PATIENCE_SECONDS, b""
        with selectors.DefaultSelector() as ready:
            ready.register(self._child.stdout, selectors.EVENT_READ)
            while not text.endswith(b"\n"):
                if not ready.select(until - time.monotonic()):
                    self._child.kill()
                    return b""
                part = os.read(self._child.stdout.fileno(), 2**16)
                if not part:
                    return b""
                text += part
        return text

    def _end(self) -> str:
        self._child.wait()
        self._said.seek(0)
        text = self._said.read().strip()
        return f"{' '.join(map(str, self._child.args))} ended with {self._child.returncode}: {text[-TAIL:]}"  # type: ignore[arg-type]


class Questions:
    """The child's side. It takes over standard input and output, so that nothing else can write into the answers."""

    def __init__(self) -> None:
        self._in = os.fdopen(os.dup(0), "rb")
        self._out = os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while (question := self.next()) is not None:
            yield question

    def next(self) -> dict[str, Any] | None:
        """Waits for the next question; None when the parent has no more."""
        line = self._in.readline()
        return json.loads(line) if line else None

    def answer(self, **content: Any) -> None:
        self._out.write(json.dumps(content).encode() + b"\n")
        self._out.flush()


class Turns:
    """Lets a loop of this process run some of its steps, and holds it in between.

    The loop calls this once a step, at whatever point of it, and a question `{"steps": k}` is answered with what each
    of k steps took, from that point to the same point. That is the real loop, with everything that happens between two
    calls. The first call waits for the first question.

    Args:
        questions: from the parent.
        parts: what is told beside the whole: processor seconds by name, as `clocked` adds them up.
    """

    def __init__(self, questions: Questions, parts: dict[str, float] | None = None) -> None:
        self._questions, self._parts = questions, parts if parts is not None else {}
        self._asked = self._left = 0
        self._watch: Stopwatch | None = None

    def __call__(self, *_: object) -> None:
        if self._watch is not None:
            self._left -= 1
            if self._left:
                return
            cost = self._watch.cost() / self._asked
            parts = {name: seconds / self._asked for name, seconds in self._parts.items()}
            self._questions.answer(wall=cost.wall, processor=cost.processor, parts=parts)
        question = self._questions.next()
        if question is None:
            raise SystemExit(0)
        self._asked = self._left = int(question["steps"])
        for name in self._parts:
            self._parts[name] = 0.0
        self._watch = Stopwatch()


def clocked(place: str, seconds: dict[str, float]) -> None:
    """Adds up the processor seconds of every call of a function, from now on, under the function's own place.

    What Python's other threads do meanwhile (they make the next views, for example) is no part of it, if they were
    there before the call and are there after it. So a function that leaves its work to such threads looks cheap: name
    what they call. What torch's own threads do is a part: a call that is spread over all cores costs what it costs on
    each of them.

    Args:
        place: "module:name", where the caller looks the function up. Example: `barlow.training.live:LiveLine.__call__`,
            or for a function that `training/learner.py` has of its own, `barlow.training.learner:guard`.
        seconds: where the sum is kept.
    """
    module, _, path = place.partition(":")
    *outer, name = path.split(".")
    home: Any = functools.reduce(getattr, outer, importlib.import_module(module))
    function: Callable[..., Any] = getattr(home, name)
    seconds[place] = 0.0

    @functools.wraps(function)
    def with_a_clock(*arguments: Any, **named: Any) -> Any:
        others, before = _of_other_threads(), time.process_time()
        try:
            return function(*arguments, **named)
        finally:
            spent, now = time.process_time() - before, _of_other_threads()
            meanwhile = sum(now[thread] - others[thread] for thread in now.keys() & others.keys())
            seconds[place] += max(0.0, spent - meanwhile)

    setattr(home, name, with_a_clock)


def _of_other_threads() -> dict[int, float]:
    """The processor seconds so far of each of Python's threads but this one."""
    seconds = {}
    for thread in threading.enumerate():
        foreign = isinstance(thread, threading._DummyThread)  # not begun by Python, which does not know of its end
        if thread.ident is not None and thread is not threading.current_thread() and not foreign:
            with contextlib.suppress(OSError):  # it has just ended
                seconds[thread.ident] = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return seconds
