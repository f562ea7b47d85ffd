"""How a command ends before it is through: asked by a signal, by what it cannot do, or for want of memory."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TypeVar

import torch

from barlow import exits
from barlow.distributed import World
from barlow.run import Run
from barlow.size import Size, words
from barlow.watchers import Moment

ONE_REQUEST_SECONDS = 0.5
"""Signals that come within this time of the first are the same request. Terminals, launchers and schedulers repeat it:
Ctrl-C reaches `torchrun` and each of its processes, and then `torchrun` passes it on."""

ASKS = tuple(
    number
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if (number := getattr(signal, name, None)) is not None
)
"""What asks to stop: Ctrl-C, `kill`, a terminal that was closed, and what schedulers send before a time limit. Slurm's
`--signal=USR1@60` is one of them."""


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
        self.times.append(time.monotonic())
        if self.times[-1] - self.times[0] > ONE_REQUEST_SECONDS:
            raise KeyboardInterrupt
        if not self.finishing and len(self.times) == 1:
            raise Asked


@contextlib.contextmanager
def listening() -> Iterator[Requests]:
    """Signals that ask to stop are listened to in the body. Those that are ignored on purpose (`nohup`) stay ignored.

    Outside of the main thread nothing can be listened to, and nothing ever asks.
    """
    requests, previous = Requests(), dict[int, Any]()
    for number in ASKS:
        if signal.getsignal(number) is signal.SIG_IGN:
            continue
        try:
            previous[number] = signal.signal(number, requests.on_signal)
        except ValueError:  # not the main thread
            break
    try:
        yield requests
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler)


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
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and "DefaultCPUAllocator" not in str(error) and "not enough memory" not in str(error):
            raise
        raise OutOfMemory(
            f"out of memory with batch {batch_size} of {words(image_size)}-pixel views and {encoder}; "
            "keep fewer images in memory at a time (--rows-in-memory, the loss stays that of the batch), lower "
            "--batch-size or --image-size, or take a smaller --encoder"
        ) from error
