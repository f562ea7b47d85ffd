"""How a user says which annotated images: `FOLDER:SPLIT` of VOC's form, a JSON file of COCO's, or `shapes_boxes`."""

import os
from pathlib import Path

from barlow.detection import generated
from barlow.detection.annotations import AnnotatedSet
from barlow.detection.coco import read_coco
from barlow.detection.voc import is_voc, read_voc, splits
from barlow.exits import NoInput, UnusableData
from barlow.printable import printable


def read_annotated(place: str | os.PathLike[str], split: str) -> AnnotatedSet:
    """The annotated images that a user named.

    Args:
        place: a folder of VOC's form (`VOC2007:trainval`), a JSON file of COCO's, or `shapes_boxes`.
        split: which split of `shapes_boxes`, where the name does not say it: "train" or "test".

    Raises:
        NoInput: there is no such thing, or no split of this name.
        UnusableData: it is there and cannot be used.
    """
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
