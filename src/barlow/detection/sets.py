"""How a user says which annotated images: `FOLDER:SPLIT` of VOC's form, a JSON file of COCO's, or `shapes_boxes`.

Several of one form are one set: the papers' VOC07+12 is `VOC2007:trainval` and `VOC2012:trainval`.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from barlow.detection import generated
from barlow.detection.annotations import AnnotatedSet
from barlow.detection.coco import read_coco
from barlow.detection.voc import is_voc, read_voc, splits
from barlow.exits import NoInput, UnusableData
from barlow.printable import printable

Places = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""How a user names annotated images: one place, or several, whose images are one set."""

FORMS_CALLED = {"voc": "VOC's form", "coco": "COCO's form", "generated": "the generated form"}


def places_of(given: Places) -> list[str | os.PathLike[str]]:
    """The places one by one."""
    return [given] if isinstance(given, str | os.PathLike) else list(given)


def lasting(given: Places) -> list[str]:
    """The places as whoever reads them again from elsewhere can find them."""
    named = [os.fspath(place) for place in places_of(given)]
    return [name if name.partition(":")[0] == generated.NAME else os.path.abspath(name) for name in named]


def read_annotated(given: Places, split: str) -> AnnotatedSet:
    """The annotated images that a user named, of one place or of several.

    Args:
        given: a folder of VOC's form (`VOC2007:trainval`), a JSON file of COCO's, or `shapes_boxes`; or a list of them,
            see `joined`.
        split: which split of `shapes_boxes`, where the name does not say it: "train" or "test".

    Raises:
        NoInput: there is no such thing, or no split of this name.
        UnusableData: it is there and cannot be used.
    """
    if not (places := places_of(given)):
        raise NoInput(f"no images are named; {FORMS}")
    return joined([_of_one_place(place, split) for place in places])


def joined(sets: Sequence[AnnotatedSet]) -> AnnotatedSet:
    """The images of several sets as one, those of the first set first.

    Convention: a class is known by its name. The classes are those of all sets, in the order in which the sets have
    them. There are masks if every set has them.

    Raises:
        UnusableData: the sets have different forms, and so different rules for average precision and for objects that
            do not count; or an image is in two of them.
    """
    first, *others = sets
    if not others:
        return first
    if other := next((each for each in others if each.form != first.form), None):
        raise UnusableData(
            f"{first.name} has {FORMS_CALLED[first.form]} and {other.name} {FORMS_CALLED[other.form]}: only sets of "
            "one form can be one set"
        )
    times = Counter(origin for each in sets for origin in set(each.origins))
    if twice := sum(count > 1 for count in times.values()):
        names = ", ".join(each.name for each in sets)
        raise UnusableData(f"{twice:,} images are in more than one of {names}: name each image once")
    classes = list(dict.fromkeys(name for each in sets for name in each.classes))
    return AnnotatedSet(
        " + ".join(each.name for each in sets),
        first.form,
        classes,
        [image for each in sets for image in each.with_classes(classes).images],
        [picture for each in sets for picture in each.pictures],
        [f"{note} (of {each.name})" for each in sets for note in each.notes],
    )


def _of_one_place(place: str | os.PathLike[str], split: str) -> AnnotatedSet:
    name = printable(os.fspath(place))
    chosen, _, own = os.fspath(place).partition(":")
    if chosen == generated.NAME:
        if (own or split) not in generated.SPLITS:
            raise NoInput(f"{generated.NAME} has no split {own!r}; it has: {', '.join(generated.SPLITS)}")
        return generated.shapes_boxes(own or split)
    path, own_split = path_and_split(os.fspath(place))
    if path.suffix.lower() == ".json" or path.is_file():
        return read_coco(path, name)
    if not path.is_dir():
        raise NoInput(f"there is no folder or file {name}; {FORMS}")
    if not is_voc(path):
        raise UnusableData(f"{name} has no folder Annotations; {FORMS}")
    if own_split is None and (there := splits(path)):
        raise NoInput(f"{name} has splits ({', '.join(there)}): name one, as in {name}:{there[0]}")
    return read_voc(path, own_split, name)


FORMS = (
    "detection takes a folder of VOC's form (FOLDER:SPLIT, with Annotations, JPEGImages and ImageSets/Main), a JSON "
    f"file of COCO's, or {generated.NAME}"
)


def path_and_split(place: str) -> tuple[Path, str | None]:
    """`FOLDER:SPLIT`, unless there is a path of the whole name."""
    folder, colon, split = place.rpartition(":")
    if colon and split and not Path(place).exists() and Path(folder).is_dir():
        return Path(folder), split
    return Path(place), None
