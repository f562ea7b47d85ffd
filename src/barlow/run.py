"""A run is a folder: everything that happened in it, and everything downstream, reads from there.

recipe.yaml        the resolved recipe; `barlow pretrain -c recipe.yaml` repeats the run
environment.json   versions, processor, command
data.json          what was found, what was skipped and why
images.json        a digest of each image, by which test images are found among them
metrics.jsonl      one line per logged step
views.png          augmented views of the user's own images
checkpoints/       step-000123/, committed whole, the last two kept
start/             with --init: the weights that the run started from, in the same form as encoder/
encoder/           model.safetensors, config.json: all that load_encoder needs
evaluation/        results.json, cached features
"""

import contextlib
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barlow import storage

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINTS_KEPT = 2
"""The newest, and one more to fall back on should the newest be damaged."""

_MEMBERS = (
    "recipe.yaml",
    "environment.json",
    "data.json",
    "images.json",
    "metrics.jsonl",
    "views.png",
    "checkpoints",
    "start",
    "encoder",
    "evaluation",
    ".lock",
)


class RunFolderError(ValueError):
    """The output folder cannot be used as asked; the message says what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """One committed state of training."""

    step: int
    tensors: "dict[str, Tensor]"
    state: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run folder."""

    path: Path

    @staticmethod
    def create(out: str | os.PathLike[str], *, overwrite: bool = False) -> "Run":
        """A fresh run folder.

        Raises:
            RunFolderError: the folder holds something already (and `overwrite` is off, or it is not a run's folder).
            StorageError: it cannot be written.
        """
        path = Path(out)
        if path.exists() and not path.is_dir():
            raise RunFolderError(f"--out {path} is a file; name a folder")
        contents = sorted(entry.name for entry in path.iterdir() if entry.name != ".lock") if path.is_dir() else []
        if contents == ["data.json"] and (path / ".lock").exists():
            contents = []  # the list of a run that stopped at its images, before it began
        if contents and not overwrite:
            raise RunFolderError(
                f"--out {path} is not empty; use --resume to go on with the run in it, --overwrite to replace it, "
                "or another folder"
            )
        if contents:
            foreign = [name for name in contents if name not in _MEMBERS and not name.startswith((".tmp-", "."))]
            ours = "recipe.yaml" in contents or (path / ".lock").exists()  # a run that ended early has the lock only
            if not ours or foreign:
                what = f"it also holds {foreign[0]!r}" if ours else "it has no recipe.yaml"
                raise RunFolderError(
                    f"--out {path} is not a run of barlow alone ({what}), so --overwrite does not touch it; "
                    "use another folder"
                )
        storage.make_folder(path)
        run = Run(path)
        probe = path / ".write-test"
        storage.write_bytes(probe, b"")
        probe.unlink()
        return run

    @staticmethod
    def open(out: str | os.PathLike[str]) -> "Run":
        """The run in an existing folder.

        Raises:
            RunFolderError: there is none.
        """
        path = Path(out)
        if not (path / "recipe.yaml").is_file():
            exists = "has no recipe.yaml" if path.exists() else "does not exist"
            raise RunFolderError(f"{path} {exists}, so it is not a run; give the folder that was --out of `pretrain`")
        return Run(path)

    def clear(self) -> None:
        """Removes what an earlier run left here (`--overwrite`), and nothing else."""
        for name in _MEMBERS:
            member = self.path / name
            if name == ".lock":
                continue
            if member.is_dir() and not member.is_symlink():
                storage.remove_folder(member)
            else:
                member.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time trains into a folder; the lock goes with the process that holds it."""
        try:
            import fcntl
        except ImportError:  # Windows: no advisory locks of this kind; two runs in one folder stay the user's care
            yield
            return
        path = self.path / ".lock"
        with open(path, "a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                owner = file.read().strip() or "another process"
                raise RunFolderError(f"--out {self.path} is in use by {owner}; wait for it, or use another") from error
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
            # A data worker is a fork: while it held the file, the lock would outlive a killed run by some seconds.
            os.register_at_fork(after_in_child=file.close)
            yield

    def save_checkpoint(self, step: int, tensors: "Mapping[str, Tensor]", state: Mapping[str, Any]) -> Path:
        """Commits a checkpoint and lets go of all but the newest few. Saving the same step twice is a no-op."""
        folder = self.path / "checkpoints" / f"step-{step:06d}"
        if folder.exists() and storage.damage_in(folder) is None:
            return folder
        if folder.exists():
            storage.remove_folder(folder)
        storage.commit_folder(
            folder,
            {
                "tensors.safetensors": storage.tensors_bytes(tensors),
                "state.json": storage.json_bytes({"step": step, **state}),
            },
        )
        for old in self._checkpoint_folders()[:-CHECKPOINTS_KEPT]:
            storage.remove_folder(old)
        return folder

    def load_checkpoint(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that verifies, and a line for each newer one that does not (renamed to .bad).

        Raises:
            RunFolderError: there are checkpoints and none verifies: never a silent fresh start.
        """
        storage.remove_leftovers(self.path / "checkpoints")
        notes: list[str] = []
        folders = self._checkpoint_folders()
        for folder in reversed(folders):
            damage = storage.damage_in(folder)
            if damage is None:
                state = storage.read_json(folder / "state.json")
                tensors = storage.read_tensors(folder / "tensors.safetensors")
                return Checkpoint(step=state["step"], tensors=tensors, state=state), notes
            aside = folder.with_name(folder.name + ".bad")
            if aside.exists():  # the same step was damaged before
                storage.remove_folder(aside)
            notes.append(f"checkpoint {folder.name} is damaged ({damage}); set aside as {aside.name}")
            folder.rename(aside)
        damaged = sorted(f.name for f in (self.path / "checkpoints").glob("step-*.bad"))
        if damaged:
            why = "; ".join(notes) or f"{', '.join(damaged)} were damaged"
            raise RunFolderError(f"no checkpoint in {self.path} can be read: {why}; start it anew with --overwrite")
        return None, notes

    def _checkpoint_folders(self) -> list[Path]:
        folders = (self.path / "checkpoints").glob("step-*")
        return sorted(
            (f for f in folders if f.is_dir() and f.name.removeprefix("step-").isdigit()),
            key=lambda f: int(f.name.removeprefix("step-")),
        )

    def rewind_metrics(self, step: int) -> None:
        """Forgets logged lines of steps after `step`: they are about to be run again."""
        path = self.path / "metrics.jsonl"
        rows = storage.read_lines(path)
        storage.write_lines(path, [row for row in rows if row.get("step", 0) <= step])

    def metrics(self) -> list[dict[str, Any]]:
        """The logged lines."""
        return storage.read_lines(self.path / "metrics.jsonl")


def load_recipe_text(path: Path) -> dict[str, Any]:
    """The raw content of a run's recipe.yaml."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path} is not valid YAML ({' '.join(str(error).split())}); it may be damaged") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{path} holds no recipe: expected sections such as data, views, objective")
    return content
