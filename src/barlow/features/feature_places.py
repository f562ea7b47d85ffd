"""Where `barlow embed` writes: the file itself, what belongs to it beside it, and the parts: looked at beforehand.

Of what has one of these names and is a user's, nothing is replaced or removed.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from barlow import regular, storage
from barlow.output_file import check_apart, check_place
from barlow.printable import printable

COLUMNS = ("id", "path", "label")
"""Of the index of a `.npy`."""


def index_path(path: Path) -> Path:
    """Where the rows of a `.npy` are told: `features.csv` beside `features.npy`."""
    return path.with_suffix(".csv")


def skipped_path(path: Path) -> Path:
    """Where the images are told that have no row: `features.npy.skipped.json`."""
    return path.with_name(f"{path.name}.skipped.json")


def companions(path: Path) -> list[Path]:
    """What is written beside a file of features."""
    return [*([index_path(path)] if path.suffix == ".npy" else []), skipped_path(path)]


def parts_path(path: Path) -> Path:
    """Where features are collected until the file is there."""
    return path.with_name(f"{path.name}.parts")


def check_before(path: Path, images: Iterable[str | os.PathLike[str]], overwrite: bool) -> None:
    """Looks at all places that a command would write to, before it reads anything.

    Files of a command that was killed, whose parts are still there, are looked at again when it is known what is
    missing of these (`check_free`).

    Raises:
        ValueError: the name is a folder's, or among the images.
        CannotCreate: something is there, or nothing can be written.
    """
    if path.is_dir():
        raise ValueError(
            f"--out {printable(path)} is a folder; name a file, such as {printable(path / 'features.npy')}"
        )
    check_apart(path, "--out", images)
    for beside, ours in ((index_path(path), _is_index), (skipped_path(path), _is_list_of_skipped)):
        if beside in companions(path) and os.path.lexists(beside) and not ours(beside):
            raise storage.CannotCreate(
                f"--out {printable(path)} would replace {printable(beside)}, which barlow embed has not written: move "
                "that, or use another name"
            )
    if not os.path.lexists(parts_path(path)):
        check_free(path, overwrite)
        check_place(path)


def check_free(path: Path, overwrite: bool) -> None:
    """Refuses a file that is there, and an index, unless they are to be replaced.

    Raises:
        CannotCreate: one is there.
    """
    for each in (path, *companions(path)[:-1]):  # of a list of skipped images nothing is lost
        if os.path.lexists(each) and not overwrite:
            raise storage.CannotCreate(
                f"--out {printable(path)}: {printable(each)} exists: use --overwrite to replace it, or another name"
                if each != path
                else f"--out {printable(path)} exists: use --overwrite to replace it, or another name"
            )


def _is_index(path: Path) -> bool:
    """Whether a file begins as the index of a `.npy` does."""
    head = ",".join(COLUMNS).encode() + b"\n"
    try:
        with open(path, "rb", opener=regular.to_read) as file:
            return file.read(len(head)) == head
    except OSError:
        return False


def _is_list_of_skipped(path: Path) -> bool:
    try:
        rows = storage.read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(rows, list) and all(isinstance(row, dict) and row.keys() == _OF_SKIPPED for row in rows)


_OF_SKIPPED = {"id", "where", "reason"}
