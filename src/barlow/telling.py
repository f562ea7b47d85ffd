"""What is said to whoever runs a command. Saying it may fail, and then only the line is lost.

The reader of a pipe may go away (`barlow pretrain … | head`), the disk that a log is redirected to may be full, a
terminal may be closed. None of that is a reason to end a training.
"""

import contextlib
import os
import sys
from collections.abc import Callable

Say = Callable[[str], None]
"""Takes one line."""


def silent(line: str) -> None:
    """Says nothing."""


def unfailing(say: Say | None) -> Say:
    """The same, but a line that cannot be said is dropped; silence, if there is nobody to say it to."""
    if say is None:
        return silent

    def said_or_dropped(line: str) -> None:
        with contextlib.suppress(Exception):
            say(line)

    return said_or_dropped


def once(say: Say) -> Say:
    """The same, but a line that was said already is not said again."""
    before: set[str] = set()

    def said_once(line: str) -> None:
        if line not in before:
            before.add(line)
            say(line)

    return said_once


def open_closed_streams() -> None:
    """Gives a process its three standard streams where it was started without (`2>&-`): they then lead nowhere.

    Otherwise the next file that is opened gets the free number 2, and the warnings of a library are written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:  # one below it was free as well
                os.dup2(nowhere, number)
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115


def flush_or_give_up() -> None:
    """Flushes what was printed. What cannot be goes nowhere, as Python would end with 120 if it failed at that."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
