"""How a command ends, as a number that a script or a scheduler reads (docs/reliability.md has the table), and the
signals that ask it to.

The numbers are those of BSD's `sysexits.h` where it has one. An exception that ends a command says its number itself,
in `exit_code`. One that says nothing is judged by its type in `code_of`.
"""

import signal
import sys

OK = 0
USAGE = 2
"""What was asked for cannot be done: a flag, a recipe's key, a name that does not exist."""
DATA = 65
"""The images, or a file of a run, cannot be used: too few, too many unreadable, damaged, changed."""
NO_INPUT = 66
"""What was named does not exist: a folder of images, a run."""
DIVERGED = 69
"""A loss, a gradient or a weight is not a finite number any more, or a run collapsed that was to end then."""
OUR_FAULT = 70
"""Something that barlow did not foresee, or a process that ended on its own. `--debug` shows where."""
MEMORY = 71
"""The machine has too little memory."""
CANNOT_CREATE = 73
"""The output folder cannot be made or used: no permission, not empty, in use, too little space."""
IO = 74
"""Reading or writing failed while the command was at work: a full disk, a failing one."""
STOPPED = 75
"""Stopped on request, and everything saved: the same command goes on. Schedulers read it as "run me again"."""
AT_ONCE = 130
"""Ctrl-C a second time: stopped at once, without saving."""

ASKS = tuple(
    number
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if (number := getattr(signal, name, None)) is not None
)
"""What asks to stop: Ctrl-C, `kill`, a terminal that was closed, and what schedulers send before a time limit. Slurm's
`--signal=USR1@60` is one of them."""


class NoInput(ValueError):
    """What was named does not exist."""

    exit_code = NO_INPUT


class UnusableData(ValueError):
    """The images, or a file of a run, cannot be used."""

    exit_code = DATA


class Diverged(RuntimeError):
    """A loss, a gradient or a weight is not a finite number any more."""

    exit_code = DIVERGED


class Collapsed(RuntimeError):
    """All images have nearly the same embedding, and the run was to end where that lasts."""

    exit_code = DIVERGED


_NO_MEMORY = ("DefaultCPUAllocator", "not enough memory", "out of memory")
"""What torch's own errors say where memory ran out, of which only one has a type of its own."""


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, that of torch's allocator on a CPU, or a device's."""
    torch = sys.modules.get("torch")  # where it is not imported yet, no error is its own
    own = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, own) or (isinstance(error, RuntimeError) and any(w in str(error) for w in _NO_MEMORY))


def code_of(error: BaseException) -> int:
    """The number that a command ends with because of an error."""
    own = getattr(error, "exit_code", None)
    if own is not None:
        return int(own)
    if out_of_memory(error):
        return MEMORY
    if isinstance(error, OSError):
        return IO
    return USAGE if isinstance(error, ValueError) else OUR_FAULT
