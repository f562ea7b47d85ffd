"""A file that a command is to write: looked at before its work, which may take hours, and in one way for all commands.

A user's file is never replaced unasked, and nothing is written among the images.
"""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from barlow import storage
from barlow.printable import printable


def checked_output(
    given: str | os.PathLike[str],
    flag: str,
    *,
    endings: Sequence[str],
    overwrite: bool = False,
    images: Iterable[str | os.PathLike[str]] = (),
) -> Path:
    """The file that a flag names, when it is certain that it may be written, as far as one can know beforehand.

    Nothing is made: where a folder is missing, the nearest one that is there is looked at.

    Args:
        given: the name.
        flag: as it is typed, for messages: `--sheet`.
        endings: what the name may end in, each with its dot; the first is the one that messages suggest.
        overwrite: whether a file that is there is replaced.
        images: folders of images, in which nothing is written. What is no folder is passed over.

    Raises:
        ValueError: the name ends in something else, is a folder's, or is below a folder of images.
        CannotCreate: a file is there, or nothing can be written there.

    Example:
        >>> checked_output("photos/cat.jpg", "--csv", endings=[".csv"])
        Traceback (most recent call last):
        ValueError: --csv photos/cat.jpg: give a file that ends in .csv
    """
    path, named = Path(given), f"{flag} {printable(given)}"
    if path.is_dir():
        raise ValueError(f"{named} is a folder; name a file, such as {printable(path / ('found' + endings[0]))}")
    if path.suffix not in endings:
        raise ValueError(f"{named}: give a file that ends in {', '.join(endings)}")
    check_apart(path, flag, images)
    if os.path.lexists(path) and not overwrite:
        raise storage.CannotCreate(f"{named} exists: use --overwrite to replace it, or another name")
    check_place(path)
    return path


def csv_line(cells: Sequence[object]) -> str:
    """A row of a table. Where a cell has a line break or another control character, as names of files may, all are in
    quotes: `csv` itself leaves a carriage return bare, and then reads it as the end of the row.

    Example:
        >>> csv_line([1, "two\\rlines.png"])
        '"1","two\\rlines.png"\\n'
    """
    line, odd = io.StringIO(), any(not str(cell).isprintable() for cell in cells)
    csv.writer(line, lineterminator="\n", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL).writerow(cells)
    return line.getvalue()


def check_apart(path: Path, flag: str, images: Iterable[str | os.PathLike[str]]) -> None:
    """Refuses a file that would lie among images.

    Raises:
        ValueError: it is below one of these folders.
    """
    place = path.resolve()
    for folder in [os.fspath(each) for each in images]:
        if os.path.isdir(folder) and place.is_relative_to(Path(folder).resolve()):
            raise ValueError(
                f"{flag} {printable(path)} would be among the images of {printable(folder)}: name a file elsewhere"
            )


def check_place(path: Path) -> None:
    """Tries whether a file could be written; its folder may still be missing.

    Raises:
        CannotCreate: it could not.
    """
    folder = path.absolute().parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    storage.check_writable(folder)
