"""The disk as a place of faults: each change of a folder is seen before it is made, and may be the last, or fail.

`watch` is for a process of its own, as it cannot be undone. The interpreter itself tells of every file that is opened
and of every name that is made, moved or removed (PEP 578), so that none is missed, whoever asks for it. Only what is
written into an open file it does not tell: so `open` gives out files here that do.
"""

import builtins
import errno
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

How = Literal["count", "die", "full", "stop"]

NEEDS_SPACE = ("open", "write", "mkdir", "fsync")
"""What a full disk refuses. Names are still moved and removed."""

_OF_NAMES = {"os.rename": 2, "os.mkdir": 2, "os.remove": 1, "os.rmdir": 1, "os.truncate": None, "os.link": 2}
"""Changes that the interpreter tells of, and which of their arguments is the folder that a name is relative to."""


def watch(home: Path, reached: Callable[[str, str], None], halved: Callable[[str, str], bool]) -> None:
    """From now on tells of every change that this process makes inside a folder.

    Args:
        home: the folder; it need not be there yet.
        reached: called with the operation and the path just before it happens. What it raises is what happens instead.
        halved: called before a write; whether half of it is to be written before `reached` is called.
    """
    inside = os.path.abspath(home)

    def place(name: Any, folder: Any = None) -> str | None:
        """The path of what is named, from the run's folder on; None if it is elsewhere."""
        try:
            if isinstance(name, int):
                name = os.readlink(f"/proc/self/fd/{name}")
            elif isinstance(folder, int) and folder >= 0:
                name = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(name))
        except OSError:
            return None
        path = os.path.abspath(os.fsdecode(name))
        if path != inside and not path.startswith(inside + os.sep):
            return None
        return re.sub(r"-[0-9a-f]{8}\b", "-*", os.path.relpath(path, inside))

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = given
            # An open file that is wrapped once more (an int) is not another one.
            changes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR) and not isinstance(path, int)
            if changes and (where := place(path)) is not None:
                reached("open", where)
        elif event in _OF_NAMES:
            of_folder = _OF_NAMES[event]
            where = place(given[0], None if of_folder is None else given[of_folder])
            if where is not None and not (event == "os.mkdir" and os.path.isdir(given[0])):
                reached(event.removeprefix("os."), where)

    def written(write: Callable[[Any], int], flush: Callable[[], None], data: Any, where: str) -> int:
        if halved("write", where):
            write(data[: len(data) // 2])
            flush()
        reached("write", where)
        return write(data)

    class Telling:
        """A file that tells of what is written to it."""

        def __init__(self, file: Any, where: str) -> None:
            self._file, self._where = file, where

        def __enter__(self) -> "Telling":
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def write(self, data: Any) -> int:
            return written(self._file.write, self._file.flush, data, self._where)

    opened, synced, put = builtins.open, os.fsync, os.pwrite

    def opening(path: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        file = opened(path, mode, *more, **options)
        where = place(path) if set(mode) & set("wax+") else None
        return file if where is None else Telling(file, where)

    def syncing(handle: int) -> None:
        if (where := place(handle)) is not None:
            reached("fsync", where)
        synced(handle)

    def putting(handle: int, data: bytes, offset: int) -> int:
        where = place(handle)
        if where is None:
            return put(handle, data, offset)
        return written(lambda part: put(handle, part, offset), lambda: None, data, where)

    builtins.open, os.fsync, os.pwrite = opening, syncing, putting  # type: ignore[assignment]
    sys.addaudithook(hook)


def inject(home: Path, how: How, at: int, lasting: int | None) -> list[tuple[str, str]]:
    """Lets this process meet a fault at one of its changes of a folder.

    Args:
        home: the folder.
        how: "count" counts the changes only. "die" kills the process just before one of them, or in the middle of it if
            it is a write. (Before a file is synced is not another point: the system keeps what a dead process has
            written, and a power cut is not modelled here.) "full" is a disk without space from there on. "stop" sends
            SIGTERM there.
        at: which of the changes that count, from 1.
        lasting: how many in a row meet a full disk; None: all.

    Returns:
        The changes so far, by operation and path; it grows.
    """
    done: list[tuple[str, str]] = []
    counted = 0

    def counts(operation: str) -> bool:
        return operation in NEEDS_SPACE if how == "full" else operation != "fsync"

    def meets(number: int) -> bool:
        if how == "full":
            return number >= at and (lasting is None or number < at + lasting)
        return how in ("die", "stop") and number == at

    def halved(operation: str, where: str) -> bool:
        return how != "stop" and meets(counted + 1)

    def reached(operation: str, where: str) -> None:
        nonlocal counted
        if not counts(operation):
            return
        counted += 1
        if how == "count":
            done.append((operation, where))
        elif meets(counted):
            if how == "stop":
                return os.kill(os.getpid(), signal.SIGTERM)
            if how == "die":
                die()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    watch(home, reached, halved)
    return done


def die() -> NoReturn:
    """Ends this process as `kill -9` does: nothing of it runs any more."""
    os.kill(os.getpid(), signal.SIGKILL)
    while True:
        time.sleep(1)
