"""`barlow evaluate … --protocol detect`: encoders beside untrained weights, results that are kept, and the messages."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small
import torch

from barlow import cli, exits, ownership, storage
from barlow.detection import evaluating, measuring
from barlow.detection.annotations import AnnotatedSet
from barlow.detection.backbones import UnfitBackbone
from barlow.detection.evaluating import detect, options_of, untrained
from barlow.detection.measuring import Question, measured
from barlow.results import LEFT_OVER_SECONDS
from barlow.seals import SEAL
from barlow.stopping import Requests

pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `detection`)")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is small: the detector, the schedule, the sets."""
    monkeypatch.setitem(measuring.DESIGNS, "small_fpn", small.FPN)
    monkeypatch.setattr(evaluating, "chosen_schedule", lambda *given: small.SCHEDULE)
    monkeypatch.setattr(evaluating, "read_annotated", lambda place, split: small.shapes(4, split))


def question(test: AnnotatedSet | None = None) -> Question:
    return Question(small.shapes(), test or small.shapes(4, "test"), "small_fpn", small.SCHEDULE, "trained")


def ask(home: Path, asked: Question, seed: int = 0, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    cpu = torch.device("cpu")
    return measured(small.encoder(), "it", asked, seed, home=home, device=cpu, requests=Requests(), say=say)


def test_a_question_is_answered_once_and_checkpoints_are_gone_then(tiny: None, tmp_path: Path) -> None:
    home, lines = tmp_path / "run" / "evaluation", list[str]()
    first = ask(home, question(), say=lines.append)
    assert sorted(first["precision"]) == ["coco_box", "coco_mask"]
    assert ask(home, question(), say=lines.append) == first
    assert lines[-1].startswith("it, seed 0: found before, in ")
    (place,) = (home / "detection").iterdir()
    assert [path.name for path in place.iterdir()] == ["result.json"]
    assert ownership.foreign(tmp_path / "run") == [], "what was written is known to be barlow's"
    ask(home, question(), seed=1)
    ask(home, question(small.shapes(3, "test")))
    assert len(list((home / "detection").iterdir())) == 3, "another seed, and other images, are other questions"


def test_killed_before_its_answer_is_written_it_has_the_answer_of_one_that_was_not(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All steps are made then, and none is left that would tell the last loss."""

    def killed(*given: Any) -> None:
        raise SystemExit

    straight = ask(tmp_path / "straight", question())
    with monkeypatch.context() as patched:
        patched.setattr(measuring, "found_in", killed)
        with pytest.raises(SystemExit):
            ask(tmp_path / "killed", question())
    found = ask(tmp_path / "killed", question())
    assert found.pop("resumed")
    assert not straight.pop("resumed")
    differ = {key for key in found if found[key] != straight[key]}
    assert differ <= {"processor_seconds", SEAL}
    assert found["last_loss"]


def test_what_a_kill_leaves_beside_an_answer_is_removed_with_the_next_command(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "evaluation"
    with monkeypatch.context() as patched:
        patched.setattr(measuring, "_clear", lambda *given: None)
        first = ask(home, question())
    (place,) = (home / "detection").iterdir()
    assert (place / "checkpoints").is_dir()
    leftover = place / ".tmp-removed-checkpoints-0123abcd"
    shutil.copytree(place / "checkpoints", leftover)
    os.utime(leftover, (time.time() - 2 * LEFT_OVER_SECONDS,) * 2)
    assert ask(home, question()) == first
    assert [path.name for path in place.iterdir()] == ["result.json"]


@pytest.mark.parametrize("package", ["barlow", "torchvision", "pycocotools"])
def test_another_version_of_what_measures_is_another_question(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, known = question().causes, measuring.version
    assert question().causes == before
    if package == "barlow":
        monkeypatch.setattr(measuring, "__version__", "99.0")
    else:
        monkeypatch.setattr(measuring, "version", lambda name: "99.0" if name == package else known(name))
    assert question().causes["versions"] == before["versions"] | {package: "99.0"}


def test_a_build_for_another_machine_is_the_same_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "version", lambda name: "1.2+cu126")
    assert question().causes["versions"]["torchvision"] == "1.2"


def test_an_answer_that_was_changed_is_found_again(tiny: None, tmp_path: Path) -> None:
    first, lines = ask(tmp_path, question()), list[str]()
    (file,) = tmp_path.glob("detection/*/result.json")
    content = json.loads(file.read_text())
    content["precision"]["coco_box"]["AP"] = 0.9
    file.write_text(json.dumps(content))
    again = ask(tmp_path, question(), say=lines.append)
    assert again["precision"] == first["precision"]
    assert any("it is measured again" in line for line in lines)
    assert SEAL in json.loads(file.read_text())
    for strange in ({}, {"precision": 3}, {"precision": {"coco_box": {"AP": "much"}}}):
        storage.write_sealed(file, strange)
        assert measuring._kept(file.parent, lines.append) is None
        assert lines[-1].endswith("is no answer of a detection; it is measured again")


def test_what_is_trained_does_not_depend_on_the_test_annotations(tiny: None, tmp_path: Path) -> None:
    test = small.shapes(4, "test")
    images = [
        small.generated.Objects(each.where, each.size).annotated(with_masks=True) for each in test.images
    ]  # without a single object
    emptied = AnnotatedSet(test.name, test.form, test.classes, images, test.pictures)
    assert ask(tmp_path, question(test))["last_loss"] == ask(tmp_path, question(emptied))["last_loss"]


def test_encoders_stand_beside_untrained_weights_of_their_own_network(tiny: None, tmp_path: Path) -> None:
    encoder = small.encoder(seed=5)
    found = detect([encoder], "a", "b", seeds=2, device="cpu", out=tmp_path)
    (row,) = found.rows
    assert row.name == "ResNet"
    assert row.beside is not None
    names = {each["encoder_identity"] for each in row.results}, {each["encoder_identity"] for each in row.beside}
    assert [len(each) for each in names] == [1, 2], "the encoder is one, and each seed has untrained weights of its own"
    assert not names[0] & names[1]
    assert max(map(len, found.table().splitlines())) <= 80


def test_an_encoder_that_is_unfit_is_refused_before_any_is_trained(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "trained", lambda *given, **more: pytest.fail("a detector was trained"))
    unfit = small.encoder(stem="small")
    with pytest.raises(UnfitBackbone, match="has maps of strides"):
        detect([small.encoder(), unfit], "a", "b", seeds=1, device="cpu", out=tmp_path)
    assert not list(tmp_path.glob("detection/*"))


def test_untrained_weights_are_of_the_same_network_and_differ_with_the_seed() -> None:
    encoder = small.encoder()
    first, second = untrained(encoder, 1), untrained(encoder, 2)
    assert first.state_dict().keys() == encoder.state_dict().keys()
    assert not torch.equal(first.conv1.weight, second.conv1.weight)  # type: ignore[arg-type]
    assert first.preprocessing == encoder.preprocessing


@pytest.mark.parametrize("name", ["detect:", "detect:c4:", "detect:c4:9:9", "detector"])
def test_a_name_that_is_none_says_what_may_follow(name: str) -> None:
    with pytest.raises(ValueError, match="give detect, detect:DETECTOR"):
        options_of(name)


COMMANDS: list[tuple[list[str], str, int]] = [
    (["--protocol", "detect,knn"], "detect takes boxes, and the others labels; ask for it by itself", exits.USAGE),
    (["--protocol", "detect:yolo"], "no detector 'yolo'; there are small_fpn, fpn, c4", exits.USAGE),
    (["--protocol", "detect:c4:long"], "no schedule 'long'; there are short", exits.USAGE),
    (["--protocol", "detect", "--augment"], "--augment is for linear_sgd, and not for detect", exits.USAGE),
    (["--protocol", "detect", "--table", "t.doc"], "--table t.doc: give a file that ends in .html", exits.USAGE),
    (["--protocol", "detect", "--detection.seeds", "0"], "0: it is how many seeds, from 1 to 100", exits.USAGE),
    (
        ["--protocol", "detect", "--batch-size", "2"],
        "--batch-size: detect trains and tests in the batches",
        exits.USAGE,
    ),
    (["--protocol", "detect", "--max-bad", "0.5"], "--max-bad: detect refuses every image that cannot", exits.USAGE),
    (["--protocol", "detect:small_fpn:²"], "no schedule '²'; there are short", exits.USAGE),
    (["--protocol", "detect:small_fpn:-1"], "-1 steps: a number of steps is at least 1", exits.USAGE),
    (["--protocol", "detect:small_fpn:0"], "0 steps: a number of steps is at least 1", exits.USAGE),
    (["--protocol", "detect", "--detection.batch_norm", "on_off"], "batch_norm on_off: trained or frozen", exits.USAGE),
    (["--protocol", "detect", "--data.split", "x"], "--data.split is no key of detection", exits.USAGE),
    (["--protocol", "detect", "--train", "gone"], "there is no folder or file gone; detection takes", exits.NO_INPUT),
]


@pytest.mark.parametrize(("words", "said", "code"), COMMANDS)
def test_a_wrong_command_is_one_line(
    words: list[str], said: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = ["--train", "shapes_boxes", "--test", "shapes_boxes"]
    given = ["evaluate", "random:resnet18", *(usual[2:] if "--train" in words else usual), *words]
    assert cli.main([*given, "--out", str(tmp_path / "out")]) == code
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("barlow: ")
    assert said in last


def test_a_missing_library_is_said_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = ["--protocol", "detect", "--train", "shapes_boxes", "--test", "shapes_boxes"]
    assert cli.main(["evaluate", "random:resnet18", *words]) == exits.USAGE
    assert "pip install barlow[detection]" in capsys.readouterr().err


def test_without_a_test_set_it_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "random:resnet18", "--protocol", "detect", "--train", "a"]) == exits.USAGE
    assert "detection takes one --train and one --test, with boxes" in capsys.readouterr().err


def test_the_command_shows_the_table_and_where_results_are(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--encoder.options", json.dumps(small.OPTIONS), "--detection.seeds", "1", "--device", "cpu"]
    sets = ["--train", "shapes_boxes", "--test", "shapes_boxes", "--out", str(tmp_path)]
    assert cli.main(["evaluate", "random:resnet18", "--protocol", "detect", *sets, *options]) == exits.OK
    shown = capsys.readouterr().out
    assert "COCO mask AP75" in shown
    assert f"results  {tmp_path}" in shown


def test_a_run_with_a_detection_in_it_can_still_be_overwritten(tmp_path: Path) -> None:
    place = tmp_path / "evaluation" / "detection" / "0123456789abcdef"
    for name in ("result.json", "checkpoints/step-000100/state.json"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("{}")
    assert ownership.foreign(tmp_path) == []
    (place / "notes.txt").write_text("mine")
    assert ownership.foreign(tmp_path) == ["evaluation/detection/0123456789abcdef/notes.txt"]
