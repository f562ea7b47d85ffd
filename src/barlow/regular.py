"""Files of a run are opened as regular files only, as a run may be a stranger's.

A pipe could be waited for without end, and a device read without end. A file that is changed in place must be the run's
alone: through a link, or under a second name, another's file would be changed.
"""

import errno
import os
import stat
from pathlib import Path

_AT_ONCE = getattr(os, "O_NONBLOCK", 0)
"""Without it, opening a pipe waits for whoever is at its other end."""

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class NotRegular(OSError):
    """Something is there, and it is no file of a run."""


def odd(path: Path) -> str | None:
    """What a path is that is neither a regular file nor a folder, in a few words; None if it is one, or nothing."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(mode):
        return "a link"
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "a pipe or a device"


def names_of(path: Path) -> int:
    """How many names a regular file has (hard links); 1 if there is none."""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return 1
    return there.st_nlink if stat.S_ISREG(there.st_mode) else 1


def to_read(name: str, flags: int) -> int:
    """An `opener` for `open`, which refuses what is no regular file."""
    return _checked(os.open(name, flags | _AT_ONCE), name)


def in_place(name: str, flags: int) -> int:
    """An `opener` for `open`, for a file that is changed where it is: neither a link, nor one with a second name."""
    handle = _checked(os.open(name, flags | os.O_CREAT | _NO_LINK | _AT_ONCE, 0o666), name)
    if os.fstat(handle).st_nlink > 1:
        os.close(handle)
        raise NotRegular(errno.EMLINK, "it has a second name elsewhere (a hard link); put a copy in its place", name)
    return handle


def _checked(handle: int, name: str) -> int:
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise NotRegular(errno.EINVAL, "it is not a file", name)


def content(path: Path) -> bytes:
    """All of a regular file."""
    with open(path, "rb", opener=to_read) as file:
        return file.read()
