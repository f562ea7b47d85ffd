"""Annotated images of VOC's and COCO's forms, and generated ones: what is read, what is dropped, what is refused."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from barlow import exits
from barlow.detection import generated, masks
from barlow.detection.sets import read_annotated
from barlow.exits import NoInput, UnusableData

OBJECT = "<object><name>{}</name><difficult>{}</difficult><bndbox>{}</bndbox></object>"


def bndbox(*corners: object) -> str:
    return "".join(f"<{n}>{v}</{n}>" for n, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))


def xml(*objects: str, size: str = "<width>40</width><height>30</height>", name: str = "a.png") -> str:
    return f"<annotation><filename>{name}</filename><size>{size}</size>{''.join(objects)}</annotation>"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Two images of 40 × 30, three objects, of which one is difficult and one is a click."""
    home = tmp_path / "VOC"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (home / folder).mkdir(parents=True)
    for name in "ab":
        Image.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(home / "JPEGImages" / f"{name}.png")
    write(home, "a", xml(OBJECT.format("dog", 0, bndbox(1, 1, 10, 20)), OBJECT.format("cat", 1, bndbox(5, 6, 50, 30))))
    clicked = (OBJECT.format("bird", 0, bndbox(7, 7, 7, 7)), OBJECT.format("dog", 0, bndbox(3.5, 2, 8, 9)))
    write(home, "b", xml(*clicked, name="b.png"))
    for split, stems in {"train": "a\n", "test": "b\n", "both": "a 1\n\nb -1\n", "dog_train": "a 1\n"}.items():
        (home / "ImageSets" / "Main" / f"{split}.txt").write_text(stems)
    return home


def write(home: Path, stem: str, text: str | bytes) -> None:
    (home / "Annotations" / f"{stem}.xml").write_bytes(text.encode() if isinstance(text, str) else text)


def test_a_voc_box_counts_pixels_from_one_and_contains_its_corners(voc: Path) -> None:
    read = read_annotated(f"{voc}:both", "train")
    assert (len(read), read.form, read.has_masks) == (2, "voc", False)
    first, second = read.images
    assert first.size == (30, 40)
    assert first.boxes.tolist() == [[0, 0, 10, 20], [4, 5, 40, 30]], "the second was clipped to the image"
    assert [read.classes[k] for k in first.labels] == ["dog", "cat"]
    assert first.ignored.tolist() == [False, True]
    assert first.areas.tolist() == [200, 36 * 25]
    assert second.boxes.tolist() == [[2.5, 1, 8, 9]]
    assert read.pixels(1).shape == (30, 40, 3)


def test_a_box_without_area_is_dropped_and_told_and_its_class_is_not_one(voc: Path) -> None:
    read = read_annotated(f"{voc}:test", "test")
    assert read.notes == ["1 boxes without width or height are left out (b.png: 7, 7, 7, 7)"]
    assert read.classes == ["dog"]


def test_splits_are_chosen_by_name_and_a_missing_one_names_those_there_are(voc: Path) -> None:
    assert len(read_annotated(f"{voc}:train", "train")) == 1
    with pytest.raises(NoInput, match=r"no split 'val'; it has: both, test, train"):
        read_annotated(f"{voc}:val", "train")
    with pytest.raises(NoInput, match=r"has splits \(both, test, train\): name one, as in .*VOC:both"):
        read_annotated(voc, "train")
    for listing in (voc / "ImageSets" / "Main").iterdir():
        listing.unlink()
    assert len(read_annotated(voc, "train")) == 2, "a set without splits is one"


def test_test_classes_get_the_training_sets_numbers(voc: Path) -> None:
    train, test = (read_annotated(f"{voc}:{split}", split) for split in ("train", "test"))
    assert (train.classes, test.classes) == (["cat", "dog"], ["dog"])
    assert test.numbered_like(train).images[0].labels.tolist() == [1]
    with pytest.raises(UnusableData, match=r"--test .*:train has classes that --train .*:test has not \(cat\)"):
        train.numbered_like(test)


def test_the_fingerprint_changes_with_a_box_and_with_a_pixel(voc: Path) -> None:
    before = read_annotated(f"{voc}:both", "train").fingerprint
    assert read_annotated(f"{voc}:both", "train").fingerprint == before
    write(voc, "b", xml(OBJECT.format("dog", 0, bndbox(3.5, 2, 8, 10)), name="b.png"))
    moved = read_annotated(f"{voc}:both", "train").fingerprint
    Image.fromarray(np.full((30, 40, 3), 91, np.uint8)).save(voc / "JPEGImages" / "b.png")
    assert len({before, moved, read_annotated(f"{voc}:both", "train").fingerprint}) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<annotation>", "a.xml: it is not XML"),
        (b"\xff\xfe<\x00", "a.xml: it has a document type or an unusual encoding"),
        ('<!DOCTYPE x [<!ENTITY a "b">]>' + xml(), "a.xml: it has a document type"),
        (xml(OBJECT.format("dog", 0, "<xmin>1</xmin>")), r"a.xml: object 1 has no bndbox of four numbers \(xmin, ymin"),
        (xml(OBJECT.format("dog", 0, bndbox(1, "x", 3, 4))), "a.xml: object 1 has no bndbox"),
        (xml(OBJECT.format("dog", 0, bndbox(1, "nan", 3, 4))), "a.xml: object 1 has no bndbox"),
        (xml(OBJECT.format("", 0, bndbox(1, 2, 3, 4))), "a.xml: object 1 has no name"),
        (xml(size="<width>30</width><height>40</height>"), "a.xml: it is for 30×40 pixels, and a.png is 40×30"),
        (xml(name="gone.png"), "a.xml: its image JPEGImages/gone.png is not there"),
        ("<!-- -->" + xml() + " " * 2**22, "a.xml: it has 4,194,[0-9]+ bytes, and 4,194,304 are allowed"),
    ],
)
def test_a_wrong_voc_file_is_one_line(text: str | bytes, said: str, voc: Path) -> None:
    write(voc, "a", text)
    with pytest.raises(UnusableData, match=said) as caught:
        read_annotated(f"{voc}:train", "train")
    assert exits.code_of(caught.value) == exits.DATA
    assert "\n" not in str(caught.value)


def test_many_wrong_files_are_one_line_that_counts_them(voc: Path) -> None:
    for number in range(7):
        write(voc, f"w{number}", "<")
    listed = "".join(f"w{number}\n" for number in range(7))
    (voc / "ImageSets" / "Main" / "train.txt").write_text(listed)
    with pytest.raises(UnusableData, match=r"w0\.xml: .*; w1\.xml: .*; w2\.xml: .*; and 4 more$"):
        read_annotated(f"{voc}:train", "train")


def test_a_split_that_leads_elsewhere_is_refused(voc: Path) -> None:
    (voc / "ImageSets" / "Main" / "train.txt").write_text("../../secret\n")
    with pytest.raises(UnusableData, match=r"train.txt lists '../../secret', which is no name of an image"):
        read_annotated(f"{voc}:train", "train")


def test_an_image_that_a_split_lists_twice_is_refused(voc: Path) -> None:
    (voc / "ImageSets" / "Main" / "train.txt").write_text("a\nb\na 1\n")
    with pytest.raises(UnusableData, match=r"train.txt lists a twice: list every image once$"):
        read_annotated(f"{voc}:train", "train")


def test_two_files_of_annotations_that_are_of_one_image_are_refused(voc: Path) -> None:
    write(voc, "c", xml(OBJECT.format("dog", 0, bndbox(1, 2, 3, 4)), name="a.png"))
    (voc / "ImageSets" / "Main" / "train.txt").write_text("a\nb\nc\n")
    with pytest.raises(UnusableData, match=r"a.xml and c.xml are of one image, a.png: list every image once$"):
        read_annotated(f"{voc}:train", "train")


def test_an_image_that_was_resized_since_is_refused_when_it_is_read(voc: Path) -> None:
    read = read_annotated(f"{voc}:train", "train")
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(voc / "JPEGImages" / "a.png")
    with pytest.raises(UnusableData, match=r"a\.png of .* is 30×40 pixels, and its annotations are for 40×30"):
        read.pixels(0)
    (voc / "JPEGImages" / "a.png").write_bytes(b"no image")
    with pytest.raises(UnusableData, match=r"a\.png of .* cannot be read: "):
        read.pixels(0)


SQUARE = [2, 3, 12, 3, 12, 9, 2, 9]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    (tmp_path / "train2017").mkdir()
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "train2017" / "7.png")
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "instances_train2017.json"
    file.write_text(json.dumps(content()))
    return file


def content() -> dict[str, Any]:
    whole = masks.run_lengths(np.ones((30, 40), bool))
    return {
        "images": [{"id": 7, "file_name": "7.png", "height": 30, "width": 40}],
        "categories": [{"id": 90, "name": "b"}, {"id": 3, "name": "a"}],
        "annotations": [
            {"image_id": 7, "category_id": 90, "bbox": [2, 3, 10, 6], "area": 60, "segmentation": [SQUARE]},
            {"image_id": 7, "category_id": 3, "bbox": [0, 0, 40, 30], "iscrowd": 1, "segmentation": whole},
            {"image_id": 7, "category_id": 3, "bbox": [5, 5, 0, 3], "segmentation": [SQUARE]},
        ],
    }


def test_a_coco_file_is_boxes_classes_crowds_and_masks(coco: Path) -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `detection`)")
    read = read_annotated(coco, "train")
    assert (read.classes, read.form, read.has_masks) == (["a", "b"], "coco", True)
    (image,) = read.images
    assert image.boxes.tolist() == [[2, 3, 12, 9], [0, 0, 40, 30]]
    assert (image.labels.tolist(), image.ignored.tolist(), image.areas.tolist()) == ([1, 0], [False, True], [60, 1200])
    assert read.notes == ["1 boxes without width or height are left out (7.png: 5, 5, 5, 8)"]
    expected = np.zeros((2, 30, 40), bool)
    expected[0, 3:9, 2:12] = True
    expected[1] = True
    assert np.array_equal(image.masks(), expected)
    assert read.pixels(0).shape == (30, 40, 3)


def test_a_coco_file_whose_objects_have_no_segmentation_is_boxes_alone(coco: Path) -> None:
    told = content()
    for annotation in told["annotations"]:
        annotation.pop("segmentation")
    coco.write_text(json.dumps(told))
    assert not read_annotated(coco, "train").has_masks


CHANGES: list[tuple[str, int, dict[str, Any], str]] = [
    ("images", 0, {"id": "7"}, r"images\[0\] needs an integer id and a file_name"),
    ("images", 0, {"height": 0}, r"images\[0\] needs height and width in pixels"),
    ("images", 0, {"width": 2**40}, r"images\[0\] needs height and width in pixels"),
    ("images", 0, {"file_name": "../../etc/passwd"}, r"images\[0\] has a file_name that leads elsewhere"),
    ("images", 0, {"file_name": "/etc/passwd"}, r"images\[0\] has a file_name that leads elsewhere"),
    ("categories", 1, {"id": 90}, r"categories\[1\] has the id or name of another"),
    ("annotations", 0, {"image_id": 8}, r"annotations\[0\] is of image 8, which is not there"),
    ("annotations", 0, {"category_id": 1}, r"annotations\[0\] is of category 1, which is not there"),
    ("annotations", 1, {"bbox": [1, 2, 3]}, r"annotations\[1\] has no bbox of four numbers"),
    ("annotations", 1, {"bbox": [1, 2, 3, None]}, r"annotations\[1\] has no bbox of four numbers"),
    ("annotations", 1, {"bbox": [1, 2, 3, 1e400]}, r"annotations\[1\] has no bbox of four numbers"),
    ("annotations", 0, {"segmentation": [[1, 2, 3, 4]]}, "a polygon is a list of x, y"),
    ("annotations", 0, {"segmentation": [[1, 2, 3, "x", 5, 6]]}, "a polygon has something that is no number"),
    ("annotations", 0, {"segmentation": [[1, 2, 3, 1e9, 5, 6]]}, "a polygon lies far outside of the image"),
    ("annotations", 0, {"segmentation": [[1.5] * 100_002]}, "its polygons have 100,002 numbers, and 100,000 are"),
    ("annotations", 0, {"segmentation": {"size": [30, 40], "counts": [1, 2]}}, "for 3 pixels, and the image has 1,200"),
    ("annotations", 0, {"segmentation": {"size": [30, 40], "counts": [-5, 1205]}}, "its run lengths are for"),
    ("annotations", 0, {"segmentation": {"size": [30, 40], "counts": "\u00fc"}}, "its run lengths cannot be read"),
    ("annotations", 0, {"segmentation": {"size": [30, 40], "counts": "o" * 99}}, "its run lengths cannot be read"),
    ("annotations", 0, {"segmentation": {"size": [9999999, 9999999], "counts": []}}, "are of an image of"),
    ("annotations", 0, {"segmentation": 3}, "segmentation is neither polygons nor run lengths"),
]


@pytest.mark.parametrize("again", ["", "./"])
def test_a_coco_file_that_lists_an_image_twice_is_one_line(again: str, coco: Path) -> None:
    told = content()
    first = told["images"][0]
    told["images"].append({**first, "id": 1234, "file_name": f"{again}{first['file_name']}"})
    coco.write_text(json.dumps(told))
    row = len(told["images"]) - 1
    with pytest.raises(UnusableData, match=rf"images\[{row}\] lists .* twice: list every image once$") as caught:
        read_annotated(coco, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("table", "row", "change", "said"), CHANGES)
def test_a_wrong_coco_file_is_one_line(table: str, row: int, change: dict[str, Any], said: str, coco: Path) -> None:
    told = content()
    told[table][row] |= change
    coco.write_text(json.dumps(told))
    with pytest.raises(UnusableData, match=said) as caught:
        read_annotated(coco, "train")
    assert exits.code_of(caught.value) == exits.DATA
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "3", '{"images": []}', '{"images": {}, "annotations": [], "categories": []}'])
def test_json_that_is_not_cocos_says_what_is_missing(text: str, coco: Path) -> None:
    coco.write_text(text)
    with pytest.raises(UnusableData, match="it needs the lists images, annotations and categories"):
        read_annotated(coco, "train")


def test_json_that_is_cut_short_is_one_line(coco: Path) -> None:
    coco.write_text(json.dumps(content())[:100])
    with pytest.raises(ValueError, match="is not valid JSON"):
        read_annotated(coco, "train")


def test_images_that_are_nowhere_name_the_places_that_were_looked_in(coco: Path) -> None:
    (coco.parent.parent / "train2017" / "7.png").unlink()
    with pytest.raises(NoInput, match=r"7\.png is in none of .*annotations, .*images, .*train2017"):
        read_annotated(coco, "train")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere", "there is no folder or file nowhere; detection takes a folder of VOC's form"),
        ("shapes_boxes:val", "has no split 'val'; it has: train, test"),
        ("gone.json", "there is no file gone.json"),
    ],
)
def test_what_is_not_there_says_what_may_be_given(place: str, said: str) -> None:
    with pytest.raises(NoInput, match=said):
        read_annotated(place, "train")


def test_a_folder_of_images_is_not_annotated(tmp_path: Path) -> None:
    with pytest.raises(UnusableData, match=r"has no folder Annotations; detection takes"):
        read_annotated(tmp_path, "train")


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_are_cocos_in_both_directions(seed: int) -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed (extra `detection`)")
    rng = np.random.default_rng(seed)
    mask = rng.random((37, 53)) < (0.5, 0.02, 0.98, 0, 1)[seed]
    mask[10:30, 5:50] ^= True
    ours = masks.run_lengths(mask)
    text = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert coco.frPyObjects(ours, 37, 53)["counts"] == text
    for counts in (ours["counts"], text.decode(), text):
        assert masks.fault_of({"size": [37, 53], "counts": counts}, 37, 53) is None
        assert np.array_equal(masks.drawn({"size": [37, 53], "counts": counts}, 37, 53), mask)


def test_generated_images_have_boxes_that_hold_their_masks_and_no_more() -> None:
    made = generated.shapes_boxes("train", count=30)
    assert made.has_masks
    seen = set()
    for number, image in enumerate(made.images):
        assert len(image.boxes), "an image has an object"
        assert made.pixels(number).shape == (*generated.SIZE, 3)
        shown = image.masks()
        assert shown.sum(0).max() == 1, "a pixel is of one object"
        for mask, box, label, area in zip(shown, image.boxes, image.labels, image.areas, strict=True):
            y, x = np.nonzero(mask)
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert area == mask.sum()
            seen.add(int(label))
    assert seen == set(range(len(generated.KINDS)))


def test_generated_images_do_not_depend_on_how_many_there_are_and_splits_differ() -> None:
    few, many = generated.shapes_boxes("train", count=3), generated.shapes_boxes("train", count=9)
    other = generated.shapes_boxes("test", count=3)
    assert few.fingerprint == many.chosen([0, 1, 2]).fingerprint
    assert few.fingerprint != other.fingerprint
    assert np.array_equal(few.pixels(2), many.pixels(2))
    assert not np.array_equal(few.pixels(0), other.pixels(0))


def test_real_cells_are_read_whole(shared_data: Path, tmp_path: Path) -> None:
    if not (shared_data / "bccd-voc.tar").is_file():
        pytest.skip("no bccd-voc.tar among the real images")
    with tarfile.open(shared_data / "bccd-voc.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    counts = {}
    for split in ("trainval", "test"):
        read = read_annotated(tmp_path / "bccd-voc" / f"BCCD:{split}", split)
        assert read.classes == ["Platelets", "RBC", "WBC"]
        counts[split] = (len(read), sum(len(image.boxes) for image in read.images), len(read.notes))
        assert read.pixels(0).shape == (480, 640, 3)
    assert sum(images for images, _, _ in counts.values()) == 364
    assert sum(boxes for _, boxes, _ in counts.values()) == 4888 - 2, "two are degenerate"
