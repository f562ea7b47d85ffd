"""Processes that read ahead. One that dies or hangs is replaced, and what it owed is read again: the same pixels, as
nothing that is drawn depends on who draws it."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from torch.utils.data import DataLoader

from barlow.printable import one_line

LIMIT_SECONDS = 300.0
"""How long a batch may be waited for. Then the processes that read it hang: a disk that does not answer, say."""

MOST_FAILURES = 3
"""After so many, something is wrong that new processes will not mend: too little memory, a file that crashes them."""

MOMENT_SECONDS = 0.2

Item = TypeVar("Item")


class WorkersLost(RuntimeError):
    """The processes that read images died or hung again and again."""


def served(loader: Callable[[int], "DataLoader[Any]"], count: int, tell: Callable[[str], None]) -> Iterator[Any]:
    """The batches of a loader in order, whatever happens to its processes.

    Args:
        loader: one of what is left after so many batches, with `timeout=LIMIT_SECONDS` where it has processes.
        count: of all batches.
        tell: receives a line when processes are replaced.

    Raises:
        WorkersLost: they had to be replaced for the third time.
    """
    done = failures = 0
    while done < count:
        loaded = _begun(loader(done))
        try:
            for batch in loaded:
                done += 1
                yield batch
            return
        except (RuntimeError, OSError, EOFError) as error:
            if not (_is_about_workers(error) or _is_of_a_dead_one(error, loaded)):
                raise
            failures += 1
            what = "did not answer" if "timed out" in str(error) else "died"
            if failures == MOST_FAILURES:
                raise WorkersLost(
                    f"processes that read images {what}, {failures} times in one run: is there enough memory for all "
                    "--data.workers? Fewer, or 0, need less"
                ) from error
            tell(f"processes that read images {what} and were replaced ({one_line(error)})")
        finally:
            _ended(loaded)


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


def _is_about_workers(error: Exception) -> bool:
    """Whether it is torch's own word on a process that is gone or late, and not an error inside of one."""
    return str(error).startswith(("DataLoader worker (pid", "DataLoader timed out after"))


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
