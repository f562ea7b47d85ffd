"""Processes that read ahead. One that dies or hangs is replaced, and what it owed is read again: the same pixels, as
nothing that is drawn depends on who draws it."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from torch.utils.data import DataLoader

from barlow.printable import one_line, printable

LIMIT_SECONDS = 300.0
"""How long a batch may be waited for. Then the processes that read it hang: a disk that does not answer, say."""

LOOK_SECONDS = 2.0
"""How often it is looked whether they are still there: DataLoader does so only when its timeout is over."""

MOST_FAILURES = 3
"""After so many, something is wrong that new processes will not mend: too little memory, a file that crashes them."""

MOMENT_SECONDS = 0.2
LATE = "DataLoader timed out after"
"""How torch begins to say that a batch has not come yet."""

NO_ROOM = "unable to allocate shared memory"
"""What torch says in a process that cannot hand on its batch."""

Item = TypeVar("Item")


class WorkersLost(RuntimeError):
    """The processes that read images died or hung again and again, or cannot hand on what they read."""


def served(loader: Callable[[int], "DataLoader[Any]"], count: int, tell: Callable[[str], None]) -> Iterator[Any]:
    """The batches of a loader in order, whatever happens to its processes.

    Args:
        loader: one of what is left after so many batches, with `timeout=LOOK_SECONDS` where it has processes.
        count: of all batches.
        tell: receives a line when processes are replaced.

    Raises:
        WorkersLost: they had to be replaced for the third time, or have no room to hand on their batches.
    """
    done = failures = 0
    while done < count:
        loaded = _begun(loader(done))
        try:
            while done < count:
                batch = _waited_for(loaded)
                done += 1
                yield batch
        except Exception as error:
            if NO_ROOM in str(error):
                raise WorkersLost(
                    "processes that read images found no room in shared memory (/dev/shm): use fewer --data.workers, "
                    "or 0; a container gets more by --shm-size"
                ) from error
            if not (_is_about_workers(error) or _is_of_a_dead_one(error, loaded)):
                shorten(error)
                raise
            failures += 1
            what = "did not answer" if "timed out" in str(error) else "died"
            if failures == MOST_FAILURES:
                needs = "shared memory (/dev/shm)" if "shared memory" in str(error) else "memory"
                raise WorkersLost(
                    f"processes that read images {what}, {failures} times in one run: is there enough {needs} for all "
                    "--data.workers? Fewer, or 0, need less"
                ) from error
            tell(f"processes that read images {what} and were replaced ({one_line(error)})")
        finally:
            _ended(loaded)


def _waited_for(loaded: Iterator[Any]) -> Any:
    """The next batch, however often DataLoader says that it is late, as long as `LIMIT_SECONDS` are not over."""
    began = time.monotonic()
    while True:
        try:
            return next(loaded)
        except RuntimeError as error:  # of which the iterator knows nothing: it goes on waiting when it is asked again
            if not str(error).startswith(LATE) or time.monotonic() - began > LIMIT_SECONDS:
                raise


def _begun(loader: "DataLoader[Any]") -> Iterator[Any]:
    """The loader's iterator, with its processes, and without the handler of dead children that comes with it.

    That handler raises at any place in the program, in the middle of an update, too. The iterator itself also notices a
    dead process, while its batches are waited for.
    """
    before = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    loaded = iter(loader)
    if before is not None:
        with contextlib.suppress(ValueError):  # not the main thread, where torch set none
            signal.signal(signal.SIGCHLD, before)
    return loaded


def shorten(error: Exception) -> None:
    """Leaves of an error what a user needs: what is wrong, and with which image. `--debug` shows all of it.

    An error that was raised in a process that reads comes here with that process's whole traceback as its text. Its
    type stays what it was, and so does the command's exit code. What was done at the time is in its notes: there it is
    taken from where the error was raised in this process.
    """
    text, notes = str(error), list(getattr(error, "__notes__", []))
    if text.strip("\"'").startswith("Caught ") and "Original Traceback" in text:
        last = _behind_the_traceback(text)
        error.add_note(f"In the process that reads images:\n{text}")
    else:
        last = [text, *notes]
    if isinstance(error, OSError) and error.strerror is not None:  # its text is made of its number and this
        error.strerror = "; ".join((str(error.strerror), *map(printable, last[1:])))
    elif len(last) > 1 or last[0] != text:
        head = last[0].removeprefix(f"{type(error).__name__}: ")
        error.args = (_Verbatim("; ".join((printable(head), *map(printable, last[1:])))),)


class _Verbatim(str):
    """A text that is itself where Python shows a text's representation: of a KeyError it does."""

    def __repr__(self) -> str:
        return str(self)


def _behind_the_traceback(text: str) -> list[str]:
    """The last lines of a formatted traceback: the error, and what was noted about it."""
    lines = [line for line in text.splitlines() if line.strip()]
    behind = next(i for i in range(len(lines), 0, -1) if lines[i - 1].startswith((" ", "\t")))
    return lines[behind:] or lines[-1:]


def _is_about_workers(error: Exception) -> bool:
    """Whether it is torch's own word on a process that is gone or late, and not an error inside of one."""
    return isinstance(error, RuntimeError) and str(error).startswith(("DataLoader worker (pid", LATE))


def _is_of_a_dead_one(error: Exception, loaded: Iterator[Any]) -> bool:
    """Whether a batch could not be fetched from the process that had announced it, because that is gone.

    The error is then whatever a broken connection fails with. One that was raised inside of a process begins with
    "Caught" (torch's `ExceptionWrapper`).
    """
    if not isinstance(error, ConnectionError | FileNotFoundError | EOFError) or str(error).startswith("Caught "):
        return False
    processes = getattr(loaded, "_workers", [])
    for process in processes:
        process.join(MOMENT_SECONDS)  # its connections are closed a moment before it counts as dead
    return any(not process.is_alive() for process in processes)


def _ended(loaded: Iterator[Any]) -> None:
    """Ends processes that would not end when they are asked: a stopped one never hears it."""
    for process in getattr(loaded, "_workers", []):
        if process.is_alive():
            process.kill()
