"""`barlow check` tells what is wrong with a set and what to expect of it, and leaves the set as it is."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from PIL import Image
from tiny import scenes

import barlow
from barlow import cli, exits
from barlow.checks import alike, checking
from barlow.checks.check_report import Budget, Pace
from barlow.data import thresholds
from barlow.data.counting import not_shown
from barlow.data.sources import ArraySource
from barlow.data.thresholds import Threshold


def photos(folder: Path, count: int = 40, *, classes: int = 0, seed: int = 0, darker: int = 0) -> Path:
    """PNGs of scenes that are no near-duplicates of each other."""
    for i, image in enumerate(scenes(count, seed, side=48)):
        home = folder / f"class{i % classes}" if classes else folder
        home.mkdir(parents=True, exist_ok=True)
        dark = np.clip(image.astype(int) - darker, 0, 255).astype(np.uint8)
        Image.fromarray(dark).save(home / f"{i:03}.png")
    return folder


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


def lines_of(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if line.split(maxsplit=1)[0] == word]


# --- One set ----------------------------------------------------------------------------------------------------------


def test_a_healthy_set_is_described_and_nothing_is_wrong(tmp_path: Path) -> None:
    found = barlow.check(photos(tmp_path / "photos", 40, classes=4), fast=True)
    text = found.text()
    assert lines_of(text, "images") == ["images   40 of 40 can be read: PNG, colour"]
    assert lines_of(text, "size") == ["size     48x48 (height x width), all of them"]
    assert lines_of(text, "classes") == ["classes  4, 10 images each"]
    assert lines_of(text, "alike") == ["alike    no near-duplicates"]
    for word in ("bad", "copies", "empty", "splits", "time", "depth", "alpha", "frames", "names"):
        assert lines_of(text, word) == [], word


def test_counts_of_one_and_classes_of_nearly_one_size_are_told_as_a_person_would(tmp_path: Path) -> None:
    home = photos(tmp_path / "photos", 23, classes=2)
    clear = Image.open(home / "class1" / "001.png").convert("RGBA")
    clear.putalpha(100)
    clear.save(home / "class1" / "001.png")
    text = barlow.check(home, fast=True).text()
    assert lines_of(text, "classes") == ["classes  2: class0 12 to class1 11"]
    assert lines_of(text, "alpha") == ["alpha    1 image has transparency: it is put on mid-grey"]


def test_what_is_wrong_is_told_with_places(tmp_path: Path) -> None:
    home = photos(tmp_path / "photos", 30, classes=3)
    shutil.copy(home / "class0" / "000.png", home / "class1" / "copy.png")
    Image.open(home / "class2" / "002.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
        home / "class2" / "turned.png"
    )
    (home / "class0" / "cut.png").write_bytes((home / "class0" / "003.png").read_bytes()[:900])
    (home / "class0" / "page.jpg").write_bytes(b"<!DOCTYPE html><html></html>")
    (home / "class3").mkdir()
    found = barlow.check(home, fast=True)
    text = found.text()
    assert "32 of 34 can be read" in text
    (bad,) = lines_of(text, "bad")
    assert bad.startswith("bad      2 cannot be read:")
    assert f"{os.path.join('class0', 'page.jpg')}: not an image but an HTML page" in " ".join(text.split())
    assert {each["where"] for each in found.images.skipped} == {"class0/cut.png", "class0/page.jpg"}
    assert lines_of(text, "copies") == ["copies   1 of 32 images are copies of others, byte for byte"]
    (alike,) = lines_of(text, "alike")
    assert alike.startswith("alike    4 images (12.5%) have near-duplicates: 2 groups, the largest of 2; 1")
    assert sorted(map(sorted, found.images.near.examples)) == [
        ["class0/000.png", "class1/copy.png"],
        ["class2/002.png", "class2/turned.png"],
    ]
    assert lines_of(text, "empty") == ["empty    no images in class3"]


def test_classes_that_are_uneven_and_sizes_that_differ_are_told(tmp_path: Path) -> None:
    home = photos(tmp_path / "photos", 24, classes=2)
    for path in sorted((home / "class1").iterdir())[:9]:
        path.unlink()
    Image.fromarray(scenes(1, 9, side=90)[0][:, :70]).save(home / "class0" / "large.jpg")
    found = barlow.check(home, fast=True)
    assert "classes  2: class0 13 to class1 3; the largest is 4.3 times the smallest" in found.text()
    assert "size     heights 48 to 90, median 48; widths 48 to 70, median 48" in found.text()
    assert "15 PNG and 1 JPEG" in found.text()


def test_splits_that_lie_in_one_folder_are_told(tmp_path: Path) -> None:
    for seed, name in enumerate(("train", "val")):
        photos(tmp_path / "photos" / name, 6, classes=2, seed=seed)
    text = barlow.check(tmp_path / "photos", fast=True).text()
    assert "splits   train, val look like splits" in text
    assert "none: there is not one sub-folder for each class" in text


def test_deep_images_are_read_with_the_range_that_a_run_would_find(tmp_path: Path) -> None:
    for i, image in enumerate(scenes(8, 0, side=32)):
        Image.fromarray(image[:, :, 0].astype(np.uint16) * 8 + 100).save(tmp_path / f"{i}.png")
    found = barlow.check(tmp_path, fast=True)
    assert found.images.value_range is not None
    low, high = found.images.value_range
    assert 100 <= low < high <= 8 * 255 + 100
    assert f"depth    8 images have more than 8 bits; {low:g} is black and {high:g} is white" in found.text()
    assert found.images.brightness > 0.2, "with the range of 16 bits they would all be black"


def test_bands_are_counted(tmp_path: Path) -> None:
    for i in range(5):
        np.save(tmp_path / f"{i}.npy", np.random.default_rng(i).integers(0, 256, (20, 20, 6), dtype=np.uint8))
    assert "5 of 5 can be read: NPY, 6 bands" in barlow.check(tmp_path, fast=True).text()


def test_what_the_folder_holds_besides_is_told(tmp_path: Path) -> None:
    photos(tmp_path, 5)
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "labels.csv").write_text("")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    told = lines_of(barlow.check(tmp_path, fast=True).text(), "notes")
    assert told == [
        "notes    1 hidden files and folders",
        "notes    1 links that lead nowhere",
        "notes    other files, not images, by extension: 1 .csv",
    ]


def test_files_with_a_wrong_ending_are_told(tmp_path: Path) -> None:
    photos(tmp_path, 5)
    (tmp_path / "000.png").rename(tmp_path / "000.jpg")
    text = barlow.check(tmp_path, fast=True).text()
    assert lines_of(text, "names") == ["names    1 file ends in .jpg, and all files are PNG inside"]


def test_of_a_set_too_large_for_all_pairs_some_images_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = photos(tmp_path / "photos", 30)
    for i in range(30):
        image = Image.open(home / f"{i:03}.png")
        image.resize((40, 40), Image.Resampling.BICUBIC).save(home / f"{i:03}-small.png")
    monkeypatch.setattr(alike, "MOST_PAIRS", 20 * 60)
    found = barlow.check(home, fast=True, sheet=tmp_path / "sheet.png")
    assert (found.images.near.compared, found.images.near.images) == (20, 20)
    assert found.images.near.clusters is None
    assert "20 of 20 images that were compared with all (100.0%)" in " ".join(found.text().split())
    assert all(
        a.split(".")[0].removesuffix("-small") == b.split(".")[0].removesuffix("-small")
        for a, b in found.images.near.examples
    )


@pytest.fixture
def too_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets in which one class of regular stripes makes the threshold nearly 1: altered copies are below it."""
    monkeypatch.setattr(thresholds, "calibrated", lambda *_: Threshold(1 - thresholds.CLOSEST, 1 - thresholds.CLOSEST))


@pytest.mark.usefixtures("too_alike")
def test_where_altered_copies_would_not_be_found_nobody_is_told_that_there_are_none(tmp_path: Path) -> None:
    train, test = photos(tmp_path / "train", 25), photos(tmp_path / "test", 12, seed=1)
    Image.open(train / "003.png").save(test / "again.jpg", quality=60)
    found = barlow.check(train, test, fast=True)
    assert found.between is not None
    assert (found.between.copies, found.between.near) == (0, 0), "a copy is there and is not found"
    text = " ".join(found.text().split())
    assert text.count("alike cannot tell near-duplicates here, because images are too alike") == 2
    assert "overlap cannot tell near-duplicates here, because images are too alike; no test image is a copy" in text
    assert text.count("of copies made of these images it finds smaller 0 %, recompressed 0 %") == 3
    assert "no near-duplicates" not in text
    assert found.as_dict()["between"]["found"]["recompressed"] == 0
    copies = barlow.duplicates(train, test).text()
    assert "no copies" not in copies
    assert copies.count("copies cannot be told here, because images are too alike") == 2


@pytest.mark.usefixtures("too_alike")
def test_of_copies_that_are_found_where_others_would_not_be_it_is_said_that_there_may_be_more(tmp_path: Path) -> None:
    train, test = photos(tmp_path / "train", 25), photos(tmp_path / "test", 12, seed=1)
    for home in (train, test):
        shutil.copy(train / "003.png", home / "same.png")
    text = " ".join(barlow.check(train, test, fast=True).text().split())
    assert "overlap 1 of 13 test images" in text
    assert text.count("there may be more, because images are too alike to tell") == 2


def test_as_many_overlaps_as_are_left_out_are_counted(tmp_path: Path) -> None:
    train, test = photos(tmp_path / "train", 14), photos(tmp_path / "test", 5, seed=1)
    for i in range(13):
        shutil.copy(train / f"{i:03}.png", test / f"copy{i:02}.png")
    text = barlow.check(train, test, fast=True).text()
    assert sum(" and " in line and "(1.000" in line for line in text.splitlines()) == 10
    assert "and 3 more (barlow duplicates with --against lists pairs)" in " ".join(text.split())


# --- Two sets ---------------------------------------------------------------------------------------------------------


def test_test_images_that_are_in_the_training_set_are_told(tmp_path: Path) -> None:
    train, test = photos(tmp_path / "train", 40, classes=2), photos(tmp_path / "test", 20, classes=2, seed=1)
    shutil.copy(train / "class0" / "000.png", test / "class0" / "copy.png")
    image = Image.open(train / "class1" / "001.png")
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(test / "class1" / "again.jpg", quality=80)
    found = barlow.check(train, test, fast=True)
    assert found.between is not None
    assert (found.between.copies, found.between.near, found.between.images) == (1, 2, 22)
    text = " ".join(found.text().split())
    assert "overlap 1 of 22 test images (4.5%) are in the training set too: they agree byte for byte" in text
    assert "overlap 2 of 22 test images (9.1%) are copies or near-duplicates of training images" in text
    again = next(each for each in found.between.examples if each["test"] == "class1/again.jpg")
    assert (again["train"], again["mirrored"]) == ("class1/001.png", True)
    assert "shift none that is beyond chance" in text


def test_test_images_without_overlap_or_shift_are_left_in_peace(tmp_path: Path) -> None:
    train, test = photos(tmp_path / "train", 60, classes=2), photos(tmp_path / "test", 30, classes=2, seed=1)
    text = barlow.check(train, test, fast=True).text()
    assert "overlap  none: no test image is a copy or a near-duplicate of a training image" in text
    assert "shift    none that is beyond chance" in text


def test_darker_test_images_and_other_shares_of_classes_are_told(tmp_path: Path) -> None:
    train, test = photos(tmp_path / "train", 80, classes=2), photos(tmp_path / "test", 40, seed=1, darker=60)
    for i, path in enumerate(sorted(test.glob("*.png"))):
        home = test / ("class1" if i % 8 else "class2")
        home.mkdir(exist_ok=True)
        path.rename(home / path.name)
    found = barlow.check(train, test, fast=True)
    text = " ".join(found.text().split())
    assert "shift test images are darker (mean brightness" in text
    assert "shift classes have other shares" in text
    assert "no test image is of class0" in text
    assert "no training image is of class2" in text


def test_pairs_of_test_and_training_images_are_in_the_picture(tmp_path: Path) -> None:
    train, test = photos(tmp_path / "train", 16), photos(tmp_path / "test", 6, seed=1)
    shutil.copy(train / "003.png", test / "again.png")
    barlow.check(train, test, fast=True, sheet=tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.size == (8 * 100 + 4, 3 * 100 + 4 + 32)  # two rows of samples, no groups, a row of one pair
        pair = np.asarray(picture)[-100:, :204]
    assert np.array_equal(pair[:96, 4:100], pair[:96, 104:200])
    assert pair[:96, 4:100].std() > 20


@pytest.mark.nightly
def test_several_labels_an_image_have_no_shares() -> None:
    found = barlow.check("shapes_multi", "shapes_multi:test", fast=True)
    assert found.between is not None
    assert found.between.classes is None
    assert "several of them an image" in " ".join(found.text().split())


def test_copies_without_contrast_count_as_overlap(tmp_path: Path) -> None:
    for name in ("train", "test"):
        photos(tmp_path / name, 20, seed=ord(name[1]))
        Image.fromarray(np.full((30, 30, 3), 7, np.uint8)).save(tmp_path / name / "dark.png")
    found = barlow.check(tmp_path / "train", tmp_path / "test", fast=True)
    assert found.between is not None
    assert (found.between.copies, found.between.near) == (1, 1)


# --- Training here ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> str:
    """A file with a recipe whose step takes milliseconds."""
    from barlow.recipe.files import as_yaml
    from barlow.recipe.request import chosen_recipe

    chosen = chosen_recipe(recipe="small_barlow_twins", overrides=tiny.SMALL)
    path = tmp_path / "tiny.yaml"
    path.write_text(as_yaml(chosen.as_dict()), encoding="utf-8")
    return str(path)


def test_the_time_of_an_epoch_and_what_minutes_are_is_told(tmp_path: Path, tiny_recipe: str) -> None:
    found = barlow.check(photos(tmp_path / "photos", 40), recipe=tiny_recipe)
    assert found.pace is not None
    assert found.pace.epoch_steps == 2
    assert 0 < found.pace.step_seconds < 5
    assert [each.minutes for each in found.pace.budgets] == [3, 15, 60]
    for each in found.pace.budgets:
        assert each.steps == max(1, int(60 * each.minutes / found.pace.step_seconds))
        assert each.epochs == pytest.approx(each.steps / 2)
    text = " ".join(found.text().split())
    assert "time an epoch takes" in text
    assert "expect no run of this recipe" in text
    assert "weights 40 images teach a network little from scratch" in text
    assert found.as_dict()["pace"]["epoch_seconds"] == pytest.approx(2 * found.pace.step_seconds)


def test_what_runs_of_the_recipe_gained_elsewhere_is_told_once(
    tmp_path: Path, tiny_recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gained = "expect   1,240 steps of small_w_mse gained +9 to +17 points over the best baseline on 3 sets of images"
    monkeypatch.setattr(checking, "before_training", lambda ran: [gained] if ran.steps > 10 else [])
    text = " ".join(barlow.check(photos(tmp_path / "photos", 20), recipe=tiny_recipe).text().split())
    assert text.count(" ".join(gained.split())) == 1
    assert "no run of this recipe" not in text


def test_what_the_same_runs_gained_is_told_once_though_some_budgets_are_shorter() -> None:
    gained = "expect   1,240 steps of small_w_mse gained +9 points over the best baseline (docs/choosing.md)"
    budgets = [
        Budget(3, 100, 1.0, [f"{gained}; this run is shorter"]),
        Budget(15, 1_200, 12.0, [gained]),
    ]
    pace = Pace("small_w_mse", "32", 64, "cpu", "in memory", 1.0, 0.1, 100, budgets, [])
    assert len([line for line in pace.lines() if line.startswith("expect")]) == 1


def test_of_what_a_run_would_choose_that_is_told_which_asks_for_something() -> None:
    choices = ["images   70 usable of 70", "aspect   images are 3 times as wide as high", "batch    16 images are few"]
    pace = Pace("small_w_mse", "32", 64, "cpu, float32", "in_memory", 1.0, 0.2, 300, [], choices)
    lines = list(pace.lines())
    assert lines[0].startswith("time     an epoch takes 60 s here: 300 steps of 64 images, 0.2 s each (small_w_mse")
    assert [line for line in choices if line in lines] == choices[1:2]


def test_a_set_that_cannot_be_trained_on_is_reported_all_the_same(tmp_path: Path) -> None:
    found = barlow.check(photos(tmp_path / "photos", 1))
    assert found.pace is None
    assert "time     not measured: 1 usable image" in found.text()


def test_a_check_leaves_the_generator_and_the_folder_as_they_were(tmp_path: Path, tiny_recipe: str) -> None:
    import torch

    home = photos(tmp_path / "photos", 24)
    before, state, here = everything(home), torch.get_rng_state(), set(Path.cwd().iterdir())
    barlow.check(home, home, recipe=tiny_recipe, sheet=tmp_path / "sheet.png")
    assert everything(home) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert set(Path.cwd().iterdir()) == here


# --- Views of one object ----------------------------------------------------------------------------------------------


def with_everything_wrong(tmp_path: Path) -> tuple[Path, Path]:
    train, test = photos(tmp_path / "train", 30, classes=3), photos(tmp_path / "test", 20, classes=2, darker=90)
    evil = train / "class0" / ("\x1b[31m" + "long name " * 12 + "x" * 75 + ".png")
    shutil.copy(train / "class0" / "000.png", evil)
    (train / "class1" / "x.jpg").write_bytes(b"\xff\xd8\xff")
    (train / "\x1b[2Jempty").mkdir()
    return train, test


def test_the_text_fits_eighty_columns_and_has_no_escapes(tmp_path: Path, tiny_recipe: str) -> None:
    train, test = with_everything_wrong(tmp_path)
    text = barlow.check(train, test, recipe=tiny_recipe).text()
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "\\x1b[2Jempty" in text
    words = {"images", "bad", "size", "pixels", "classes", "copies", "alike", "empty", "overlap", "shift", "---"}
    words |= {"time", "budget", "expect", "weights", "names"}
    for line in text.splitlines():
        assert line.split(" ", 1)[0] in words or line.startswith(" " * 9), "names of files have a column of their own"


def test_json_has_all_that_the_text_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = with_everything_wrong(tmp_path)
    words = ["check", str(train), "--test", str(test), "--fast"]
    assert cli.main([*words, "--json"]) == exits.OK
    out = capsys.readouterr().out
    assert "\x1b" not in out
    content = json.loads(out)
    found = barlow.check(train, test, fast=True)
    assert content == json.loads(json.dumps(found.as_dict()))
    assert cli.main(words) == exits.OK
    assert capsys.readouterr().out == found.text()
    assert content["images"]["usable"] == 31
    assert "brightness" in [shift["what"] for shift in content["between"]["shifts"] if shift["told"]]


def test_the_picture_shows_samples_and_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = photos(tmp_path / "photos", 20)
    shutil.copy(home / "000.png", home / "copy.png")
    assert cli.main(["check", str(home), "--fast", "--sheet", str(tmp_path / "sheet.png")]) == exits.OK
    with Image.open(tmp_path / "sheet.png") as picture:
        rows = 3 + 1  # of 21 samples, and of one group
        assert picture.size == (8 * 100 + 4, rows * 100 + 4 + 16)
    assert "sheet.png" in capsys.readouterr().err


# --- What is wrong with the question ----------------------------------------------------------------------------------


def test_a_picture_among_the_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = photos(tmp_path / "photos", 5)
    assert cli.main(["check", str(home), "--fast", "--sheet", str(home / "sheet.png")]) == exits.USAGE
    assert "would be among the images" in capsys.readouterr().err
    assert not (home / "sheet.png").exists()


@pytest.mark.parametrize("words", [["nowhere"], ["photos", "--test", "nowhere"]])
def test_what_does_not_exist_ends_with_66(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(tmp_path / "photos", 5)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["check", "--fast", *words]) == exits.NO_INPUT
    assert "nowhere" in capsys.readouterr().err


def test_nothing_usable_ends_with_65_and_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    assert cli.main(["check", str(tmp_path), "--fast"]) == exits.DATA
    assert "a.jpg: empty file" in capsys.readouterr().err


def test_an_unknown_recipe_ends_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*given: Any, **more: Any) -> None:
        raise AssertionError("images were read")

    monkeypatch.setattr(checking, "survey", never)
    assert cli.main(["check", str(photos(tmp_path / "p", 5)), "-c", "small_w_msee"]) == exits.USAGE
    assert "did you mean" in capsys.readouterr().err


def test_weights_that_a_recipes_file_names_are_not_fetched(
    tmp_path: Path, tiny_recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "nothing"))
    text = Path(tiny_recipe).read_text(encoding="utf-8").replace("init: null", "init: timm:resnet18.a1_in1k")
    Path(tiny_recipe).write_text(text, encoding="utf-8")
    assert cli.main(["check", str(photos(tmp_path / "p", 5)), "-c", tiny_recipe]) == exits.USAGE
    assert "would be downloaded, and a file does not decide that" in capsys.readouterr().err


def test_a_named_set_is_checked_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "digits", "--test", "digits:test", "--fast"]) == exits.OK
    out = capsys.readouterr().out
    assert "images   1,442 of 1,442 can be read: grey" in out
    assert "classes  10: " in out
    assert "alike    near-duplicates were not looked for: most images have fewer than 16" in out
    assert "overlap  near-duplicates were not looked for: most images are too small; no test" in out


def test_a_set_whose_images_are_mostly_alike_says_where_to_look(tmp_path: Path) -> None:
    for i in range(6):
        image = scenes(1, 0, side=48)[0]
        Image.fromarray(image + np.random.default_rng(i).integers(0, 3, image.shape, np.uint8)).save(
            tmp_path / f"{i}.png"
        )
    text = " ".join(barlow.check(tmp_path, fast=True).text().split())
    assert "alike 6 images (100.0%) have near-duplicates: 1 group, the largest of 6" in text
    assert "so many may be alike by nature, and no copies: --sheet FILE.png shows the groups" in text


def test_lines_in_python_speak_of_arguments(tmp_path: Path) -> None:
    home = photos(tmp_path / "photos", 5)
    with pytest.raises(ValueError, match=r"sheet .* would be among the images"):
        barlow.check(home, fast=True, sheet=home / "x.png")


def test_the_survey_is_the_same_with_any_number_of_threads() -> None:
    from barlow.data.survey import survey

    source = ArraySource("x", scenes(50, 0, side=32))
    one, three = (survey(source, workers=workers, counted=not_shown) for workers in (1, 3))
    assert np.array_equal(one.thumbnails, three.thumbnails)
    assert np.array_equal(one.colour, three.colour)
