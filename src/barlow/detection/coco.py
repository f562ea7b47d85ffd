"""Sets in the form of COCO: one JSON file with `images`, `annotations` and `categories`, and the images near it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from barlow import storage
from barlow.detection import masks
from barlow.detection.annotations import AnnotatedSet, Objects, dropped_note, finite_numbers, refuse
from barlow.exits import NoInput, UnusableData
from barlow.printable import printable

MOST_PIXELS = 2**31
"""Of an image, as its file says; the decoder's own limit is far below."""


def read_coco(file: Path, name: str) -> AnnotatedSet:
    """The set of a file.

    Convention: a box is x, y, width, height from the image's edge on. Classes are in the order of their ids, whose
    numbers may have gaps. Crowds are ignored. There are masks if every object has a `segmentation`.

    Args:
        file: the JSON.
        name: what messages call the set.

    Raises:
        NoInput: there is no such file, no image in it, or its images are not found.
        UnusableData: it cannot be used. One line names the first faults.
    """
    try:
        content = storage.read_json(file)
    except FileNotFoundError:
        raise NoInput(f"there is no file {file}") from None
    tables: dict[str, Any] = content if isinstance(content, dict) else {}
    if not all(isinstance(tables.get(part), list) for part in ("images", "annotations", "categories")):
        raise UnusableData(f"{file} is not in COCO's form: it needs the lists images, annotations and categories")
    faults: list[str] = []
    names = _categories(tables["categories"], faults)
    objects = _images(tables["images"], faults)
    refuse(name, faults)  # what follows looks up both
    labels = {number: position for position, number in enumerate(sorted(names))}
    with_masks = bool(tables["annotations"]) and all(
        isinstance(a, dict) and a.get("segmentation") for a in tables["annotations"]
    )
    for row, annotation in enumerate(tables["annotations"]):
        if fault := _add(annotation, objects, labels, with_masks):
            faults.append(f"annotations[{row}] {fault}")
    refuse(name, faults)
    found = [objects[number] for number in sorted(objects)]
    if not found:
        raise NoInput(f"there are no images in {name}")
    root = _root(file, found[0].where)
    paths = [root / each.where for each in found]
    return AnnotatedSet(
        name,
        "coco",
        [names[number] for number in sorted(names)],
        [each.annotated(with_masks) for each in found],
        paths,
        dropped_note(found),
    )


def _categories(table: Any, faults: list[str]) -> dict[int, str]:
    names: dict[int, str] = {}
    for row, each in enumerate(table):
        if not isinstance(each, dict) or type(each.get("id")) is not int or not isinstance(each.get("name"), str):
            faults.append(f"categories[{row}] needs an integer id and a name")
        elif each["id"] in names or each["name"] in names.values():
            faults.append(f"categories[{row}] has the id or name of another")
        else:
            names[each["id"]] = each["name"]
    return names


def _images(table: Any, faults: list[str]) -> dict[int, Objects]:
    found: dict[int, Objects] = {}
    named: set[Path] = set()
    for row, each in enumerate(table):
        if not isinstance(each, dict) or type(each.get("id")) is not int or not isinstance(each.get("file_name"), str):
            faults.append(f"images[{row}] needs an integer id and a file_name")
            continue
        sides: tuple[Any, Any] = (each.get("height"), each.get("width"))
        if not all(type(side) is int and side > 0 for side in sides) or sides[0] * sides[1] > MOST_PIXELS:
            faults.append(f"images[{row}] needs height and width in pixels")
        elif each["id"] in found:
            faults.append(f"images[{row}] has the id of another ({each['id']})")
        elif (path := Path(each["file_name"])).is_absolute() or ".." in path.parts or not path.parts:
            faults.append(f"images[{row}] has a file_name that leads elsewhere ({each['file_name']!r})")
        elif path in named:
            faults.append(f"images[{row}] lists {printable(each['file_name'])} twice: list every image once")
        else:
            named.add(path)
            found[each["id"]] = Objects(each["file_name"], (sides[0], sides[1]))
    return found


def _add(annotation: Any, images: Mapping[int, Objects], labels: Mapping[int, int], with_masks: bool) -> str | None:
    """Adds an object to its image; returns what is wrong with it otherwise."""
    if not isinstance(annotation, dict):
        return "is no table"
    image, category = (annotation.get(key) for key in ("image_id", "category_id"))
    if type(image) is not int or image not in images:
        return f"is of image {image!r}, which is not there"
    if type(category) is not int or category not in labels:
        return f"is of category {category!r}, which is not there"
    try:
        x, y, width, height = finite_numbers(annotation["bbox"])
        (area,) = finite_numbers([annotation.get("area", 0)])
    except (ValueError, TypeError, KeyError, OverflowError):
        return "has no bbox of four numbers (x, y, width, height)"
    objects = images[image]
    outline = annotation["segmentation"] if with_masks else None
    if outline is not None and (fault := masks.fault_of(outline, *objects.size)):
        return f"of {objects.where}: {fault}"
    crowd = annotation.get("iscrowd") not in (None, 0, False)
    objects.add((x, y, x + width, y + height), labels[category], ignored=crowd, area=area, outline=outline)
    return None


def _root(file: Path, first: str) -> Path:
    """The folder that the names of images start from, found by the first of them."""
    split = file.stem.removeprefix("instances_")
    above = file.parent.parent
    places = [file.parent, file.parent / "images", above / split, above / "images" / split, above / "images", above]
    for place in places:
        if (place / first).is_file():
            return place
    raise NoInput(
        f"the images of {file} are not found: {first} is in none of {', '.join(map(str, dict.fromkeys(places)))}"
    )
