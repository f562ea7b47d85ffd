"""What decoders say goes past the user's screen, and is shown if the process dies of what they do.

libtiff and others write their remarks on odd files straight to file descriptor 2. What is wrong with a file is reported
by us, once, so those remarks are kept from the screen. But a decoder may also end the whole process, and then its last
remark is all there is to go by. A second process keeps it: a bare interpreter that reads the remarks, forgets all but
the last of them, and prints these if the first process goes without a farewell, with the images that it was at.
"""

import contextlib
import mmap
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

_GREETING, _FAREWELL = b"\0images are read\0", b"\0all images are read\0"
_SLOTS, _SLOT = 64, 512
"""Threads whose images are remembered, and bytes of a path that are."""

_SECOND_PROCESS = f"""
import sys
greeted = sys.stdin.buffer.read({len(_GREETING)}) == {_GREETING!r}
tail = b""
while chunk := sys.stdin.buffer.read1(65536):
    tail = (tail + chunk)[-2000:]
if greeted and not tail.endswith({_FAREWELL!r}):
    lines = ["barlow: the process was killed, or died, while it read images"]
    if len(sys.argv) > 1:
        with open(int(sys.argv[1]), "rb") as file:
            slots = file.read()
        paths = [slots[k : k + {_SLOT}].rstrip(b"\\0") for k in range(0, len(slots), {_SLOT})]
        lines += ["it was at these: " + ", ".join(ascii(path)[2:-1] for path in paths if path)] * any(paths)
    lines += ["last words of the decoders: " + ascii(line)[2:-1] for line in tail.splitlines()[-3:] if line.strip()]
    sys.stderr.write("\\n".join(lines) + "\\n")
"""

_images: mmap.mmap | None = None


def decoding(path: bytes) -> None:
    """Notes the file that this thread is about to decode. It costs a microsecond."""
    if (images := _images) is not None:
        at = threading.get_ident() // 64 % _SLOTS * _SLOT
        images[at : at + _SLOT] = path[-_SLOT:].ljust(_SLOT, b"\0")


@contextlib.contextmanager
def kept_from_the_screen() -> Iterator[None]:
    """While this lasts, what libraries write to file descriptor 2 is not seen, and `sys.stderr` still is."""
    global _images
    with contextlib.ExitStack() as stack:
        if sys.stderr is not None:
            sys.stderr.flush()
        try:
            screen = os.dup(2)
        except OSError:  # closed, as by `2>&-`: the next file to be opened must not get this number, and the remarks
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != 2:
                os.dup2(nowhere, 2)
                os.close(nowhere)
            screen = os.dup(2)
        stack.callback(os.close, screen)
        before, images = _images, None
        if os.name == "posix":  # elsewhere a second process cannot be given an open file
            file = stack.enter_context(tempfile.TemporaryFile())
            file.truncate(_SLOTS * _SLOT)
            images = stack.enter_context(mmap.mmap(file.fileno(), _SLOTS * _SLOT))
        second = _second_process(screen, None if images is None else file.fileno())
        back = _Back(screen, second, sys.stderr, before)
        # What asks to stop raises an exception here at any line, once. If it comes while the first `finally` works, the
        # second does the rest: a process that was asked to stop must not be said to have died.
        try:
            try:
                _on_screen(screen, stack)
                if second is None or second.stdin is None:
                    sink = stack.enter_context(open(os.devnull, "wb"))
                    os.dup2(sink.fileno(), 2)
                else:
                    os.write(second.stdin.fileno(), _GREETING)
                    os.dup2(second.stdin.fileno(), 2)
                _images = images
                yield
            finally:
                back.bring()
        finally:
            back.bring()


@dataclass
class _Back:
    """What was there before remarks were kept from the screen."""

    screen: int
    second: "subprocess.Popen[bytes] | None"
    stderr: TextIO | None
    images: mmap.mmap | None

    def bring(self) -> None:
        """Brings it back. To do so again, or after half of it, does no harm."""
        global _images
        _images = self.images
        sys.stderr = self.stderr
        os.dup2(self.screen, 2)
        if self.second is not None and self.second.stdin is not None:
            if not self.second.stdin.closed:
                with contextlib.suppress(BrokenPipeError):
                    os.write(self.second.stdin.fileno(), _FAREWELL)
                self.second.stdin.close()
            self.second.wait()


def _second_process(screen: int, file: int | None) -> "subprocess.Popen[bytes] | None":
    """One that waits for this one's end; None where no process can be started."""
    words = [sys.executable, "-I", "-S", "-c", _SECOND_PROCESS] + ([] if file is None else [str(file)])
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=screen,
            pass_fds=() if file is None else (file,),
            start_new_session=True,  # Ctrl-C is for the first process
        )
    except OSError:
        return None


def _on_screen(screen: int, stack: contextlib.ExitStack) -> None:
    """Makes `sys.stderr` write to the screen, if it wrote to descriptor 2."""
    try:
        if sys.stderr.fileno() != 2:
            return
    except (OSError, ValueError, AttributeError):  # a test's or a notebook's
        return
    writer = open(screen, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = stack.enter_context(writer)
