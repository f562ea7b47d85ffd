"""Annotated sets as labelled ones: which classes are on an image."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from barlow.detection import labels
from barlow.detection.labels import as_labelled, is_annotated
from barlow.exits import UnusableData
from barlow.nets.preprocessing import Preprocessing
from barlow.probes.average_precision import UNJUDGED

SHARED = Path(__file__).parents[3] / "shared" / "data" / "bccd-voc.tar"
OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult>"
    "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
)


@pytest.fixture
def expected() -> Preprocessing:
    return Preprocessing(32, 1.0, "bicubic", (0.5,) * 3, (0.25,) * 3, 3)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Three images: a cat; a cat that is difficult, and a dog; a dog twice, once difficult."""
    folder = tmp_path / "VOC"
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for stem, objects in {"a": [("cat", 0)], "b": [("cat", 1), ("dog", 0)], "c": [("dog", 1), ("dog", 0)]}.items():
        Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(folder / "JPEGImages" / f"{stem}.jpg")
        inner = "".join(OBJECT.format(*each) for each in objects)
        text = f"<annotation><filename>{stem}.jpg</filename>{inner}</annotation>"
        (folder / "Annotations" / f"{stem}.xml").write_text(text)
    (folder / "ImageSets/Main/train.txt").write_text("a\nb\nc\n")
    (folder / "ImageSets/Main/test.txt").write_text("c\n")
    return folder


def test_a_class_of_which_all_objects_are_difficult_is_not_judged(voc: Path, expected: Preprocessing) -> None:
    source = as_labelled(f"{voc}:train", "train", expected)
    assert not isinstance(source, str)
    assert source.classes == ["cat", "dog"]
    np.testing.assert_array_equal(source.labels, [[1, 0], [UNJUDGED, 1], [0, 1]])
    assert [source.locate(i) for i in range(3)] == ["a.jpg", "b.jpg", "c.jpg"]
    assert source.read(0).shape == (20, 30, 3)
    np.testing.assert_array_equal(as_labelled([f"{voc}:test"], "test", expected).labels, [[1]])  # type: ignore[union-attr]


def test_an_image_that_is_listed_twice_is_refused_for_labels_as_for_boxes(voc: Path, expected: Preprocessing) -> None:
    (voc / "ImageSets/Main/train.txt").write_text("a\nb\na\n")
    with pytest.raises(UnusableData, match=r"train.txt lists a twice: list every image once$"):
        as_labelled(f"{voc}:train", "train", expected)


def test_cocos_crowds_are_there(tmp_path: Path, expected: Preprocessing) -> None:
    Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(tmp_path / "x.png")
    box = {"image_id": 7, "bbox": [1, 1, 5, 5], "area": 25, "segmentation": []}
    content = {
        "images": [{"id": 7, "file_name": "x.png", "height": 20, "width": 30}],
        "categories": [{"id": 3, "name": "tree"}, {"id": 9, "name": "people"}, {"id": 11, "name": "none"}],
        "annotations": [{**box, "category_id": 3, "iscrowd": 0}, {**box, "category_id": 9, "iscrowd": 1}],
    }
    (tmp_path / "set.json").write_text(json.dumps(content))
    source = as_labelled(str(tmp_path / "set.json"), "train", expected)
    assert source.classes == ["tree", "people", "none"]  # type: ignore[union-attr]
    np.testing.assert_array_equal(source.labels, [[1, 1, 0]])  # type: ignore[union-attr]


def test_what_is_no_annotated_set_is_left_alone(tmp_path: Path, expected: Preprocessing) -> None:
    photos = tiny.images(tmp_path / "photos", 4, classes=2)
    for given in (str(photos), photos, [str(photos), str(photos)], "shapes:test", ["digits"], "nowhere:test"):
        assert not is_annotated(given)
        assert as_labelled(given, "train", expected) is given


def test_the_blood_cells_are_read_where_they_are_there(tmp_path: Path, expected: Preprocessing) -> None:
    import tarfile

    if not SHARED.is_file():
        pytest.skip(f"{SHARED.name} is not in a folder shared/data beside the repository")
    with tarfile.open(SHARED) as tar:
        tar.extractall(tmp_path, filter="data")
    source = as_labelled(f"{tmp_path}/bccd-voc/BCCD:test", "test", expected)
    assert source.classes == ["Platelets", "RBC", "WBC"]  # type: ignore[union-attr]
    assert source.labels.shape == (72, 3)  # type: ignore[union-attr]
    assert labels.UNJUDGED not in source.labels  # type: ignore[union-attr]
