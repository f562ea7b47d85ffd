"""Commands that a test starts, signals and times."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from forks import Fork, processes_are_forks

from barlow import cli

DEADLINE = 120.0
"""Seconds in which what is waited for must come: enough for a machine that is busy with something else."""


class Command:
    """`barlow WORDS`, which can be waited for and signalled. What it prints is in a file.

    It is a fork of the test, and so are the processes of `--devices`.

    Args:
        words: of the command line.
        log: the file.
        prepare: what is done in the process before the command begins, such as replacing a function by one that hangs.
        environment: more of it.
    """

    def __init__(
        self,
        words: list[str],
        log: Path,
        prepare: Callable[[], None] | None = None,
        **environment: str,
    ) -> None:
        self.log = log
        log.write_bytes(b"")

        def command() -> int:
            processes_are_forks()
            if prepare is not None:
                prepare()
            return cli.main(words)

        self._process = Fork(command, environment=environment, output=log)
        self.pid = self._process.pid

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self.log.read_text()

    def poll(self) -> int | None:
        """Its exit code, if it has ended; -9 for one that was killed by signal 9."""
        return self._process.poll()

    def until(self, ready: Callable[[], object]) -> None:
        """Waits for something to happen while it runs."""
        deadline = time.monotonic() + DEADLINE
        while not ready():
            assert self.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.01)

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        try:
            return self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it has not ended; it said:\n{self.said}") from None

    def signalled(self, number: int) -> tuple[int, float]:
        """Its exit code after a signal, and the seconds until then."""
        os.kill(self.pid, number)
        began = time.monotonic()
        return self.ended(), time.monotonic() - began
