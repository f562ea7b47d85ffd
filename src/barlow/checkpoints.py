"""The checkpoints of a run: folders `step-000123`, each committed whole, the newest few kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barlow import exits, ownership, storage, tables
from barlow.linalg import not_finite
from barlow.seals import Damaged
from barlow.telling import Say, silent

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 2
"""The newest, and one more to fall back on should the newest be damaged."""

HOME = "checkpoints"
"""In a run folder."""

TENSORS, STATE = "tensors.safetensors", "state.json"

Look = Callable[[Path], str | None]
"""What is asked of a large file before it is read; see `storage.damage_in` and `barlow.nets.stored_size`."""


@dataclass(frozen=True)
class Checkpoint:
    """One committed state of training."""

    step: int
    tensors: "dict[str, Tensor]"
    state: dict[str, Any]


class NoCheckpoint(ValueError):
    """There is none of the step that was named."""

    exit_code = exits.NO_INPUT


class ForeignInside(storage.StorageError):
    """A folder that should go holds something that is not barlow's."""

    exit_code = exits.DATA


class AllDamaged(exits.UnusableData):
    """There are checkpoints, and none of them is whole."""


def folders(run: Path) -> dict[int, Path]:
    """The committed checkpoints by their step, the newest last. The number decides, and no clock."""
    found = {path.name.removeprefix("step-"): path for path in run.glob("checkpoints/step-*") if path.is_dir()}
    return {int(number): found[number] for number in sorted(filter(_is_number, found), key=int)}


def _is_number(text: str) -> bool:
    """Whether a text is digits from 0 to 9, and few enough for a step: `isdigit` alone takes ² for one."""
    return text.isascii() and text.isdigit() and len(text) < 20


def step_of(folder: Path) -> int:
    """The step of a checkpoint, by its name."""
    return int(folder.name.removeprefix("step-"))


def damage_in(folder: Path, look: Look | None = None) -> str | None:
    """What is wrong with a checkpoint, in a few words; None if it is whole. See `storage.damage_in`."""
    return storage.damage_in(folder, (TENSORS, STATE), look)


def save(run: Path, step: int, tensors: "Mapping[str, Tensor]", state: Mapping[str, Any], say: Say = silent) -> Path:
    """Commits a checkpoint and lets go of all but the newest few. Saving the same step twice is a no-op.

    Raises:
        StorageError: it cannot be written; the ones before are still there.
    """
    folder = run / HOME / f"step-{step:06d}"
    if folder.exists() and damage_in(folder) is None:
        return folder
    if folder.exists():
        _make_way(folder)
    content = {TENSORS: storage.tensors_bytes(tensors), STATE: storage.json_bytes({"step": step, **state})}
    storage.commit_folder(folder, content)
    rotate(run, say)
    return folder


def rotate(run: Path, say: Say = silent) -> None:
    """Lets go of all but the newest few. A run that was killed between a commit and this has one too many.

    One with something in it that is not barlow's stays; `say` is told.
    """
    for old in list(folders(run).values())[:-KEPT]:
        ownership.remove_tree(old, f"{HOME}/{old.name}", say)


def _make_way(folder: Path) -> None:
    """Removes a damaged checkpoint that another is to take the place of.

    Raises:
        ForeignInside: something in it is not barlow's.
    """
    found: list[str] = []
    if not ownership.remove_tree(folder, f"{HOME}/{folder.name}", found.append):
        raise ForeignInside(found[0] if found else f"{folder} is in the way, and is not barlow's: move it elsewhere")


def newest(run: Path, look: Look | None = None) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and a line for each newer one that is not, which is renamed to .bad.

    Raises:
        AllDamaged: there are checkpoints and none is whole: never a silent fresh start.
        StorageError: one cannot be read, which does not mean that it is damaged: nothing is renamed.
        Newer: a newer barlow wrote one.
        TooLarge: one is far larger than what it is for.
        ForeignInside: one is damaged, and where it is to be set aside is something that is not barlow's.
    """
    home = run / HOME
    ownership.remove_leftovers(home, HOME)
    notes: list[str] = []
    for folder in reversed(folders(run).values()):
        damage = damage_in(folder, look)
        if damage is None:
            return read(folder), notes
        aside = folder.with_name(folder.name + ".bad")
        if aside.exists():  # the same step was damaged before
            _make_way(aside)
        notes.append(f"checkpoint {folder.name} is damaged ({damage}); set aside as {aside.name}")
        folder.rename(aside)
    if damaged := sorted(folder.name for folder in home.glob("step-*.bad")):
        why = "; ".join(notes) or f"{', '.join(damaged)} were damaged"
        raise AllDamaged(f"no checkpoint in {run} can be read: {why}; start it anew with --overwrite")
    return None, notes


def whole(run: Path, step: int | None = None, look: Look | None = None) -> Path | None:
    """The folder of a step's checkpoint, or of the newest that is whole; None if there is no whole one.

    Raises:
        NoCheckpoint: there is none of that step.
        Damaged: the one of that step is damaged.
        TooLarge: it is far larger than what it is for.
    """
    there = folders(run)
    if step is None:
        return next((folder for folder in reversed(there.values()) if damage_in(folder, look) is None), None)
    if step not in there:
        known = ", ".join(map(str, there)) or "none"
        raise NoCheckpoint(f"{run} has no checkpoint of step {step}; there are: {known}")
    if damage := damage_in(there[step], look):
        raise Damaged(f"checkpoint {there[step]} is damaged ({damage}); take another")
    return there[step]


def state_of(folder: Path) -> dict[str, Any]:
    """What a checkpoint says beside its tensors.

    Raises:
        UnusableData: it is not what a checkpoint says.
    """
    return tables.checked(storage.read_json(folder / STATE), folder / STATE)


def read(folder: Path) -> Checkpoint:
    """A checkpoint that is known to be whole.

    Raises:
        Diverged: it holds numbers that are not finite. Older versions stored such.
    """
    state = state_of(folder)
    tensors = storage.read_tensors(folder / TENSORS)
    if broken := not_finite(tensors):
        raise exits.Diverged(
            f"{folder} holds numbers that are not finite ({broken[0]}): the run had diverged. Remove that checkpoint "
            "to go on from the one before, or start a new run with a lower rate"
        )
    return Checkpoint(step=state["step"], tensors=tensors, state=state)


def split_step(name: str) -> tuple[Path, int | None]:
    """A run's folder and a step, of `RUN@STEP`; the folder alone, where there is one of the whole name."""
    folder, at, step = name.rpartition("@")
    if at and _is_number(step) and not Path(name).exists():
        return Path(folder), int(step)
    return Path(name), None
