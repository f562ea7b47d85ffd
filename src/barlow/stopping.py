"""How training ends before its last step: because it was asked to, or because memory ran out."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch

from barlow.distributed import World
from barlow.run import Run
from barlow.size import Size, words
from barlow.watchers import Moment, Watcher

ONE_REQUEST_SECONDS = 0.5
"""Signals that come within this time of the first are the same request. Terminals, launchers and schedulers repeat it:
Ctrl-C reaches `torchrun` and each of its processes, and then `torchrun` passes it on."""


class Interrupted(RuntimeError):
    """Training was asked to stop; the state is saved and the message says how to go on."""


class OutOfMemory(RuntimeError):
    """The machine has too little memory for the batch; the message says what to lower."""


@contextlib.contextmanager
def stoppable(run: Run, save: Callable[[int], None], world: World) -> Iterator[Watcher]:
    """Ctrl-C and SIGTERM end training after the current step, saved. A second one, a while later, ends it at once.

    Of several processes, all stop after the same step: the one at whose end any of them has been asked.

    Yields:
        The watcher that stops.
    """
    asked: list[float] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        asked.append(time.monotonic())
        if asked[-1] - asked[0] > ONE_REQUEST_SECONDS:
            raise KeyboardInterrupt

    def stop_if_asked(moment: Moment) -> None:
        if world.any(bool(asked)) and moment.step < moment.total:
            moment.settle()
            if world.main:
                save(moment.step)
            raise Interrupted(
                f"stopped at step {moment.step} of {moment.total}, saved. "
                f"To go on: barlow pretrain --resume --out {run.path}"
            )

    previous: dict[int, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            previous[number] = signal.signal(number, on_signal)
        except ValueError:  # not the main thread: there are no signals to catch
            break
    try:
        yield stop_if_asked
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler)


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
