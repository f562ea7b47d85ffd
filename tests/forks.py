"""Processes that begin at once: forks of the test, which has imported everything already.

Python needs five to ten seconds of a slow core until torch and timm are imported. A test that starts three processes
would do little else. A fork of the test has all of it. What a fork cannot show is what happens before and while barlow
is imported, so each thing that starts processes has one test that starts them as a user does.
"""

import contextlib
import ctypes
import functools
import importlib
import os
import signal
import stat
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

NAME_OF_A_PROCESS = 15
"""PR_SET_NAME of Linux: what /proc/PID/comm says of a process."""


EVERYTHING = (
    "timm",
    "torch._dynamo",
    "torch.distributed",
    "barlow.pretraining",
    "barlow.evaluation",
    "barlow.checks.checking",
)

living: list["Fork"] = []
"""Those that a test has begun, for as long as it lasts."""


class Fork:
    """A function that is called in a fork of this process; it can be asked what `subprocess.Popen` can.

    Args:
        function: returns the exit code; None is 0.
        environment: variables that are added.
        output: a file for what is said on standard output and standard error; None: where this process says it.
        name: of the process, up to 15 characters.
    """

    def __init__(
        self,
        function: Callable[[], object],
        *,
        environment: Mapping[str, str] | None = None,
        output: Path | None = None,
        name: str = "",
    ) -> None:
        self.returncode: int | None = None
        _import_everything()
        # What is sent before the fork has its own handlers would reach those of this process. So it waits.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on, of a fork beside threads
                self.pid = os.fork()
            if self.pid == 0:
                leave_with(lambda: _become(function, mask, environment or {}, output, name))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        living.append(self)

    def poll(self) -> int | None:
        """Its exit code, if it has ended; -9 for one that was killed by signal 9."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Its exit code, once it has ended.

        Raises:
            TimeoutExpired: it has not, after so many seconds.
        """
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"the fork {self.pid}", timeout)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@functools.cache
def _import_everything() -> None:
    """What commands import when they need it: once here, and not in each fork."""
    for name in EVERYTHING:
        importlib.import_module(name)


def end_all() -> None:
    """Kills the forks that a test has left, and what they have started. Each is in a session of its own."""
    for fork in living:
        if fork.poll() is None:
            for pid in (*children(fork.pid), fork.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            fork.wait(20)
    living.clear()


def processes_are_forks() -> None:
    """From now on `--devices N` forks this process, too. For a process that is a fork itself."""
    from barlow import cli, launching

    def fork(command: Sequence[str], *, env: Mapping[str, str], start_new_session: bool) -> Fork:
        assert list(command[:3]) == [sys.executable, "-m", "barlow.cli"]
        assert start_new_session, "as forks have it"

        def process() -> int:
            _leave_sockets()
            return cli.main(list(command[3:]))

        return Fork(process, environment=env, name=f"rank {env['RANK']}")

    known: Any = SimpleNamespace(Popen=fork, TimeoutExpired=subprocess.TimeoutExpired)
    launching.subprocess = known


def leave_with(function: Callable[[], object]) -> NoReturn:
    """Ends this process, which is a fork, with what a function returns: an exit code, or None for 0.

    It never comes back, whatever goes wrong: the fork would go on with the rest of the test, or of the program.
    """
    code: object = 99
    try:
        code = function()
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(0 if code is None else code if isinstance(code, int) else 1)


def _become(
    function: Callable[[], object],
    mask: set[signal.Signals | int],
    environment: Mapping[str, str],
    output: Path | None,
    name: str,
) -> object:
    living.clear()
    os.setsid()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(NAME_OF_A_PROCESS, name.encode() or b"fork", 0, 0, 0)
    os.environ.update(environment)
    if output is not None:
        _say_into(output)
    _take_signals_as_a_new_process_does()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return function()


def _leave_sockets() -> None:
    """Closes the sockets of the process that was forked: who waits for its end must not wait for this one's."""
    for handle in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            if handle > 2 and stat.S_ISSOCK(os.fstat(handle).st_mode):
                os.close(handle)


def _say_into(output: Path) -> None:
    file = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115


def _take_signals_as_a_new_process_does() -> None:
    """A handler of this process is none there; what is ignored stays so. An alarm may be the test's own."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0)


def children(launcher: int) -> list[int]:
    """The processes that `--devices` has started, in the order of their rank."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher and (rank := _rank(entry)) is not None:
                found[rank] = int(entry.name)
        except (OSError, ValueError, IndexError):
            continue
    return [found[rank] for rank in sorted(found)]


def _rank(entry: Path) -> int | None:
    """A process's rank: the name of a fork has it, and the environment that another one began with."""
    name = (entry / "comm").read_text().split()
    environment = [variable.partition("=") for variable in (entry / "environ").read_text().split("\0")]
    told = name[1:2] if name[:1] == ["rank"] else [value for key, _, value in environment if key == "RANK"]
    return int(told[0]) if told else None
