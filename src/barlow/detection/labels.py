"""What is on an annotated image, without where: boxes become labels, any number an image."""

import os
from pathlib import Path

import numpy as np

from barlow.data.listed import ListedFiles
from barlow.data.sources import FoldersOrName, ImageSource, named_set
from barlow.detection.annotations import AnnotatedSet
from barlow.detection.sets import path_and_split, read_annotated
from barlow.detection.voc import is_voc
from barlow.exits import UnusableData
from barlow.nets.preprocessing import Preprocessing
from barlow.probes.average_precision import UNJUDGED


def is_annotated(images: FoldersOrName) -> bool:
    """Whether a user named a set in VOC's form (`FOLDER` or `FOLDER:SPLIT`) or COCO's (a JSON file)."""
    if not isinstance(images, str | os.PathLike):
        if len(images) != 1:
            return False
        images = images[0]
    if named_set(os.fspath(images)):
        return False
    path, _ = path_and_split(os.fspath(images))
    return is_voc(path) or (path.suffix.lower() == ".json" and path.is_file())


def as_labelled(images: FoldersOrName, split: str, preprocessing: Preprocessing) -> FoldersOrName | ImageSource:
    """What `read_labelled` takes: annotated images as a source with what is on them, anything else as it is.

    Labels are (N, k) ones and zeros.

    Convention: as in VOC's lists of images, a class of which all objects are difficult is `UNJUDGED`. COCO's crowds are
    there like other objects.

    Raises:
        NoInput: there is no such split, or files are not there.
        UnusableData: as `read_annotated`.
    """
    if not is_annotated(images):
        return images
    place = images if isinstance(images, str | os.PathLike) else images[0]
    found = read_annotated(place, split)
    files = [picture for picture in found.pictures if isinstance(picture, Path)]
    if len(files) < len(found):
        raise UnusableData(f"{found.name} has no files; use shapes_multi, which has several labels an image")
    root = Path(os.path.commonpath([os.path.dirname(file) for file in files]))
    return ListedFiles(
        os.fspath(place),
        root,
        [os.path.relpath(file, root) for file in files],
        presence(found),
        found.classes,
        channels=preprocessing.channels,
        value_range=preprocessing.value_range,
    )


def presence(found: AnnotatedSet) -> np.ndarray:
    """Which classes are on each image, (N, k)."""
    labels = np.zeros((len(found), len(found.classes)), np.int8)
    for row, image in zip(labels, found.images, strict=True):
        certain = np.ones(len(image.labels), bool) if found.form == "coco" else ~image.ignored
        row[image.labels] = UNJUDGED
        row[image.labels[certain]] = 1
    return labels
