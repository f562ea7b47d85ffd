"""Commands that a test starts, signals and times: in a fork of the test, where one process is enough, or anew."""

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from barlow import cli

DEADLINE = 120.0
"""Seconds in which what is waited for must come: enough for a machine that is busy with something else."""


class Command:
    """`barlow WORDS`, which can be waited for and signalled. What it prints is in a file.

    Args:
        words: of the command line.
        log: the file.
        prepare: what is done in the process before the command begins, such as replacing a function by one that hangs.
            Only where one process is enough: it is a fork of the test, and so needs not import everything anew.
        environment: more of it.
    """

    def __init__(
        self,
        words: list[str],
        log: Path,
        prepare: Callable[[], None] | None = None,
        **environment: str,
    ) -> None:
        self.log, self._code = log, None
        self._process: subprocess.Popen[bytes] | None = None
        log.write_bytes(b"")
        if "--devices" in words:
            with open(log, "wb") as file:
                command = [sys.executable, "-m", "barlow.cli", *words]
                surroundings = os.environ | {"OMP_NUM_THREADS": "1"} | environment
                self._process = subprocess.Popen(command, stdout=file, stderr=file, env=surroundings)
            self.pid = self._process.pid
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on, of a fork beside threads
            self.pid = os.fork()
        if self.pid == 0:
            self._become(words, prepare, environment)

    def _become(self, words: list[str], prepare: Callable[[], None] | None, environment: dict[str, str]) -> None:
        code = 99
        try:
            os.setsid()
            os.environ.update(environment)
            file = os.open(self.log, os.O_WRONLY | os.O_APPEND)
            os.dup2(file, 1)
            os.dup2(file, 2)
            sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
            for number in (signal.SIGINT, signal.SIGALRM):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, 0)  # the test's own
            if prepare is not None:
                prepare()
            code = cli.main(words)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self.log.read_text()

    def poll(self) -> int | None:
        """Its exit code, if it has ended; -9 for one that was killed by signal 9."""
        if self._process is not None:
            return self._process.poll()
        if self._code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if ended else None
        return self._code

    def until(self, ready: Callable[[], object]) -> None:
        """Waits for something to happen while it runs."""
        deadline = time.monotonic() + DEADLINE
        while not ready():
            assert self.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.01)

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        deadline = time.monotonic() + DEADLINE
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"it has not ended; it said:\n{self.said}")
            time.sleep(0.01)
        return code

    def signalled(self, number: int) -> tuple[int, float]:
        """Its exit code after a signal, and the seconds until then."""
        os.kill(self.pid, number)
        began = time.monotonic()
        return self.ended(), time.monotonic() - began

    def kill(self) -> None:
        """Ends it whatever it is doing, and what `--devices` has started with it."""
        for pid in (*children(self.pid), self.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def children(launcher: int) -> list[int]:
    """The processes that `--devices` has started, in the order of their rank."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            environment = dict(
                part.split("=", 1) for part in (entry / "environ").read_text().split("\0") if "=" in part
            )
        except (OSError, ValueError, IndexError):
            continue
        if parent == launcher and "RANK" in environment:
            found[int(environment["RANK"])] = int(entry.name)
    return [found[rank] for rank in sorted(found)]
