"""Images with captions, which a CSV file lists: a line for each caption, any number of an image."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from barlow.data import decoding
from barlow.data.counting import Counted, not_shown, over
from barlow.data.decoding import ValueRange
from barlow.data.folder import IMAGE_EXTENSIONS, LISTED
from barlow.data.listed import ListedFiles, read_rows
from barlow.data.vocabulary import words_of
from barlow.exits import NoInput, UnusableData
from barlow.printable import printable

COLUMNS = ("image", "caption")
"""Of the CSV file."""

ENDINGS = (".csv", ".txt")
"""Of its name."""

BESIDE = ("", "images", "Images")
"""Where the images are that it names: beside it, or in a folder of this name beside it."""

LONELY, WORDLESS, UNCAPTIONED = "captions without an image", "captions without a word", "images without a caption"
"""Names of notes, each with a number."""

FORM = "a list of captions begins with image,caption and has a line for each caption, in quotes where it has a comma"


class CaptionedFiles(ListedFiles):
    """Image files and their captions, in the order of the images' paths.

    Args:
        name: what messages call the set.
        root: the folder that the paths start from.
        captions: by the path of an image, relative to the folder; of each image one or more.
        channels, max_pixels, value_range, counted: as for `FolderSource`.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        captions: dict[str, list[str]],
        *,
        channels: int = 3,
        max_pixels: int = decoding.MAX_PIXELS,
        value_range: ValueRange | None = None,
        counted: Counted = not_shown,
    ) -> None:
        paths = sorted(captions, key=os.fsencode)
        super().__init__(
            name,
            root,
            paths,
            None,
            None,
            channels=channels,
            max_pixels=max_pixels,
            value_range=value_range,
            counted=counted,
        )
        self.captions: Sequence[Sequence[str]] = [captions[path] for path in paths]


def lists_captions(file: Path) -> bool:
    """Whether a file is a list of captions, by its name and its first line."""
    if file.suffix.lower() not in ENDINGS or not file.is_file():
        return False
    with open(file, encoding="utf-8-sig", errors="replace", newline="") as opened:
        first = opened.readline(1_000)
    try:
        return tuple(word.strip().lower() for word in next(csv.reader([first]), [])) == COLUMNS
    except csv.Error:
        return False


def read_captions(
    file: Path,
    *,
    channels: int = 3,
    max_pixels: int = decoding.MAX_PIXELS,
    value_range: ValueRange | None = None,
    counted: Counted = not_shown,
) -> CaptionedFiles:
    """The images that a list of captions names, with their captions.

    Its columns are image and caption. An image has as many captions as it has lines, in their order. Paths start from
    the list's own folder, or from a folder `images` beside it. Captions of images that are not there are left out, and
    so are captions without a word, and images of the same folders of which the list says nothing. How many they are is
    in `notes`.

    Raises:
        NoInput: none of the images is there.
        UnusableData: it is not in this form, and the message names the row.
    """
    shown = printable(file)
    rows = read_rows(file, FORM)
    captions: dict[str, list[str]] = {}
    wordless = 0
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(COLUMNS):
            raise UnusableData(f"row {number} of {shown} has {len(row)} columns in place of 2: {FORM}")
        path, caption = row[0].strip(), row[1].strip()
        if not path:
            raise UnusableData(f"row {number} of {shown} names no image: {FORM}")
        wordless += not words_of(caption)
        captions.setdefault(path, []).extend([caption] if words_of(caption) else [])
    root, there = _where(file, captions, counted)
    if not there:
        example = f", such as {printable(next(iter(captions)))}" if captions else ""
        raise NoInput(
            f"{shown} names {len(captions)} images, and none of them is there{example}: their paths start from the "
            "list's own folder, or from a folder `images` beside it"
        )
    with_words = {path: captions[path] for path in there if captions[path]}
    if not with_words:
        raise UnusableData(f"{shown} has no caption with a word of letters or digits: {FORM}")
    source = CaptionedFiles(
        str(file),
        root,
        with_words,
        channels=channels,
        max_pixels=max_pixels,
        value_range=value_range,
        counted=counted,
    )
    notes = {
        LONELY: sum(len(of_image) for path, of_image in captions.items() if path not in there),
        WORDLESS: wordless,
        UNCAPTIONED: len(_images_beside(root, there) - with_words.keys()),
    }
    source.notes = {name: count for name, count in notes.items() if count}
    return source


def _where(file: Path, captions: dict[str, list[str]], counted: Counted) -> tuple[Path, set[str]]:
    """The folder from which most of the paths lead to a file, and these paths."""
    inside = [path for path in captions if not os.path.isabs(path) and ".." not in Path(path).parts]
    if outside := captions.keys() - set(inside):
        raise UnusableData(
            f"{printable(file)} names {printable(min(outside))}: give paths below the list's folder, without '..'"
        )
    best: tuple[Path, set[str]] = (file.parent, set())
    for name in BESIDE:
        root = file.parent / name
        there = {path for path in over(inside, LISTED, len(inside), counted) if _is_file(root / path)}
        if len(there) > len(best[1]):
            best = root, there
        if len(there) == len(captions):
            break
    return best


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _images_beside(root: Path, there: set[str]) -> set[str]:
    """The image files of the folders that the listed ones lie in, by their paths from the root."""
    found = set()
    for folder in {os.path.dirname(path) for path in there}:
        names = os.listdir(root / folder)
        images = (name for name in names if name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS and name[0] != ".")
        found |= {os.path.join(folder, name) for name in images}
    return found


def lines(source: object) -> list[str]:
    """A line for each thing that is odd about the captions of a source; none for a source without captions."""
    notes = getattr(source, "notes", {})
    said = {
        LONELY: "whose images are not there are left out",
        WORDLESS: "have no word, and are left out",
    }
    found = [f"captions {notes[name]:,} {words}" for name, words in said.items() if notes.get(name)]
    if count := notes.get(UNCAPTIONED):
        found.append(f"captions {count:,} images beside those that are listed have none, and are left out")
    return found


def counts(captions: Sequence[Sequence[str]]) -> tuple[int, float]:
    """How many captions there are, and how many words one has in the mean."""
    lengths = np.array([len(words_of(caption)) for of_image in captions for caption in of_image])
    return len(lengths), float(lengths.mean())
