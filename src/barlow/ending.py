"""The end of a process from beside its work: for when the main thread hangs and cannot end it.

A thread that is in a system call, in a kernel or in an exchange with other processes runs no Python, so no exception
and no signal handler reaches it. What is left is to end the whole process from another thread. That is done to a
process that is a command of ours and to no other: a program or a notebook that calls `barlow.pretrain` is its author's.
"""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator

from barlow.telling import Say, flush_or_give_up

SAYING_SECONDS = 2.0
"""How long a last line may take: the terminal may be what hangs."""

_depth = 0


@contextlib.contextmanager
def own_process() -> Iterator[None]:
    """Inside, this process is a command's own, and may be ended whole."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


def may_end() -> bool:
    """Whether this process may be ended whole."""
    return _depth > 0


def in_time(seconds: float, job: Callable[[], object]) -> bool:
    """Does a job that may itself hang, such as writing to the disk that everything hangs on.

    Returns:
        whether it was through, without an error, within so many seconds. What was not goes on beside the caller.
    """
    done = threading.Event()

    def work() -> None:
        with contextlib.suppress(Exception):
            job()
            done.set()
        through.set()

    through = threading.Event()
    threading.Thread(target=work, name="barlow last job", daemon=True).start()
    through.wait(seconds)
    return done.is_set()


def end(code: int, line: str, say: Say) -> None:
    """Says why, and ends the process with its children, whatever its main thread is doing. Where it may not be ended
    (`may_end`), only the line is said."""
    if line:
        in_time(SAYING_SECONDS, lambda: say(f"barlow: {line}"))
    if not may_end():
        return
    in_time(SAYING_SECONDS, _kill_children)
    in_time(SAYING_SECONDS, flush_or_give_up)
    os._exit(code)


def _kill_children() -> None:
    """Processes that read images: by themselves they would notice only some seconds later, and stopped ones never."""
    for child in multiprocessing.active_children():
        child.kill()
