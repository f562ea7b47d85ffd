"""`barlow duplicates` finds copies that were planted, says what it finds, and touches nothing."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from programs import program
from simple_encoder import Colours
from torch import nn

from barlow import cli
from barlow.data.altered import COPIES
from barlow.exits import NoInput
from barlow.features.copy_finding import duplicates
from barlow.nets.preprocessing import Preprocessing
from barlow.probes.intervals import wilson

HERE = 60
PLANTS = {"smaller": 3, "recompressed": 8, "brighter": 21, "cropped": 34, "mirrored": 55}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty distinct scenes, and a copy of five of them, each altered in another way."""
    folder = tmp_path_factory.mktemp("planted")
    images = tiny.scenes(HERE, 0)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"a{number:02}.png")
    for kind, number in PLANTS.items():
        Image.fromarray(COPIES[kind](images[number])).save(folder / f"b{number:02}-{kind}.png")
    return folder


def groups_of(found: object) -> set[frozenset[str]]:
    return {frozenset(member.path for member in group.members) for group in found.groups}  # type: ignore[attr-defined]


EXPECTED = {frozenset({f"a{number:02}.png", f"b{number:02}-{kind}.png"}) for kind, number in PLANTS.items()}


@pytest.mark.parametrize("encoder", [None, Colours()], ids=["pixels", "and an encoder"])
def test_what_was_planted_is_found_and_nothing_else(planted: Path, encoder: Colours | None) -> None:
    found = duplicates(planted, encoder=encoder, device="cpu")
    assert groups_of(found) == EXPECTED
    assert len(found.within.measures) == (1 if encoder is None else 2)
    assert found.within.measures[0].found.keys() == COPIES.keys()
    mirrored = next(m for g in found.groups for m in g.members if m.path.endswith("mirrored.png"))
    assert mirrored.mirrored
    assert mirrored.like == "a55.png"


class AnyTurn(nn.Module):
    """An encoder that sees an image and what it is when turned by a quarter as the same."""

    preprocessing = Preprocessing(32, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3, 3)
    num_features = 3 * 8 * 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(x, 8)
        return torch.stack([torch.rot90(pooled, k, (2, 3)) for k in range(4)]).mean(0).flatten(1)


def test_what_an_encoder_alone_finds_is_told_with_its_name(tmp_path: Path) -> None:
    images = tiny.scenes(HERE, 0)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"a{number:02}.png")
    Image.fromarray(np.rot90(images[7]).copy()).save(tmp_path / "b07.png")
    assert groups_of(duplicates(tmp_path)) == set()
    found = duplicates(tmp_path, encoder=AnyTurn(), device="cpu")
    assert groups_of(found) == {frozenset({"a07.png", "b07.png"})}
    assert {member.measure for member in found.groups[0].members} == {"AnyTurn"}


def test_test_images_in_the_training_set_are_told_with_their_twins(planted: Path, tmp_path: Path) -> None:
    test = tmp_path / "test"
    test.mkdir()
    for number, image in enumerate(tiny.scenes(30, 1)):
        Image.fromarray(image).save(test / f"t{number:02}.png")
    shutil.copy(planted / "a11.png", test / "copy.png")
    with Image.open(planted / "a13.png") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(test / "turned.png")
    found = duplicates(planted, test)
    assert found.leaks is not None
    assert {(leak.test, leak.train, leak.mirrored) for leak in found.leaks} == {
        ("copy.png", "a11.png", False),
        ("turned.png", "a13.png", True),
    }
    assert found.compared == 32
    assert "2 of 32 images" in found.text()


def test_the_text_fits_and_json_and_csv_have_everything(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = tmp_path / ("d" * 90)
    shutil.copytree(planted, deep / "one")
    shutil.copytree(planted, deep / "two")
    before = {path: path.read_bytes() for path in deep.rglob("*.png")}
    table = tmp_path / "found.csv"
    assert cli.main(["duplicates", str(deep), "--csv", str(table)]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert f"{2 * HERE + 10} images in {HERE} groups of copies" in text
    assert "more groups (--json and --csv have all)" in text
    assert cli.main(["duplicates", str(deep), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert len(content["groups"]) == HERE
    assert content["copies"] == HERE + 10
    rows = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8"))))
    assert len(rows) == 2 * HERE + 10
    assert {row["kind"] for row in rows} == {"group"}
    assert {path: path.read_bytes() for path in deep.rglob("*.png")} == before, "nothing was deleted or changed"


def test_groups_of_images_of_different_classes_are_told(planted: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(planted.glob("a*.png"))):
        home = tmp_path / ("cats" if number % 2 else "dogs")
        home.mkdir(exist_ok=True)
        shutil.copy(path, home)
    shutil.copy(planted / "a03.png", tmp_path / "dogs" / "again.png")
    found = duplicates(tmp_path)
    assert [group.classes for group in found.groups] == [["cats", "dogs"]]
    assert "1 group has images of different classes" in found.text()


def test_a_line_break_in_a_files_name_breaks_no_line(planted: Path, tmp_path: Path) -> None:
    for number, name in enumerate(["one\ntwo.png", "three\rfour.png"]):
        shutil.copy(sorted(planted.glob("a*.png"))[0], tmp_path / name)
        shutil.copy(sorted(planted.glob("a*.png"))[1 + number], tmp_path)
    found = duplicates(tmp_path, tmp_path)
    text = found.text()
    assert "one\\ntwo.png" in text
    assert "copy of" in text
    assert all(line.isprintable() for line in text.splitlines())
    rows = list(csv.DictReader(io.StringIO(found.csv(), newline="")))
    assert {"one\ntwo.png", "three\rfour.png"} <= {row["path"] for row in rows}


def test_what_is_wrong_is_one_line(planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NoInput, match="no folder"):
        duplicates(tmp_path / "gone")
    with pytest.raises(ValueError, match="batch_size=0: give 1 or more"):
        duplicates(planted, batch_size=0)
    assert cli.main(["duplicates", str(planted), "--csv", str(tmp_path)]) == 2
    assert "is a folder; name a file" in capsys.readouterr().err


@pytest.mark.nightly
def test_four_hundred_copies_planted_among_six_hundred_photos_are_found(shared_data: Path, tmp_path: Path) -> None:
    """What docs/search.md promises of thumbnails, of another draw than that of its table."""
    planting = program("experiments/duplicates.py")
    kinds = planting.planted(shared_data, tmp_path, seed=7)
    found = planting.searched(tmp_path, kinds, None)
    crops = found["found"].pop(planting.CROP)
    assert len(found["found"]) == 4
    assert wilson(sum(found["found"].values()), 4 * planting.EACH).low >= 0.95, found
    assert wilson(crops, planting.EACH).low >= 0.75, crops
    assert found["false_pairs_of_originals"] <= 5
