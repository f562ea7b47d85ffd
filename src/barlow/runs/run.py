"""A run is a folder: everything that happened in it, and everything downstream, reads from there.

recipe.yaml        the resolved recipe; `barlow pretrain -c recipe.yaml` repeats the run
run.json           who the run is: its id, what was asked for, its recipe again, and each start (versions, processor)
data.json          what was found, what was skipped and why
images.json        a digest of each image, by which test images are found among them
metrics.jsonl      one line per logged step, each with a digest of itself
monitor.jsonl      now and then, what the networks make of a few fixed views: diagnostics, spectra, scores
hang.txt           where the run was taken to hang: what each of its threads was doing
views.png          augmented views of the user's own images
checkpoints/       step-000123/, committed whole, the last two kept; the first, of step 0, before anything is trained
start/             with --init: the weights that the run started from, in the same form as encoder/
encoder/           model.safetensors, config.json: all that load_encoder needs
evaluation/        a file of results for each set of images, cached features
report.html        of `barlow report`: all of it to look at
"""

import contextlib
import errno
import os
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from barlow import checkpoints, exits, limits, ownership, regular, storage
from barlow.telling import Say, silent
from barlow.training import step_log


class RunFolderError(ValueError):
    """The output folder cannot be used as asked; the message says what to do."""

    exit_code = exits.CANNOT_CREATE


class NoRun(RunFolderError):
    """There is no run where one was named."""

    exit_code = exits.NO_INPUT


class Displaced(RunFolderError):
    """The run folder is not the one any more that a process has locked."""

    exit_code = exits.IO


class BrokenRun(RunFolderError):
    """A run's files do not belong together, or are damaged; nothing of it was changed."""

    exit_code = exits.DATA


@dataclass(frozen=True)
class Run:
    """A run folder."""

    path: Path

    @staticmethod
    def create(out: str | os.PathLike[str], *, overwrite: bool = False, resume: bool = False) -> "Run":
        """A folder for a new run. Nothing in it is removed yet: `clear` does that.

        A run that ended before its recipe was written has lost nothing, so a new one takes its place unasked.

        Raises:
            RunFolderError: see `check_replaceable`.
            StorageError: it cannot be written.
        """
        path = Path(out)
        if path.exists() and not path.is_dir():
            raise RunFolderError(f"--out {path} is a file; name a folder")
        run = Run(path)
        if path.is_dir():
            run.check_replaceable(overwrite=overwrite, resume=resume)
        storage.make_folder(path)
        storage.check_writable(path)
        return run

    def check_replaceable(self, *, overwrite: bool = False, resume: bool = False) -> None:
        """Refuses a folder that a new run cannot have.

        Args:
            overwrite: whether it may replace a run.
            resume: whether the run would have been gone on with, had it been there when the command looked.

        Raises:
            RunFolderError: the folder holds a run (and `overwrite` is off), or something that is not barlow's.
            BrokenRun: it holds what a run has computed, and no recipe.
        """
        if all(ownership.is_preparation(entry.name) for entry in self.path.iterdir()):
            return
        if resume and self.exists():
            raise RunFolderError(f"--out {self.path}: another process has just begun the run; give the command again")
        ours, foreign = self._is_ours(), ownership.foreign(self.path)
        if ours and not foreign and not self.exists():
            self._check_nothing_to_lose(overwrite)
            return
        if not overwrite:
            raise RunFolderError(
                f"--out {self.path} is not empty; use --resume to go on with the run in it, --overwrite to replace it, "
                "or another folder"
            )
        if not ours or foreign:
            what = f"it also holds {foreign[0]!r}" if ours else "it has no recipe.yaml of a run"
            raise RunFolderError(
                f"--out {self.path} is not a run of barlow alone ({what}), so --overwrite does not touch it; "
                "use another folder"
            )

    def _check_nothing_to_lose(self, overwrite: bool) -> None:
        """Before its recipe is written a run has no more than the checkpoint of step 0."""
        steps = [step for step in checkpoints.folders(self.path) if step > 0]
        if steps and not overwrite:
            raise BrokenRun(
                f"{self.path} has checkpoints up to step {steps[-1]} and no recipe.yaml, so it cannot be gone on with: "
                "put the file back, or start anew with --overwrite"
            )

    def _is_ours(self) -> bool:
        """Whether a run was begun here, by what the files say and not by their names alone."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if _OWNER.match(_first_characters(self.path / ".lock")):
                return True
        try:
            return {"data", "objective", "train"} <= load_recipe_text(self.path / "recipe.yaml").keys()
        except (OSError, RunFolderError):
            return False

    def exists(self) -> bool:
        """Whether a run has begun here: its recipe is written last of what it has before its first step."""
        return (self.path / "recipe.yaml").is_file()

    @staticmethod
    def open(out: str | os.PathLike[str]) -> "Run":
        """The run in an existing folder.

        Raises:
            NoRun: there is none.
        """
        run = Run(Path(out))
        if not run.exists():
            exists = "has no recipe.yaml" if run.path.exists() else "does not exist"
            raise NoRun(f"{run.path} {exists}, so it is not a run; give the folder that was --out of `pretrain`")
        return run

    def clear(self) -> None:
        """Removes what an earlier run left here (`--overwrite`), and nothing else."""
        ownership.clear(self.path)

    def remove_leftovers(self, say: Say = silent) -> None:
        """Removes what a crash left unfinished."""
        for folder in ("", "start", "encoder", "checkpoints"):
            ownership.remove_leftovers(self.path / folder, folder, say=say)

    @contextlib.contextmanager
    def locked(self, say: Say = silent) -> Iterator[Callable[[], None]]:
        """One process at a time trains into a folder; the lock goes with the process that holds it.

        Some file systems have no locks (Lustre without `flock`, NFS without its lock service). A cluster may have no
        other, so work goes on there without one, and what is not guarded then is said.

        What is handed out is called before anything is written: it raises `Displaced` where the folder is not the one
        any more that was locked. Somebody may have removed it, and begun another run in its place.

        Args:
            say: told if the file system has no locks.

        Raises:
            RunFolderError: another process holds it, or it cannot be asked for.
            CannotCreate: something in the folder leads elsewhere (`ownership.check_real`).
        """
        ownership.check_real(self.path)
        path = self.path / ".lock"
        with storage.open_in_place(path) as file:
            if not _lock(file, self.path, say):
                raise RunFolderError(
                    f"--out {self.path} is in use by {_owner(path)}; wait for it, or use another folder"
                )
            storage.write_over(file, f"process {os.getpid()} on {platform.node()}".encode())
            # A data worker is a fork: while it held the file, the lock would outlive a killed run by some seconds.
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=file.close)
            yield partial(self._check_held, file)

    def _check_held(self, lock: BinaryIO) -> None:
        held = os.fstat(lock.fileno())
        try:
            there = os.stat(self.path / ".lock")
        except OSError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino):
            raise Displaced(
                f"{self.path} was removed, moved or replaced while this run was training into it; nothing more is "
                "written there. A run that was moved is gone on with from its newest checkpoint, where it is now"
            )

    def check_lengths(self) -> None:
        """Refuses logs that are too long to be any, before anything is made for a run that would have to read them.

        Raises:
            TooLarge: one is.
        """
        for name in ("metrics.jsonl", "monitor.jsonl"):
            if (self.path / name).exists():
                limits.check_length(self.path / name)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return step_log.lines(self.path / "metrics.jsonl")

    def monitored(self) -> list[dict[str, Any]]:
        """The lines of monitor.jsonl."""
        return step_log.lines(self.path / "monitor.jsonl")


_OWNER = re.compile(r"process \d+ on ")
"""What `Run.locked` writes into its lock."""


def _first_characters(path: Path) -> str:
    """Of a file that may be another's, as many as `Run.locked` writes at most."""
    with open(path, encoding="utf-8", errors="replace", opener=regular.to_read) as file:
        return file.read(400)


def _owner(path: Path) -> str:
    try:
        text = _first_characters(path).strip()
    except OSError:  # Windows lets nobody read a file that is locked
        text = ""
    return text if _OWNER.match(text) else "another process"


_TAKEN = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK})
"""What systems answer where another process holds a lock."""

_WITHOUT_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP})
"""What they answer where a file system has none."""


def _lock(file: BinaryIO, folder: Path, say: Say) -> bool:
    """Takes the lock of an open file, without waiting; whether it could be had, or there is none to be had."""
    try:
        _take(file)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        reason = error.strerror or type(error).__name__
        if error.errno not in _WITHOUT_LOCKS:
            raise RunFolderError(f"--out {folder} cannot be locked ({reason}): use a folder on another disk") from error
        say(
            f"lock     the file system of {folder} has no locks ({reason}), so nothing keeps a second command from "
            "writing into this folder at the same time: give each command a folder of its own"
        )
    return True


def _take(file: BinaryIO) -> None:
    try:
        import fcntl
    except ImportError:
        import msvcrt  # on Windows

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def load_recipe_text(path: Path) -> dict[str, Any]:
    """The raw content of a run's recipe.yaml."""
    try:
        content = limits.read_yaml(path)
    except ValueError as error:
        raise BrokenRun(str(error)) from error
    if not isinstance(content, dict):
        raise BrokenRun(f"{path} holds no recipe: expected sections such as data, views, objective")
    return content
