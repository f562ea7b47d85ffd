"""Sets in the form of PASCAL VOC: `Annotations/*.xml`, `JPEGImages/*.jpg`, `ImageSets/Main/SPLIT.txt`."""

from pathlib import Path
from xml.etree import ElementTree

from barlow import limits
from barlow.data.decoding import UnreadableImage, read_header
from barlow.detection.annotations import (
    AnnotatedSet,
    Objects,
    dropped_note,
    finite_numbers,
    first_repeated,
    refuse,
)
from barlow.exits import NoInput, UnusableData
from barlow.printable import one_line, printable

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def splits(folder: Path) -> list[str]:
    """The names of a set's splits."""
    return sorted(path.stem for path in (folder / "ImageSets" / "Main").glob("*.txt") if "_" not in path.stem)


def is_voc(folder: Path) -> bool:
    """Whether a folder looks like such a set."""
    return (folder / "Annotations").is_dir()


def read_voc(folder: Path, split: str | None, name: str) -> AnnotatedSet:
    """The set of a folder, or a split of it.

    Convention: VOC counts pixels from one, and its corners are pixels that belong to the object. So a box reaches from
    xmin - 1 to xmax here, as in detectron2. Boxes are clipped to their image. The classes are those of the objects that
    are there, in alphabetical order.

    Deviation: a box whose corners are the same pixel, or the wrong way round, is dropped and told. By VOC's counting
    the first would be one pixel, but in real sets it is what a click leaves behind.

    Args:
        folder: which has `Annotations`.
        split: the name of a file in `ImageSets/Main`. None: all annotations.
        name: what messages call the set.

    Raises:
        NoInput: there is no such split, or there is nothing in it.
        UnusableData: files cannot be used. One line names the first of them.
    """
    files = [folder / "Annotations" / f"{stem}.xml" for stem in _stems(folder, split, name)]
    faults: list[str] = []
    found: list[tuple[Path, Objects, list[str]]] = []
    for file in files:
        try:
            found.append(_read(file, folder))
        except (ValueError, OSError, ElementTree.ParseError) as error:
            faults.append(f"{file.name}: {one_line(error)}")
    refuse(name, faults)
    paths = [path for path, _, _ in found]
    if (twice := first_repeated(paths)) is not None:
        both = [file.name for file, path in zip(files, paths, strict=True) if path == twice][:2]
        refuse(name, [f"{' and '.join(both)} are of one image, {twice.name}: list every image once"])
    classes = sorted({label for _, _, labels in found for label in labels})
    objects = []
    for _, each, labels in found:
        each.rows = [(row[0], classes.index(labels[row[1]]), *row[2:]) for row in each.rows]
        objects.append(each)
    images = [each.annotated(with_masks=False) for each in objects]
    return AnnotatedSet(name, "voc", classes, images, paths, dropped_note(objects))


def _stems(folder: Path, split: str | None, name: str) -> list[str]:
    if split is None:
        stems = sorted(path.stem for path in (folder / "Annotations").glob("*.xml"))
    else:
        listing = folder / "ImageSets" / "Main" / f"{split}.txt"
        if split not in splits(folder):
            raise NoInput(f"{folder} has no split {split!r}; it has: {', '.join(splits(folder)) or 'none'}")
        limits.check_length(listing)
        stems = [line.split()[0] for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
        if odd := next((stem for stem in stems if "/" in stem or "\\" in stem or stem.startswith(".")), None):
            raise UnusableData(f"{listing} lists {odd!r}, which is no name of an image")
        if (twice := first_repeated(stems)) is not None:
            raise UnusableData(f"{listing} lists {printable(twice)} twice: list every image once")
    if not stems:
        raise NoInput(f"there are no annotations in {name}")
    return stems


def _read(file: Path, folder: Path) -> tuple[Path, Objects, list[str]]:
    """The image of a file of annotations, its objects with labels that number the list, and that list of names."""
    root = _parsed(file)
    named = Path((root.findtext("filename") or "").strip()).name
    image = next(
        (path for name in (named, f"{file.stem}.jpg") if name and (path := folder / "JPEGImages" / name).is_file()),
        None,
    )
    if image is None:
        raise UnusableData(f"its image JPEGImages/{named or file.stem + '.jpg'} is not there")
    try:
        with open(image, "rb") as opened:
            header = read_header(opened)
    except UnreadableImage as error:
        raise UnusableData(f"its image {image.name} cannot be read: {error}") from error
    objects = Objects(image.name, (header.height, header.width))
    names: list[str] = []
    for number, item in enumerate(root.iter("object"), 1):
        label = (item.findtext("name") or "").strip()
        try:
            xmin, ymin, xmax, ymax = finite_numbers([item.findtext(f"bndbox/{corner}") or "" for corner in CORNERS])
        except ValueError:
            raise UnusableData(f"object {number} has no bndbox of four numbers ({', '.join(CORNERS)})") from None
        if not label:
            raise UnusableData(f"object {number} has no name")
        if xmax <= xmin or ymax <= ymin:
            objects.drop((xmin, ymin, xmax, ymax))
            continue
        difficult = (item.findtext("difficult") or "0").strip() not in ("", "0")
        objects.add((xmin - 1, ymin - 1, xmax, ymax), len(names), ignored=difficult)
        names.append(label)
    _check_size(root, objects)
    return image, objects, names


def _check_size(root: ElementTree.Element, objects: Objects) -> None:
    """Refuses annotations that were made for an image of another size. Some files say 0 × 0: those do not know."""
    try:
        width, height = finite_numbers([root.findtext(f"size/{side}") or "0" for side in ("width", "height")])
    except ValueError:
        return
    if width and height and (height, width) != objects.size:
        raise UnusableData(
            f"it is for {width:g}×{height:g} pixels, and {objects.where} is {objects.size[1]}×{objects.size[0]}: boxes "
            "would be in the wrong place"
        )


def _parsed(file: Path) -> ElementTree.Element:
    """The tree of an XML file that declares nothing: entities, which expand, are of no use here."""
    if not file.is_file():
        raise UnusableData("there is no such file")
    if file.stat().st_size > limits.XML_BYTES:
        raise limits.TooLarge(f"it has {file.stat().st_size:,} bytes, and {limits.XML_BYTES:,} are allowed")
    data = file.read_bytes()
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data or data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UnusableData("it has a document type or an unusual encoding; save it as plain XML in UTF-8")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise UnusableData(f"it is not XML ({one_line(error)})") from error
