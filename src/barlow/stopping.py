"""How a command ends before it is through: asked by a signal, by what it cannot do, or for want of memory."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TypeVar

from barlow import checkpoints, ending, exits
from barlow.distributed import World
from barlow.exits import ASKS, Diverged
from barlow.planning.plan import Plan
from barlow.printable import printable
from barlow.runs.run import Run
from barlow.size import Size, words
from barlow.telling import Say, silent
from barlow.training.learner import NonFinite
from barlow.training.watchers import Moment
from barlow.watchdog import Watch

ONE_REQUEST_SECONDS = 0.5
"""Signals that come within this time of the first are the same request. Terminals, launchers and schedulers repeat it:
Ctrl-C reaches `torchrun` and each of its processes, and then `torchrun` passes it on."""

ANSWER_SECONDS = 8.0
"""How long a request may go unanswered. Then the main thread is stuck, or what it does is too long to be waited for,
and the process is ended from beside it (`barlow.ending`)."""

LONGEST_SECONDS = 25.0
"""The same where it is known that waiting is worth it: while a checkpoint is written, or where steps are long. Slurm
and Kubernetes kill after 30 s unless they are told otherwise."""


class Interrupted(RuntimeError):
    """A command was asked to stop; what it had done is saved, and the message says how to go on."""

    exit_code = exits.STOPPED


class Asked(KeyboardInterrupt):
    """A signal asked to stop while there was nothing to be finished first. It is turned into `Interrupted` where it is
    known what is saved. (No `Exception`, so that no handler of errors on the way takes it for one.)"""


class OutOfMemory(RuntimeError):
    """The machine has too little memory for the batch; the message says what to lower."""

    exit_code = exits.MEMORY


T = TypeVar("T")


@dataclass
class Requests:
    """What signals have asked for. A second request, a while after the first, ends the command at once."""

    times: list[float] = field(default_factory=list)
    finishing: bool = False
    """Whether something is under way that is finished first: a step of training."""
    worth_waiting: Callable[[], bool] = lambda: False
    """Whether what is under way is known to end, and to take longer than `ANSWER_SECONDS`."""
    given_up: Callable[[], str] = lambda: "what was under way is lost; the same command goes on from before it"
    """What ending the process from beside the main thread costs, and how to go on."""
    number: int = 0
    """Of the newest signal."""
    repeated: int = 0
    """How often we have sent it once more ourselves: see `dropped`."""
    arrived: int = 0
    """How many of these have arrived."""

    @property
    def asked(self) -> bool:
        """Whether it was asked to stop."""
        return bool(self.times)

    @contextlib.contextmanager
    def finished_first(self) -> Iterator[None]:
        """What runs inside is not interrupted by a first request."""
        self.finishing = True
        try:
            yield
        finally:
            self.finishing = False

    def between(self, items: Iterable[T]) -> Iterator[T]:
        """The items; while one is waited for nothing is under way, and a request ends the waiting."""
        iterator = iter(items)
        while True:
            self.finishing = False
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.finishing = True
            yield item

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The handler of every signal that asks to stop."""
        if self.arrived < self.repeated:
            self.arrived += 1
            if not self.finishing:
                raise Asked
            return
        self.number = number
        self.times.append(time.monotonic())
        if self.times[-1] - self.times[0] > ONE_REQUEST_SECONDS:
            raise KeyboardInterrupt
        if not self.finishing and len(self.times) == 1:
            raise Asked

    def dropped(self) -> None:
        """`Asked` was raised where Python drops what is raised: the signal is sent once more, a moment later."""
        self.repeated += 1
        threading.Timer(0.05, os.kill, (os.getpid(), self.number)).start()


@contextlib.contextmanager
def listening(say: Say = silent) -> Iterator[Requests]:
    """Signals that ask to stop are listened to in the body. Those that are ignored on purpose (`nohup`) stay ignored.

    The main thread answers them. Where it does not within `ANSWER_SECONDS`, a thread beside it says so and ends the
    process with `exits.STOPPED`, if it is a command's own.

    Outside of the main thread nothing can be listened to, and nothing ever asks.

    Args:
        say: receives the line when the process is ended so.
    """
    requests, previous = Requests(), dict[int, Any]()
    try:
        with contextlib.ExitStack() as held:
            if _in_main_thread():
                held.enter_context(_Deadline(requests, say))
                held.enter_context(_raised_until_heard(requests))
            for number in ASKS if _in_main_thread() else ():
                if signal.getsignal(number) is not signal.SIG_IGN:
                    previous[number] = signal.signal(number, requests.on_signal)
            yield requests
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler)


@contextlib.contextmanager
def _raised_until_heard(requests: Requests) -> Iterator[None]:
    """Sees to it that a request that came at a bad moment is not lost.

    A handler runs wherever the main thread is, which may be a finalizer (`__del__`) or a callback of the garbage
    collector. What is raised there goes to `sys.unraisablehook` and no further, so it has to be raised again later.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, Asked):
            requests.dropped()
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class _Deadline:
    """A thread that learns of requests without the main thread's help, and gives it so long to answer.

    Python runs a handler only when the main thread is back in Python, which it may never be. But the moment a signal
    arrives, its number is written where `signal.set_wakeup_fd` says, and another thread can read it there.
    """

    def __init__(self, requests: Requests, say: Say) -> None:
        self._requests, self._say = requests, say
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        self._before = -1
        self._thread = threading.Thread(target=self._wait, name="barlow deadline", daemon=True)

    def __enter__(self) -> None:
        global _woken
        self._before = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        _woken = True
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        global _woken
        signal.set_wakeup_fd(self._before)
        _woken = False
        self._writing.send(b"\0")  # no signal has this number
        self._thread.join()
        self._reading.close()
        self._writing.close()

    def _wait(self) -> None:
        first: float | None = None
        again: float | None = None
        forgiven = 0
        while True:
            self._reading.settimeout(None if first is None else 0.1)
            try:
                heard = self._reading.recv(64)
            except TimeoutError:
                heard = b""
            now = time.monotonic()
            if 0 in heard:
                return
            asking = sum(number in ASKS for number in heard)
            ours = min(asking, self._requests.repeated - forgiven)
            forgiven += ours
            if asking > ours:
                first = now if first is None else first
                again = now if again is None and now - first > ONE_REQUEST_SECONDS else again
            if again is not None and now - again > 1.0:
                line = "stopped at once, and nothing more was saved; a checkpoint from before is kept, if there was one"
                ending.end(exits.AT_ONCE, line, self._say)
                return
            if first is not None and now - first > self._patience():
                ending.end(exits.STOPPED, f"asked to stop {now - first:.0f} s ago: {self._given_up()}", self._say)
                return

    def _given_up(self) -> str:
        """What is said of it, in time: it asks the disk for the newest checkpoint, and the disk may be what hangs."""
        told: list[str] = []
        ending.in_time(ending.SAYING_SECONDS, lambda: told.append(self._requests.given_up()))
        return told[0] if told else "given up; the same command goes on from the newest checkpoint"

    def _patience(self) -> float:
        return LONGEST_SECONDS if self._requests.worth_waiting() else ANSWER_SECONDS


_woken = False
"""Whether signals are written to a `_Deadline`."""


def _deaf_in_a_fork() -> None:
    """A process that reads images has the main process's socket: what asks that process to stop is not for this one."""
    if _woken:
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_deaf_in_a_fork)


@dataclass
class StopIfAsked:
    """The watcher that ends training after the step at whose end any of the processes has been asked."""

    requests: Requests
    world: World
    save: Callable[[int], None]
    run: Run
    step: int
    """Updates done."""
    total: int

    def __call__(self, moment: Moment) -> None:
        self.step = moment.step
        if self.world.any(self.requests.asked) and moment.step < moment.total:
            moment.settle()
            self.stop()

    def judged_by(self, watch: Watch, settle: Callable[[], None]) -> None:
        """Tells those who look at the run from beside it what they may keep, and what they are to say.

        Args:
            watch: ends a run that hangs. Between two steps it may save first, which `settle` must allow.
            settle: raises what is wrong with the steps so far.
        """

        def saved() -> str:
            settle()
            self.save(self.step)
            return f"Saved at step {self.step}"

        def go_on() -> str:
            newest = max(checkpoints.folders(self.run.path))
            return f"To go on from step {newest}: barlow pretrain --resume --out {self.run.path}"

        watch.save, watch.go_on = saved if self.world.main else None, go_on
        self.requests.worth_waiting = lambda: watch.saving or watch.usual > ANSWER_SECONDS / 2
        self.requests.given_up = lambda: f"given up while {watch.now.what}. {go_on()}"

    def stop(self, why: str = "") -> None:
        """Saves, and ends training.

        Args:
            why: what is said first, if it was not asked for.

        Raises:
            Interrupted: always.
        """
        if self.world.main:
            self.save(self.step)
        raise Interrupted(
            f"{why}stopped at step {self.step} of {self.total}, saved. "
            f"To go on: barlow pretrain --resume --out {self.run.path}"
        )


@contextlib.contextmanager
def memory_explained(batch_size: int, image_size: Size, encoder: str) -> Iterator[None]:
    """Turns each way of running out of memory into one line that says what to lower.

    Raises:
        OutOfMemory: on a GPU, in Python, or in torch's allocator on a CPU.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not exits.out_of_memory(error):
            raise
        raise OutOfMemory(
            f"out of memory with batch {batch_size} of {words(image_size)}-pixel views and {encoder}; "
            "keep fewer images in memory at a time (--rows-in-memory, the loss stays that of the batch), lower "
            "--batch-size or --image-size, or take a smaller --encoder"
        ) from error


@contextlib.contextmanager
def explained(plan: Plan, run: Run, locate: Callable[[int], str]) -> Iterator[None]:
    """What ends training in the middle, with what to do about it.

    Args:
        plan: of the run.
        run: its folder.
        locate: where a person finds an image, from its id.
    """
    try:
        with memory_explained(plan.batch_size, plan.image_size, plan.recipe.encoder.name):
            yield
    except Diverged as error:
        rate = plan.recipe.optim.rate_per_256(plan.batch_size)
        newest = max(checkpoints.folders(run.path))
        named = [printable(locate(image)) for image in getattr(error, "images", ())]
        which = f" ({', '.join(named[:3])}{', …' if len(named) > 3 else ''})" if named else ""
        raise NonFinite(
            f"{error}{which}. The checkpoint of step {newest} is good. To go on from its encoder at a third of the "
            f"rate: barlow pretrain -c {run.path / 'recipe.yaml'} --init {run.path} --optim.lr_per_256 {rate / 3:.2g} "
            "--out ANOTHER_FOLDER"
        ) from error
