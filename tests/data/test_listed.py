"""CSV files that list images with their labels."""

from pathlib import Path

import numpy as np
import pytest
import tiny

from barlow import limits
from barlow.data.sources import open_source
from barlow.exits import NoInput, UnusableData


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tiny.images(tmp_path / "photos", 4, classes=2)


def listing(photos: Path, text: str) -> Path:
    file = photos.parent / "list.csv"
    file.write_text(text, encoding="utf-8")
    return file


def paths(photos: Path) -> list[str]:
    return sorted(str(path.relative_to(photos.parent)) for path in photos.rglob("*.*"))


def test_one_class_an_image(photos: Path) -> None:
    names = paths(photos)
    file = listing(photos, "path,label\n" + "\n".join(f"{p},{c}" for p, c in zip(names, "bacb", strict=True)))
    source = open_source(file)
    assert source.classes == ["a", "b", "c"]
    np.testing.assert_array_equal(source.labels, [1, 0, 2, 1])
    assert [source.locate(i) for i in range(4)] == names, "in the order of the list"
    folder = open_source(photos)
    where = {str(Path("photos") / folder.locate(i)): i for i in range(4)}
    for i, name in enumerate(names):
        np.testing.assert_array_equal(source.read(i), folder.read(where[name]))


def test_any_number_of_labels_an_image_also_none(photos: Path) -> None:
    a, b, c, _ = paths(photos)
    source = open_source([str(listing(photos, f'\ufeffPath, Labels\n{a},dog; cat\n"{b}",\n\n{c},cat;cat\n'))])
    assert source.classes == ["cat", "dog"]
    np.testing.assert_array_equal(source.labels, [[1, 1], [0, 0], [1, 0]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "begins with ''; its first line is path,label"),
        ("file,class\na.jpg,b\n", "begins with 'file,class'"),
        ("path,label\n{0},a,b\n", "row 2 of .* has 3 columns in place of 2"),
        ("path,label\n{0},a\n{1},\n", "row 3 of .* has no label; images without labels need path,labels"),
        ("path,label\n{0},a\n{0},b\n", "twice: list every image once"),
        ("path,label\n../other.jpg,a\n", r"'../other.jpg'.*: give paths below"),
        ("path,label\n/etc/passwd,a\n", "'/etc/passwd'"),
        ('path,label\n"{0},a\n', "cannot be read as a CSV file"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(photos: Path, text: str, said: str) -> None:
    with pytest.raises(UnusableData, match=said):
        open_source(listing(photos, text.format(*paths(photos))))


def test_a_list_of_other_letters_is_told_what_to_be_saved_as(photos: Path) -> None:
    file = listing(photos, "")
    file.write_bytes("path,label\nphotos/häuser.png,a\n".encode("latin-1"))
    with pytest.raises(UnusableData, match=r"list.csv is not UTF-8 \(byte 19 .*\); save it as UTF-8"):
        open_source(file)


def test_images_that_are_not_there_are_counted(photos: Path) -> None:
    with pytest.raises(NoInput, match=r"2 of 3 images that .*list.csv lists are not there, such as no/1.jpg"):
        open_source(listing(photos, f"path,label\n{paths(photos)[0]},a\nno/1.jpg,a\nno/2.jpg,b\n"))
    with pytest.raises(NoInput, match="lists no images"):
        open_source(listing(photos, "path,label\n"))


def test_a_list_that_asks_for_too_much_is_refused_before_memory_is_taken(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "path,labels\n" + "\n".join(f"{path},{2 * i};{2 * i + 1}" for i, path in enumerate(paths(photos)))
    monkeypatch.setattr(limits, "LABELS", 31)
    with pytest.raises(limits.TooLarge, match="has 8 labels for 4 images: are they labels"):
        open_source(listing(photos, text))
    monkeypatch.setattr(limits, "CSV_BYTES", 40)
    with pytest.raises(limits.TooLarge, match="and a list of images at most 40"):
        open_source(listing(photos, text))
