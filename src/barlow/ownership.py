"""Which paths in a run folder are barlow's. Only those are ever removed, and only where all of them are.

A path is ours by its whole name, from the run folder down: `checkpoints/step-000123/state.json`, and not
`checkpoints/best.ckpt`. A link is never ours, as what it leads to is not.
"""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from barlow import regular, storage
from barlow.printable import printable
from barlow.telling import Say, silent

_TEXT = r"text_encoder/vocabulary\.json|vocabulary\.json"
_TENSORS = r"model\.safetensors|config\.json"
_STEP = r"step-\d{6,}(\.bad)?"
_DETECTION = r"evaluation/detection/[0-9a-f]{16}"
FILES = re.compile(
    r"recipe\.yaml|run\.json|report\.html|environment\.json|data\.json|images\.json|views\.png|(metrics|monitor)\.jsonl(\.bad)?|\.lock|(evaluation/)?\.write-test"
    r"|hang(-\d+)?\.txt"
    rf"|checkpoints/{_STEP}/(tensors\.safetensors|state\.json|MANIFEST\.json)"
    rf"|(start|encoder|text_encoder)/({_TENSORS})|{_TEXT}"
    r"|evaluation/(skipped\.json|results(-[0-9a-f]{8})?\.json|captions-[0-9a-f]{8}\.json|history\.jsonl)"
    r"|evaluation/(features|outcomes)/[0-9a-f]{32}\.safetensors"
    r"|tensorboard/events\.out\.tfevents\.\d{10}\.barlow\.\d+"
    rf"|{_DETECTION}/(result\.json|checkpoints/{_STEP}/(tensors\.safetensors|state\.json|MANIFEST\.json))"
)
"""What a run writes. `environment.json` is of runs of the first release."""

FOLDERS = re.compile(
    rf"checkpoints(/{_STEP})?|start|(text_)?encoder|evaluation(/(features|outcomes|detection))?|tensorboard"
    rf"|{_DETECTION}(/checkpoints(/{_STEP})?)?"
)

CHANGED_IN_PLACE = re.compile(r"\.lock|(metrics|monitor)\.jsonl|evaluation/history\.jsonl|tensorboard/events\..*")
"""Files that are not replaced by new ones, but opened and changed."""

_DECORATED = re.compile(r"\.tmp-(?:removed-)?(?P<folder>.+)-[0-9a-f]{8}|\.(?P<file>.+)\.tmp-[0-9a-f]{8}")


def contents(run: Path) -> Iterator[tuple[str, Path]]:
    """Every path below a folder, with its name from there on; what a folder holds comes before the folder."""
    for parent, folders, files in os.walk(run, topdown=False):
        for name in sorted((*folders, *files)):
            path = Path(parent) / name
            yield path.relative_to(run).as_posix(), path


def is_ours(name: str, path: Path) -> bool:
    """Whether a path is one that barlow writes, finished or left over from a crash."""
    if path.is_symlink():
        return False
    if path.is_dir():
        return FOLDERS.fullmatch(_plain(name)) is not None
    # One that is gone by now was a file that was about to get its name.
    return (path.is_file() or not path.exists()) and FILES.fullmatch(_plain(name)) is not None


def is_preparation(name: str) -> bool:
    """Whether a command makes this in a folder before it has begun a run there: the folder is as good as empty."""
    return _undecorated(name) in (".lock", ".write-test")


def foreign(run: Path) -> list[str]:
    """What is in a folder and not ours, by its name from the folder on."""
    return [name for name, path in contents(run) if not is_ours(name, path)]


def clear(run: Path) -> None:
    """Removes all that is ours, but for the lock, which its holder needs, and folders that are not empty then.

    The recipe, which makes the folder a run, is written last and removed first: so nobody can take a run that is half
    removed for one.
    """
    for name, path in sorted(contents(run), key=lambda each: each[0] != "recipe.yaml"):
        if name != ".lock" and is_ours(name, path):
            storage.remove_own(path)


def is_unfinished(name: str) -> bool:
    """Whether a file or folder is one that `storage.py` had not finished when a crash came, by its name."""
    return _DECORATED.fullmatch(name) is not None


def check_real(folder: Path, place: str = "") -> None:
    """The gate before anything is written: below a run folder nothing of ours may lead elsewhere.

    A stranger's run may have a link at a name that is about to be written, or a second name of another's file.

    Args:
        folder: a run folder, or one that is in a run; it may be a link itself, as its user has named it.
        place: the name of the folder in a run.

    Raises:
        CannotCreate: something has one of our names and is no file or folder of its own.
    """
    for name, path in _known(folder, place):
        if (what := regular.odd(path)) is not None:
            raise storage.CannotCreate(
                f"{printable(str(path))} is {what}, and barlow writes to files and folders of the run alone: put what "
                "it stands for in its place, or use another --out"
            )
        if CHANGED_IN_PLACE.fullmatch(name) and regular.names_of(path) > 1:
            raise storage.CannotCreate(
                f"{printable(str(path))} has a second name elsewhere (a hard link), and both would be changed: put a "
                "copy in its place, or use another --out"
            )


def _known(folder: Path, place: str) -> Iterator[tuple[str, Path]]:
    """What has one of our names, whatever it is. Folders that are not ours are not entered."""
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise storage.CannotCreate(f"cannot look into {printable(str(folder))}: {error.strerror}") from error
    for each in names:
        name, path = f"{place}/{each}" if place else each, folder / each
        is_folder = FOLDERS.fullmatch(plain := _plain(name)) is not None
        if is_folder or FILES.fullmatch(plain):
            yield name, path
        if is_folder and path.is_dir() and not path.is_symlink():
            yield from _known(path, name)


def remove_tree(path: Path, name: str, say: Say = silent) -> bool:
    """Removes a folder with all that is in it, if all of it is ours; otherwise all of it stays.

    Args:
        path: the folder.
        name: its name from the run folder on.
        say: told what is not ours, if anything is.

    Returns:
        Whether it is gone.

    Raises:
        StorageError: it cannot be removed.
    """
    if not is_ours(name, path):
        return False
    if not_ours := [inside for inside, each in contents(path) if not is_ours(f"{name}/{inside}", each)]:
        say(f"{printable(str(path))} stays: {printable(not_ours[0])!r} in it is not barlow's. Move that elsewhere")
        return False
    if is_unfinished(path.name):
        shutil.rmtree(path, ignore_errors=True)
    else:
        storage.remove_folder(path)
    return True


def remove_leftovers(folder: Path, place: str = "", older_than_seconds: float = 0.0, say: Say = silent) -> None:
    """Removes our own unfinished folders and files from a crash. What only looks like one stays.

    Args:
        folder: where to look; not in its sub-folders.
        place: the name of the folder in a run.
        older_than_seconds: younger ones stay, where another process may be about to finish them.
        say: told of folders that have one of our names and hold something else.
    """
    if not folder.is_dir():
        return
    for leftover in folder.iterdir():
        name = f"{place}/{leftover.name}" if place else leftover.name
        if not (is_unfinished(leftover.name) and is_ours(name, leftover)):
            continue
        with contextlib.suppress(FileNotFoundError):  # another process has finished it just now
            if time.time() - leftover.lstat().st_mtime < older_than_seconds:
                continue
            if leftover.is_dir():
                remove_tree(leftover, name, say)
            else:
                leftover.unlink()


def _plain(name: str) -> str:
    """A path's name, with each part as it was about to be called."""
    return "/".join(_undecorated(part) for part in name.split("/"))


def _undecorated(part: str) -> str:
    """The name that an unfinished file or folder was about to get."""
    decorated = _DECORATED.fullmatch(part)
    return part if decorated is None else decorated["folder"] or decorated["file"]
