"""Several annotated sets are one, as the papers' VOC07+12 is: classes by name, and a fingerprint of all."""

from pathlib import Path
from typing import Any

import pytest
import small

from barlow import cli, exits
from barlow.detection import evaluating, measuring
from barlow.detection.annotations import AnnotatedSet
from barlow.detection.evaluating import detect
from barlow.detection.sets import read_annotated
from barlow.exits import NoInput, UnusableData


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str]:
    """Two sets of VOC's form, which number their classes differently."""
    first = small.voc(tmp_path / "VOC2007", {"trainval": [["cat"], ["dog", "cat"]], "test": [["dog"]]})
    second = small.voc(tmp_path / "VOC2012", {"trainval": [["bird", "dog"]]}, grey=50)
    return f"{first}:trainval", f"{second}:trainval"


def names(read: AnnotatedSet) -> list[list[str]]:
    return [[read.classes[k] for k in image.labels] for image in read.images]


def test_two_sets_are_one_with_the_classes_of_both_by_name(two: tuple[str, str]) -> None:
    read, alone = read_annotated(two, "train"), [read_annotated(place, "train") for place in two]
    assert read.classes == ["cat", "dog", "bird"]
    assert names(read) == [["cat"], ["dog", "cat"], ["bird", "dog"]] == [*names(alone[0]), *names(alone[1])]
    assert (read.name, read.form, len(read)) == (" + ".join(two), "voc", 3)
    assert int(read.pixels(2)[0, 0, 0]) == 50, "a picture goes with its annotations"
    assert read_annotated([two[0]], "train").fingerprint == alone[0].fingerprint, "one set in a list is that set"


def test_the_fingerprint_is_of_all_of_them(two: tuple[str, str], tmp_path: Path) -> None:
    before = read_annotated(two, "train").fingerprint
    assert before == read_annotated(two, "train").fingerprint
    assert before != read_annotated(two[0], "train").fingerprint
    small.voc(tmp_path / "VOC2012", {"trainval": [["bird", "dog"]]}, grey=51)
    assert read_annotated(two, "train").fingerprint != before, "a pixel of the second set is another one"


def test_what_is_odd_about_one_of_them_says_of_which(two: tuple[str, str]) -> None:
    file = Path(two[1].rpartition(":")[0]) / "Annotations" / "trainval0.xml"
    file.write_text(file.read_text().replace("<xmax>30</xmax>", "<xmax>4</xmax>"))
    (note,) = read_annotated(two, "train").notes
    assert note.startswith("1 boxes without width or height are left out")
    assert note.endswith(f"(of {two[1]})")


def test_an_image_that_two_sets_have_is_refused(two: tuple[str, str]) -> None:
    with pytest.raises(UnusableData, match=r"^2 images are in more than one of .*: name each image once$"):
        read_annotated([two[0], two[1], two[0]], "train")


def test_sets_of_different_forms_are_not_one(two: tuple[str, str]) -> None:
    with pytest.raises(UnusableData, match=r"has VOC's form and shapes_boxes:train the generated form: only"):
        read_annotated([two[0], "shapes_boxes"], "train")
    with pytest.raises(NoInput, match="no images are named; detection takes"):
        read_annotated([], "train")


def test_generated_splits_can_be_one_set_and_keep_their_masks() -> None:
    read = read_annotated(["shapes_boxes:test", "shapes_boxes:train"], "train")
    assert (len(read), read.has_masks) == (480, True)
    with pytest.raises(UnusableData, match="80 images are in more than one of"):
        read_annotated(["shapes_boxes:test", "shapes_boxes:test"], "test")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(measuring.DESIGNS, "small_fpn", small.FPN)
    monkeypatch.setattr(evaluating, "chosen_schedule", lambda *given: small.SCHEDULE)


def test_a_detector_learns_both_sets_and_is_tested_on_one(tiny: None, two: tuple[str, str], tmp_path: Path) -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `detection`)")
    test = two[0].replace(":trainval", ":test")
    asked: dict[str, Any] = {"seeds": 1, "baselines": False, "device": "cpu", "out": tmp_path / "out"}
    found = detect([small.encoder()], list(two), test, **asked)
    (result,) = found.rows[0].results
    assert (result["train"]["name"], result["train"]["images"]) == (" + ".join(two), 3)
    assert (result["test"]["name"], result["test"]["images"]) == (test, 1)
    assert result["classes"] == ["cat", "dog", "bird"]
    other = detect([small.encoder()], two[0], test, **asked).rows[0].results[0]
    assert other["train"]["fingerprint"] != result["train"]["fingerprint"]


def test_test_images_that_are_learned_are_told(two: tuple[str, str]) -> None:
    test = two[0].replace(":trainval", ":test")
    said: list[str] = []
    evaluating._sets([two[0], test], test, said.append)
    evaluating._sets(two[0], [two[0], test], said.append)
    evaluating._sets(list(two), test, said.append)
    assert said == [
        "all images of --test are in --train, too: the numbers say nothing",
        "2 of 3 images of --test are in --train, too: the numbers say less",
    ]


def test_copies_of_training_images_are_told_wherever_they_are(tmp_path: Path) -> None:
    learned = small.voc(tmp_path / "a", {"trainval": [["cat"], ["dog"], ["cat"]]})
    small.voc(tmp_path / "b", {"test": [["cat"], ["dog"], ["cat"], ["dog"]]}, grey=150)
    for number, name in ((0, "trainval2"), (3, "trainval0")):
        copied = (learned / "JPEGImages" / f"{name}.png").read_bytes()
        (tmp_path / "b" / "JPEGImages" / f"test{number}.png").write_bytes(copied)
    said: list[str] = []
    evaluating._sets(f"{learned}:trainval", f"{tmp_path}/b:test", said.append)
    evaluating._sets("shapes_boxes:train", "shapes_boxes:test", said.append)
    assert said == ["2 of 4 images of --test are in --train, too: the numbers say less"]


def test_the_command_takes_several_after_one_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `detection`)")
    asked: list[Any] = []

    def read(places: Any, split: str) -> AnnotatedSet:
        asked.append(places)
        raise NoInput("enough")

    monkeypatch.setattr(evaluating, "read_annotated", read)
    words = ["evaluate", "random:resnet18", "--protocol", "detect:c4:vicreg_voc", "--out", str(tmp_path)]
    assert cli.main([*words, "--train", "a:x", "b:y", "--test", "a:z"]) == exits.NO_INPUT
    assert asked == [["a:x", "b:y"]]
    capsys.readouterr()
    assert cli.main([*words, "--train", "a:x", "--train", "b:y", "--test", "a:z"]) == exits.USAGE
    said = capsys.readouterr().err
    assert "several that are one set follow one flag (--train VOC2007:trainval VOC2012:trainval)" in said
