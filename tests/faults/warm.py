"""Commands of barlow in real processes that begin at once, so that hundreds of them can be killed in a minute.

`Warm` starts `python warm.py`, which imports everything, has one thread, and forks a child for each command. A child
can be killed from outside, or meet a fault at a change of the disk that was chosen (`disk.inject`).
"""

import contextlib
import copy
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GONE_SECONDS = 20.0
"""How long the helpers of a command that was killed may live on. Torch's own look for their parent every 5 seconds."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    codes: list[int]
    """Of each of its processes: the exit code, or minus the signal that ended it."""
    output: str
    changes: list[tuple[str, str]] = field(default_factory=list)
    """Of the disk, if they were counted."""

    @property
    def code(self) -> int:
        return self.codes[0]

    @property
    def killed(self) -> bool:
        return -signal.SIGKILL in self.codes

    @property
    def told(self) -> list[str]:
        """What was said of an error."""
        return [line for line in self.output.splitlines() if line.startswith("barlow: ")]


class Warm:
    """The other end of `python warm.py`.

    Args:
        home: a folder for what the commands say.
    """

    def __init__(self, home: Path) -> None:
        self.home, self._pids, self._output = home, list[int](), home / "output"
        with open(home / "errors", "wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "warm.py"), str(home)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                text=True,
            )
        self._heard()

    def _heard(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, (self.home / "errors").read_text()
        return json.loads(line)

    def _ask(self, **order: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._heard()

    def start(
        self, words: Sequence[object], *, ranks: int = 1, rivals: int = 1, fault: dict[str, Any] | None = None
    ) -> list[int]:
        """Starts a command, and returns the numbers of its processes, which are theirs until `wait`.

        Args:
            words: of the command line.
            ranks: in so many processes, which train together.
            rivals: so many times at once.
            fault: what `disk.inject` is given.
        """
        order = {"words": list(map(str, words)), "ranks": ranks, "rivals": rivals, "fault": fault}
        order["output"] = str(self._output)
        self._pids = self._ask(start=order)
        return self._pids

    def wait(self) -> Ended:
        """Waits for the command that was started."""
        codes = self._ask(wait=self._pids)
        counted = self._output.with_suffix(".changes")
        changes = json.loads(counted.read_bytes()) if counted.exists() else []
        output = self._output.read_text(encoding="utf-8", errors="replace")
        return Ended(codes, output, [tuple(change) for change in changes])

    def run(self, words: Sequence[object], **options: Any) -> Ended:
        """A command from its start to its end; the options are those of `start`."""
        self.start(words, **options)
        return self.wait()

    def left(self) -> int:
        """How many of the commands so far have helpers that live on for longer than they may."""
        return int(self._ask(left=True))

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


@contextlib.contextmanager
def warmed(home: Path) -> Iterator[Warm]:
    """A warm process for as long as the body runs."""
    warm = Warm(home)
    try:
        yield warm
    finally:
        warm.close()


# --- In the warm process ------------------------------------------------------------------------------------------


def _serve(home: Path) -> None:
    import torch

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")  # nothing else is said there: neither here, nor by children and their helpers
    os.dup2(2, 1)
    _keep_what_commands_ask_for_again()
    _run_once(home)
    assert len(os.listdir("/proc/self/task")) == 1, "a process with several threads cannot be forked safely"
    _adopt_orphans()
    groups = set[int]()
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            answer: Any = _started(**order["start"])
        elif "wait" in order:
            answer = _waited(order["wait"], groups)
        else:
            answer = _left(groups)
            groups.clear()
        print(json.dumps(answer), file=answers, flush=True)


def _keep_what_commands_ask_for_again() -> None:
    """A command reads a dozen of barlow's own recipes, and asks for its commit. Neither changes here.

    Nor are disks waited for: no power cut is modelled, and the system keeps what a dead process has written.
    """
    from barlow import machine
    from barlow.recipe import files

    shipped = functools.cache(files.read)
    files.read = lambda name: copy.deepcopy(shipped(name) if name in files.names() else shipped.__wrapped__(name))
    machine.source_commit = functools.cache(machine.source_commit)
    os.fsync = lambda handle: None


def _run_once(home: Path) -> None:
    """Trains and evaluates in this process, so that all that commands import is here."""
    sys.path.insert(0, str(HERE.parent))
    import tiny

    from barlow import cli, exits

    photos, run = tiny.images(home / "photos", 20, classes=2), home / "run"
    both = ["--train", str(photos), "--test", str(photos), "--protocol", "knn"]
    assert cli.main(["pretrain", str(photos), "--out", str(run), *tiny.words(train__steps=1)]) == exits.OK
    assert cli.main(["evaluate", str(run), *both]) == exits.OK


def _adopt_orphans() -> None:
    """Helpers of a process that was killed become children of this one, which sees them end."""
    import ctypes

    assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER


def _started(words: list[str], ranks: int, rivals: int, fault: dict[str, Any] | None, output: str) -> list[int]:
    for path in (Path(output), Path(output).with_suffix(".changes")):
        path.unlink(missing_ok=True)
    port, pids = _free_port() if ranks > 1 else 0, list[int]()
    from forks import leave_with

    for rank in range(max(ranks, rivals)):
        pid = os.fork()
        if pid == 0:
            leave_with(functools.partial(_child, words, rank, ranks, port, fault, output))
        with contextlib.suppress(OSError):  # the child does it, too; whoever is first
            os.setpgid(pid, pids[0] if pids else pid)
        pids.append(pid)
    return pids


def _child(words: list[str], rank: int, ranks: int, port: int, fault: dict[str, Any] | None, output: str) -> int:
    if rank == 0:
        os.setpgid(0, 0)
    said, nothing = os.open(output, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), os.open(os.devnull, os.O_RDONLY)
    for handle, target in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(handle, target)
    if ranks > 1:
        alike = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
        os.environ |= alike | {name: str(rank) for name in ("RANK", "LOCAL_RANK", "GROUP_RANK")}
        os.environ |= {name: str(ranks) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
    from barlow import cli

    changes = None
    if fault is not None:
        from disk import inject

        changes = inject(Path(fault["home"]), fault["how"], fault.get("at", 0), fault.get("lasting"))
    code = cli.main(words)
    if changes:
        Path(output).with_suffix(".changes").write_text(json.dumps(changes))
    return code


def _waited(pids: list[int], groups: set[int]) -> list[int]:
    groups.add(pids[0])
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def _left(groups: set[int]) -> int:
    """How many commands have helpers that live on, which are then killed."""
    deadline = time.monotonic() + GONE_SECONDS
    groups = set(groups)
    while groups and time.monotonic() < deadline:
        for group in list(groups):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-group, os.WNOHANG)
                continue
            groups.discard(group)  # it has no process any more
        time.sleep(0.01)
    for group in groups:
        os.killpg(group, signal.SIGKILL)
    return len(groups)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
