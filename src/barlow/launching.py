"""`--devices N`: the same command in several processes on this machine, which are watched and ended together.

torch's own launcher does this for `torchrun`. It is not used here, because it does not pass on all signals that ask to
stop, wakes no process that was stopped (SIGSTOP), heeds none that was ignored on purpose (`nohup`), and signals the
processes that read images, too.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType

from barlow import exits
from barlow.distributed import meeting_place_for
from barlow.exits import ASKS

LAST_SECONDS = 27.0
"""How long processes may take that were asked to stop. They end themselves before that (`barlow.stopping`), unless not
even a second thread of theirs can run."""

TOGETHER_SECONDS = 10.0
"""When one process ends because it was asked to stop, the others do so after the same step, and are not told again."""

LOOK_SECONDS = 0.05
"""How often the processes are looked at."""


class Stopped(RuntimeError):
    """The processes of a launch were asked to stop, and did."""

    exit_code = exits.STOPPED

    def __init__(self, message: str, *, told: bool) -> None:
        super().__init__(message)
        self.told = told
        """Whether the processes have said so themselves."""


RESUME = "--resume goes on from the newest checkpoint"


def launch(processes: int, words: Sequence[str], cores: int, go_on: str = RESUME) -> int:
    """Runs `python -m barlow.cli WORDS` in several processes, which share the cores.

    What asks this process to stop is passed on to them, and they end within `LAST_SECONDS`.

    Args:
        processes, words, cores: how many, of which command, on how many cores.
        go_on: what messages say of how to go on.

    Returns:
        0, or the exit code of the first process that failed; the others are then ended.

    Raises:
        Stopped: they were asked to stop, and nothing else went wrong.
        RuntimeError: a process was killed.
    """
    store, meeting = meeting_place_for(processes)
    environment = {"OMP_NUM_THREADS": str(max(1, cores // processes)), **os.environ, **meeting}
    command = [sys.executable, "-m", "barlow.cli", *words]
    with _passing_on(go_on) as launched:
        try:
            for rank in range(processes):
                own = environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                # A session of its own: Ctrl-C reaches a process through this one, once.
                launched.children.append(subprocess.Popen(command, env=own, start_new_session=True))
            launched.wait()
        finally:
            launched.kill()
    del store  # it was for the processes
    return launched.verdict()


@contextlib.contextmanager
def _passing_on(go_on: str) -> "Iterator[_Launched]":
    """Signals that ask to stop are noted in the body. Those that are ignored on purpose stay so, here and there."""
    launched = _Launched(go_on)
    previous = {}
    for number in ASKS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, launched.on_signal)
    try:
        yield launched
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@dataclass
class _Launched:
    """The processes of a launch, by their ranks, and what has happened to them."""

    go_on: str
    """What messages say of how to go on."""
    children: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    unheard: list[int] = field(default_factory=list)
    """Signals that have not been passed on yet."""
    asked: set[int] = field(default_factory=set)
    """Signals that were passed on."""
    first: int | None = None
    """Rank of the process that failed first."""
    killed: list[int] = field(default_factory=list)
    """Ranks of those that did not end."""

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The handler of every signal that asks to stop."""
        self.unheard.append(number)

    def wait(self) -> None:
        """Until all processes have ended, of themselves or because they were asked to and had their time."""
        ending: float | None = None
        failed: float | None = None
        woken = 0.0
        while any(child.poll() is None for child in self.children):
            now = time.monotonic()
            if self.unheard:
                ending = ending or now
                while self.unheard:
                    self.asked.add(number := self.unheard.pop(0))
                    self._signal(number)
            if failed is None:
                self.first = self._failed()
                failed = None if self.first is None else now
            if failed is not None and ending is None:
                together = self.children[self.first or 0].returncode == exits.STOPPED
                if not together or now - failed > TOGETHER_SECONDS:
                    ending = now
                    self._signal(signal.SIGTERM)
            if ending is not None and now - ending > LAST_SECONDS:
                return
            if ending is not None and now - woken > 1.0:
                woken = now
                self._signal(getattr(signal, "SIGCONT", 0))  # a process that was stopped hears of nothing before
            time.sleep(LOOK_SECONDS)
        if self.first is None:
            self.first = self._failed()

    def _failed(self) -> int | None:
        return next((rank for rank, child in enumerate(self.children) if child.poll()), None)

    def _signal(self, number: int) -> None:
        for child in self.children:
            if child.poll() is None:
                with contextlib.suppress(OSError):
                    child.send_signal(number)

    def kill(self) -> None:
        """Ends what is left, with the processes that it started."""
        for rank, child in enumerate(self.children):
            if child.poll() is None:
                self.killed.append(rank)
                with contextlib.suppress(OSError):
                    os.killpg(child.pid, signal.SIGKILL) if hasattr(os, "killpg") else child.kill()
        for rank in self.killed:
            with contextlib.suppress(subprocess.TimeoutExpired):  # one that is in the kernel for good cannot be ended
                self.children[rank].wait(1.0)

    def verdict(self) -> int:
        """What `launch` returns or raises."""
        codes = [child.returncode for child in self.children]
        if self.asked:
            return self._verdict_when_asked(codes)
        if self.first is None:
            return exits.OK
        code = codes[self.first]
        if code is not None and code < 0:
            raise RuntimeError(
                f"process {self.first} of {len(codes)} was killed by signal {-code}, and the others were ended; "
                f"{self.go_on}"
            )
        return int(code or exits.OUR_FAULT)

    def _verdict_when_asked(self, codes: list[int | None]) -> int:
        if self.killed:
            ranks = " and ".join(map(str, self.killed))
            raise Stopped(
                f"process {ranks} of {len(codes)} did not end within {LAST_SECONDS:.0f} s of being asked to stop, and "
                f"was killed; {self.go_on}",
                told=False,
            )
        if not any(codes):
            return exits.OK  # they were through
        # One that had no handler yet, because it was still importing, was ended by the signal itself.
        stopped = {exits.OK, exits.STOPPED, *(-number for number in self.asked)}
        for rank, code in enumerate(codes):
            if code not in stopped:
                if code is not None and code < 0:
                    raise RuntimeError(f"process {rank} of {len(codes)} was killed by signal {-code}")
                return int(code or exits.OUR_FAULT)
        told = codes[0] == exits.STOPPED
        raise Stopped("stopped before the first step, and nothing is lost: give the same command again", told=told)
