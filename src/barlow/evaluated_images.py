"""Which labelled images an encoder is measured with, how they are read, and what is odd about them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote as quoted

from barlow import storage, tables
from barlow.data import image_digests, oddities
from barlow.data.counting import Counted
from barlow.data.folder import EMPTY
from barlow.data.inventory import TooManyUnreadable
from barlow.data.labelled import LabelledSet, read_labelled
from barlow.data.sources import FoldersOrName, ImageSource, missing_set, named_set
from barlow.encoders import FoundEncoder
from barlow.nets.preprocessing import Preprocessing
from barlow.printable import one_line, printable
from barlow.probes import leaks
from barlow.probes.measuring import Images
from barlow.runs.run import load_recipe_text
from barlow.wording import many

NAMED = 3
"""So many test images that are in training are named."""

Sets = tuple[FoldersOrName, FoldersOrName]
"""Training and test images, as a user names them."""


def _sources(run: Path) -> list[str]:
    path = run / "recipe.yaml"
    sources: list[str] = tables.checked(load_recipe_text(path), path)["data"]["sources"]
    return sources


def own_set(run: str | os.PathLike[str]) -> str | None:
    """The name of the labelled set that a run was trained on; None for folders, whose labels nobody has told."""
    sources = _sources(Path(run))
    return named_set(str(sources[0])) if len(sources) == 1 else None


def own_sets(encoders: Sequence[FoundEncoder], train: FoldersOrName | None, test: FoldersOrName | None) -> Sets:
    """The sets that are named; where one is not, the runs' own, if it is the same for all and has labels.

    Raises:
        ValueError: there is none.
    """
    if train is not None and test is not None:
        return train, test
    missing = " and ".join(flag for flag, given in (("--train", train), ("--test", test)) if given is None)
    for each in encoders:
        if each.run is None:
            raise ValueError(
                f"{missing} not given, and {each.name} is no run, which may have images of its own: give two folders "
                "with a sub-folder of images for each class, or a named set"
            )
        if own_set(each.run) is None:
            raise ValueError(
                f"{missing} not given: the run's images ({', '.join(map(str, _sources(each.run)))}) have no labels of "
                "their own; give two folders with a sub-folder of images for each class"
            )
    names = dict.fromkeys(own_set(each.run) for each in encoders if each.run is not None)
    if len(names) > 1:
        raise ValueError(f"{missing} not given, and the runs' own images differ ({', '.join(map(str, names))})")
    (name,) = names
    assert name is not None
    if missing_set(name):
        raise ValueError(
            f"the run's own images are {name}, which is not here and would be downloaded: name it yourself to ask for "
            f"it (--train {name}:train --test {name}:test), or give folders"
        )
    return train or f"{name}:train", test or f"{name}:test"


def read_images(
    sets: tuple[FoldersOrName | ImageSource, FoldersOrName | ImageSource],
    expected: Preprocessing,
    max_bad: float,
    home: Path,
    counted: Counted,
) -> Images:
    """The training and the test images as an encoder expects them, with the class numbers of the training images."""
    try:
        train, test = (
            read_labelled(given, split, expected, max_bad, counted)
            for given, split in zip(sets, ("train", "test"), strict=True)
        )
    except TooManyUnreadable as error:
        path = home / "skipped.json"
        storage.write_json(path, error.report)
        raise TooManyUnreadable(f"{error}. All of them are listed in {path}", error.report) from None
    return Images(train, test.numbered_like(train))


def _seen_in_pretraining(test: image_digests.Digests, run: Path) -> str | None:
    """A line if test images are among those that a run was trained on, or if nobody can tell; a run of the first
    release kept no list of them."""
    try:
        digests = image_digests.from_json(storage.read_sealed(run / "images.json"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return f"{one_line(error)}: whether test images were pretrained on is not known"
    return leaks.seen_in_pretraining(test, digests)


def _in_both(images: Images, sets: Sets | None) -> str | None:
    """A line if test images are training images too: how many, which, and what lists them all."""
    train, test = images.train, images.test
    found = leaks.overlap(train.hashes, test.hashes)
    if found.warning is None or len(found.shared) == found.test:
        return found.warning
    pairs = [
        f"{_place(test, one)} and {_place(train, other)}"
        for one, other in zip(found.shared[:NAMED], found.twins[:NAMED], strict=True)
    ]
    more = f", and {len(found.shared) - NAMED:,} more" if len(found.shared) > NAMED else ""
    line = f"{found.warning}. Test and training image: {', '.join(pairs)}{more}"
    if sets is None:
        return line
    one, other = (" ".join(map(quoted, each)) for each in map(_words, sets))
    return f"{line}; `barlow duplicates {one} --against {other}` lists them"


def _place(images: LabelledSet, position: int) -> str:
    return printable(images.source.locate(int(images.ids[position])))


def _words(images: FoldersOrName) -> list[str]:
    return [printable(os.fspath(each)) for each in ([images] if isinstance(images, str | os.PathLike) else images)]


def oddities_of(images: Images, run: Path | None, sets: Sets | None) -> Iterator[str]:
    """What makes the numbers say less than they seem to: a line for each thing that is odd about the images.

    Args:
        images: of the evaluation.
        run: the run folder of the encoder, if it is of a run.
        sets: the images as the user named them, where `barlow duplicates` takes them.
    """
    train, test = images.train, images.test
    for note in (train.skipped_note, test.skipped_note, _in_both(images, sets)):
        if note:
            yield note
    if run is not None and (seen := _seen_in_pretraining(test.digests, run)):
        yield seen
    for part, name in ((train, "train"), (test, "test")):
        if empty := getattr(part.source, "notes", {}).get(EMPTY):
            yield f"--{name} {part.source.name} has no images in {oddities.names(empty)}"
    if missing := leaks.missing_classes(test.labels, train.classes):
        yield missing
    if unseen := leaks.unseen_classes(train.labels, test.labels):
        classes = many(len(unseen), "class of the test images has", "classes of the test images have")
        yield f"{classes} no training image; those count as errors"
