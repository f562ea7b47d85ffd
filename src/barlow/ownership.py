"""Which paths in a run folder are barlow's. Only those are ever removed, and only where all of them are.

A path is ours by its whole name, from the run folder down: `checkpoints/step-000123/state.json`, and not
`checkpoints/best.ckpt`. A link is never ours, as what it leads to is not.
"""

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from barlow import storage

_TENSORS = r"model\.safetensors|config\.json"
_STEP = r"step-\d{6,}(\.bad)?"
FILES = re.compile(
    r"recipe\.yaml|run\.json|environment\.json|data\.json|images\.json|views\.png|metrics\.jsonl(\.bad)?|\.lock|(evaluation/)?\.write-test"
    r"|hang(-\d+)?\.txt"
    rf"|checkpoints/{_STEP}/(tensors\.safetensors|state\.json|MANIFEST\.json)"
    rf"|(start|encoder)/({_TENSORS})"
    r"|evaluation/(skipped\.json|results[\w.-]*\.json|history\.jsonl)"
    r"|evaluation/features/[0-9a-f]{32}\.safetensors"
)
"""What a run writes. `environment.json` is of runs of the first release."""

FOLDERS = re.compile(rf"checkpoints(/{_STEP})?|start|encoder|evaluation(/features)?")

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
    plain = "/".join(_undecorated(part) for part in name.split("/"))
    return (FOLDERS if path.is_dir() else FILES).fullmatch(plain) is not None


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


def remove_leftovers(folder: Path, older_than_seconds: float = 0.0) -> None:
    """Removes our own unfinished folders and files from a crash.

    Args:
        folder: where to look; not in its sub-folders.
        older_than_seconds: younger ones stay, where another process may be about to finish them.
    """
    if not folder.is_dir():
        return
    for leftover in folder.iterdir():
        if not is_unfinished(leftover.name) or time.time() - leftover.lstat().st_mtime < older_than_seconds:
            continue
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _undecorated(part: str) -> str:
    """The name that an unfinished file or folder was about to get."""
    decorated = _DECORATED.fullmatch(part)
    return part if decorated is None else decorated["folder"] or decorated["file"]
