"""Images that a table lists, in the order of the table."""

import csv
import os
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from barlow import limits
from barlow.data import decoding, image_digests
from barlow.data.counting import Counted, not_shown, over
from barlow.data.decoding import ValueRange
from barlow.data.folder import LISTED, FolderSource
from barlow.exits import NoInput, UnusableData
from barlow.printable import one_line, printable

ONE, SEVERAL = ("path", "label"), ("path", "labels")
"""The columns of a CSV file: of one class each, or of any number of labels with a semicolon between them."""

FORMS = "its first line is path,label (one class each) or path,labels (any number, with ; between them)"


class ListedFiles(FolderSource):
    """Files below a folder that somebody has listed, with their labels. They are read as those of a folder are.

    Args:
        name: what messages call the set.
        root: the folder that the paths start from.
        paths: of the images, relative to it.
        labels: (N,) class numbers, or (N, k) what is known of each label; None if nothing is.
        classes: the names of the classes or labels; None without labels.
        channels, max_pixels, value_range, counted: as for `FolderSource`.

    Raises:
        NoInput: nothing is listed, or files are not there.
        UnusableData: a path leads out of the folder, or is there twice.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        paths: Sequence[str],
        labels: np.ndarray | None,
        classes: list[str] | None,
        *,
        channels: int = 3,
        max_pixels: int = decoding.MAX_PIXELS,
        value_range: ValueRange | None = None,
        counted: Counted = not_shown,
    ) -> None:
        self.name = printable(name)
        self.channels, self.max_pixels, self.value_range = channels, max_pixels, value_range
        self.notes = {}
        self._roots = [os.fsencode(root)]
        encoded = [os.fsencode(path) for path in paths]
        self._bytes = np.array(_sizes(self.name, root, paths, counted), np.int64)
        self._paths = b"".join(encoded)
        self._ends = np.cumsum([len(path) for path in encoded])
        self._root_of = np.zeros(len(paths), np.int32)
        self.digests = image_digests.none_yet(len(paths))
        self.labels, self.classes = labels, classes


def _sizes(name: str, root: Path, paths: Sequence[str], counted: Counted) -> list[int]:
    if not paths:
        raise NoInput(f"{name} lists no images")
    if odd := next((path for path in paths if os.path.isabs(path) or ".." in Path(path).parts or not path), None):
        raise UnusableData(
            f"{name} lists {printable(odd)!r}: give paths below {printable(root)}, relative to it, without '..'"
        )
    if len(set(paths)) < len(paths):
        twice = Counter(paths).most_common(1)[0][0]
        raise UnusableData(f"{name} lists {printable(twice)} twice: list every image once, with all of its labels")
    sizes, missing = [], []
    for path in over(paths, LISTED, len(paths), counted):
        try:
            found = os.stat(root / path)
            sizes.append(found.st_size)
            if not stat.S_ISREG(found.st_mode):
                missing.append(path)
        except (OSError, ValueError):
            missing.append(path)
    if missing:
        raise NoInput(
            f"{len(missing)} of {len(paths)} images that {name} lists are not there, such as {printable(missing[0])} "
            f"in {printable(root)}"
        )
    return sizes


def read_rows(file: Path, form: str) -> list[list[str]]:
    """The rows of a CSV file that lists images, without empty ones.

    Args:
        file: in UTF-8.
        form: what it should look like, for messages.

    Raises:
        TooLarge: it is far too long.
        UnusableData: it is no CSV file.
    """
    shown = printable(file)
    limits.check_length(file)
    if (length := file.stat().st_size) > limits.CSV_BYTES:
        raise limits.TooLarge(f"{shown} has {length:,} bytes, and a list of images at most {limits.CSV_BYTES:,}")
    try:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            return [row for row in csv.reader(opened, strict=True) if row]
    except UnicodeDecodeError as error:
        raise UnusableData(
            f"{shown} is not UTF-8 (byte {error.start:,} is no part of a letter); save it as UTF-8"
        ) from error
    except (OSError, csv.Error) as error:
        raise UnusableData(f"{shown} cannot be read as a CSV file ({one_line(error)}); {form}") from error


def read_csv(
    file: Path,
    *,
    channels: int = 3,
    max_pixels: int = decoding.MAX_PIXELS,
    value_range: ValueRange | None = None,
    counted: Counted = not_shown,
) -> ListedFiles:
    """The images that a CSV file lists, with paths relative to its folder.

    With the columns path and label an image has one class. With path and labels it has any number, also none, with a
    semicolon between them. Classes are in alphabetical order.

    Raises:
        NoInput: there are no images in it, or they are not there.
        UnusableData: it is not in this form, and the message names the row; or it asks for more than there is.
    """
    shown = printable(file)
    rows = read_rows(file, FORMS)
    header = tuple(word.strip().lower() for word in rows[0]) if rows else ()
    if header not in (ONE, SEVERAL):
        raise UnusableData(f"{shown} begins with {printable(','.join(header))[:80]!r}; {FORMS}")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 2:
            raise UnusableData(f"row {number} of {shown} has {len(row)} columns in place of 2; {FORMS}")
        if header == ONE and not row[1].strip():
            raise UnusableData(f"row {number} of {shown} has no label; images without labels need path,labels")
    paths = [row[0].strip() for row in rows[1:]]
    given = [[word.strip() for word in (row[1].split(";") if header == SEVERAL else [row[1]])] for row in rows[1:]]
    classes = sorted({word for words in given for word in words if word})
    number_of = {name: k for k, name in enumerate(classes)}
    if header == ONE:
        labels = np.array([number_of[words[0]] for words in given], np.int64)
    else:
        if len(paths) * len(classes) > limits.LABELS:
            raise limits.TooLarge(
                f"{shown} has {len(classes):,} labels for {len(paths):,} images: are they labels, and separated by ';'?"
            )
        labels = np.zeros((len(paths), len(classes)), np.int8)
        for row, words in zip(labels, given, strict=True):
            row[[number_of[word] for word in words if word]] = 1
    return ListedFiles(
        str(file),
        file.parent,
        paths,
        labels,
        classes,
        channels=channels,
        max_pixels=max_pixels,
        value_range=value_range,
        counted=counted,
    )
