"""What people get wrong: one clear line that names it and says what to do, a failing exit code, no traceback."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from PIL import Image

from barlow import cli

Failing = Callable[..., str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    run = tmp_path_factory.mktemp("runs") / "finished"
    assert cli.main(["pretrain", str(photos), "--out", str(run), *tiny.words(train__steps=1)]) == 0
    return run


@pytest.fixture
def failing(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Failing:
    """Runs a command that must fail, in an empty folder, and returns its one line."""
    monkeypatch.chdir(tmp_path)

    def run(*words: Any) -> str:
        capsys.readouterr()
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stopped:
            code = stopped.code
        out, err = capsys.readouterr()
        assert code not in (0, None)
        assert out == "", "an error is not output"
        assert "Traceback" not in err
        *before, last = err.splitlines()
        assert not [line for line in before if line.startswith("barlow: ")], "one line, not two"
        assert last.startswith("barlow: ")
        assert len(last) < 400, "a line, not a page"
        assert "--debug shows where" not in last, "this error was foreseen"
        return last.removeprefix("barlow: ")

    return run


# --- Images -------------------------------------------------------------------------------------------------------


def test_a_path_that_does_not_exist(failing: Failing, tmp_path: Path) -> None:
    said = failing("pretrain", tmp_path / "nowhere" / "photos", "--out", "run")
    assert str(tmp_path / "nowhere") in said
    assert "check the path" in said


def test_a_name_that_is_no_set(failing: Failing) -> None:
    said = failing("pretrain", "shaeps")
    assert "'shaeps'" in said
    assert "did you mean shapes?" in said


def test_an_empty_folder(failing: Failing, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    said = failing("pretrain", "photos")
    assert "no images in photos" in said


def test_a_file_in_place_of_a_folder(failing: Failing, photos: Path) -> None:
    assert "is a file, not a folder" in failing("pretrain", photos / "000.png")


def test_one_image(failing: Failing, tmp_path: Path, photos: Path) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(photos / "000.png", tmp_path / "one")
    said = failing("pretrain", "one")
    assert "1 usable image in one" in said
    assert "at least 2" in said


def test_nothing_given(failing: Failing) -> None:
    assert "no images are named; give a folder" in failing("pretrain")


def test_too_many_unreadable_images(failing: Failing, tmp_path: Path, photos: Path) -> None:
    shutil.copytree(photos, tmp_path / "mixed")
    for i in range(3):
        (tmp_path / "mixed" / f"bad{i}.png").write_bytes(b"not an image")
    said = failing("pretrain", "mixed", *tiny.words(train__steps=1))
    assert "3 of 43 images" in said
    assert "bad0.png" in said
    assert "--max-bad 0.07" in said
    assert cli.main(["pretrain", "mixed", "--max-bad", "0.07", *tiny.words(train__steps=1)]) == 0


# --- Recipe, flags, encoder ---------------------------------------------------------------------------------------


def test_an_unknown_recipe(failing: Failing, photos: Path) -> None:
    said = failing("pretrain", photos, "-c", "small_vicerg")
    assert "unknown recipe 'small_vicerg'" in said
    assert "'small_vicreg'" in said


def test_an_unknown_key(failing: Failing, photos: Path) -> None:
    said = failing("pretrain", photos, "-c", "small_barlow_twins", "--objective.redundency", "0.01")
    assert "unknown key objective.redundency (did you mean 'redundancy'?)" in said


def test_a_wrong_value(failing: Failing, photos: Path) -> None:
    assert "optim.lr_per_256 is 'fast'" in failing("pretrain", photos, "--optim.lr_per_256", "fast")


def test_a_value_that_is_not_yaml(failing: Failing, photos: Path) -> None:
    assert "--views.0.0.scale: '[0.2,' is not a value" in failing("pretrain", photos, "--views.0.0.scale", "[0.2,")


def test_a_key_without_a_value(failing: Failing, photos: Path) -> None:
    assert "--objective.gamma needs a value" in failing("pretrain", photos, "--objective.gamma")


@pytest.mark.parametrize(
    ("flag", "nearest"),
    [
        ("--epoch", "--epochs"),
        ("--batchsize", "--batch-size"),
        ("--batch", "--batch-size"),
        ("--batch_size", "--batch-size"),
        ("--see", "--seed"),
        ("--lr", "--optim.lr_per_256"),
        ("--lr_per_256", "--optim.lr_per_256"),
        ("--lambda", "--objective.redundancy"),
        ("--weight-decay", "--optim.weight_decay"),
        ("--temperature", "--objective.temperature"),
        ("--gpus", "--devices"),
        ("--backbone", "--encoder"),
    ],
)
def test_an_unknown_flag(failing: Failing, photos: Path, flag: str, nearest: str) -> None:
    said = failing("pretrain", photos, flag, "3")
    assert f"unknown flag {flag!r}; did you mean {nearest}?" in said


@pytest.mark.parametrize("flag", ["--hlep-me", "--x", "--teacher"])
def test_an_unknown_flag_that_is_near_to_none_gets_no_guess(failing: Failing, photos: Path, flag: str) -> None:
    assert failing("pretrain", photos, flag, "3") == f"unknown flag {flag!r} (see barlow pretrain --help)"


def test_a_rate_is_no_flag_of_an_evaluation(failing: Failing) -> None:
    assert failing("evaluate", "run", "--lr", "3") == "unknown flag '--lr' (see barlow evaluate --help)"


@pytest.mark.parametrize("kind", ["mae", "dino", "nnclr"])
def test_an_objective_that_there_is_not_gets_no_far_fetched_guess(failing: Failing, photos: Path, kind: str) -> None:
    said = failing("pretrain", photos, "--objective", kind, "--steps", "1")  # one step, should there be one some day
    assert f"objective.kind is {kind!r}; allowed: barlow_twins," in said
    assert "did you mean" not in said


def test_a_flag_of_the_wrong_type(failing: Failing, photos: Path) -> None:
    said = failing("pretrain", photos, "--steps", "many")
    assert "--steps" in said
    assert "'many'" in said


@pytest.mark.parametrize(
    "size", ["32x", "x32", "0x10", "32x128x3", "32.5", "32.0x64", "-32", "big", "", "32 x 128", "3x64", "32x4000"]
)
def test_a_size_that_is_none(failing: Failing, photos: Path, size: str) -> None:
    said = failing("pretrain", photos, f"--image-size={size}")
    assert f"data.image_size is {size!r}; give the side of a square, or height x width (64, 32x128" in said
    assert "from 4 to 2048, or auto" in said


def test_views_on_their_side_that_are_turned(failing: Failing, photos: Path) -> None:
    words = tiny.words(data__image_size=[16, 32], method__projector__widths=[4])
    said = failing(
        "pretrain", photos, "-c", "small_rotation", *[w for w in words if "projector" not in w and w != "[4]"]
    )
    assert "view 1: got random_rotate90 and a size of 16x32 (height x width)" in said
    assert "give one side (16), or leave random_rotate90 out" in said


def test_a_size_that_patches_do_not_fill(failing: Failing, photos: Path, tmp_path: Path) -> None:
    words = ["--encoder", "vit_tiny_patch16_224", "--image-size", "32x100", "--steps", "1", "--device", "cpu"]
    said = failing("pretrain", photos, "--out", "run", *words)
    assert "patches of 16 pixels, which do not fill 32x100" in said
    assert "Take an image size of 32x96" in said
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_an_unknown_verb(failing: Failing, photos: Path) -> None:
    assert "pretrian" in failing("pretrian", photos)


def test_an_unknown_objective(failing: Failing, photos: Path) -> None:
    said = failing("pretrain", photos, "--objective", "vicrge")
    assert "'vicrge'" in said
    assert "'vicreg'" in said


def test_two_budgets(failing: Failing, photos: Path) -> None:
    said = failing("pretrain", photos, "--epochs", "3", "--minutes", "2")
    assert "--epochs and --minutes are given; keep one" in said


def test_an_unknown_encoder_leaves_no_half_run_behind(failing: Failing, photos: Path, tmp_path: Path) -> None:
    words = [*tiny.words(train__steps=1), "--encoder.options", "{}"]
    said = failing("pretrain", photos, "--out", "run", *words, "--encoder", "resnet81")
    assert "unknown encoder 'resnet81'; nearest: " in said
    assert "resnet18" in said
    assert cli.main(["pretrain", str(photos), "--out", "run", *words[:-2], "--encoder.name", "resnet18"]) == 0


def test_an_unknown_device(failing: Failing, photos: Path) -> None:
    assert "unknown device 'tpu'; allowed: auto, cpu" in failing("pretrain", photos, "--device", "tpu")


def test_initial_weights_that_are_not_there(failing: Failing, photos: Path) -> None:
    said = failing("pretrain", photos, *tiny.words(train__steps=1), "--init", "runs/nothing")
    assert "no weights at 'runs/nothing'" in said


def test_too_small_a_batch_for_whitening(failing: Failing, photos: Path) -> None:
    words = tiny.words(train__steps=1, method__projector__widths=[20], objective__shrinkage=0)
    said = failing("pretrain", photos, *words, "-c", "small_w_mse")
    assert "--batch-size 16" in said
    assert "embeddings of width 20" in said
    assert "--batch-size 32 would do" in said
    words = tiny.words(train__steps=1, method__projector__widths=[64], objective__shrinkage=0)
    said = failing("pretrain", photos, *words, "-c", "small_w_mse")
    assert "40 usable images are too few for w_mse with embeddings of width 64" in said
    assert "--batch-size" not in said


def test_fewer_images_than_a_batch(failing: Failing, photos: Path) -> None:
    said = failing("pretrain", photos, *tiny.words(train__steps=1, train__batch_size=64))
    assert "40 usable images are fewer than a batch of 64: use --batch-size 32" in said


# --- The run folder -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["file", "file/run"])
def test_an_output_with_a_file_in_the_way(failing: Failing, photos: Path, tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    said = failing("pretrain", photos, "--out", out)
    assert "file" in said
    assert "folder" in said
    assert (tmp_path / "file").read_bytes() == b"precious"


def test_an_output_without_permission(
    failing: Failing, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    if getattr(os, "geteuid", lambda: 0)() == 0:  # root may write anywhere: the system's own refusal stands in
        mkdir = Path.mkdir

        def refused(path: Path, *given: Any, **more: Any) -> None:
            if path.absolute().parent == tmp_path / "locked":
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            mkdir(path, *given, **more)

        monkeypatch.setattr(Path, "mkdir", refused)
    assert "permission denied" in failing("pretrain", photos, "--out", "locked/run")
    assert list((tmp_path / "locked").iterdir()) == []


def test_an_output_name_that_is_too_long(failing: Failing, photos: Path) -> None:
    assert "too long" in failing("pretrain", photos, "--out", "x" * 300)


def test_resuming_without_a_run(failing: Failing, tmp_path: Path) -> None:
    assert "--resume needs --out" in failing("pretrain", "--resume")
    for name in ("nothing", "empty"):
        said = failing("pretrain", "--resume", "--out", name)
        assert f"there is no run in {name} to go on with, and no images are named to begin one" in said
        (tmp_path / "empty").mkdir(exist_ok=True)


def test_a_second_run_in_the_same_folder(failing: Failing, photos: Path, finished: Path) -> None:
    before = tiny.weights(finished)
    said = failing("pretrain", photos, "--out", finished)
    assert "is not empty; use --resume" in said
    assert "--overwrite" in said
    assert tiny.weights(finished) == before


def test_overwriting_what_is_not_a_run(failing: Failing, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_bytes(b"precious")
    assert "--overwrite does not touch it" in failing("pretrain", photos, "--out", "thesis", "--overwrite")
    assert (tmp_path / "thesis" / "chapter1.tex").read_bytes() == b"precious"


def test_a_damaged_recipe_in_the_run(failing: Failing, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    for content in (b"a: [", b"\xff\xfe\xfd"):
        (tmp_path / "run" / "recipe.yaml").write_bytes(content)
        assert "recipe.yaml is not valid YAML" in failing("pretrain", "--resume", "--out", "run")


# --- Evaluation ---------------------------------------------------------------------------------------------------


def test_evaluating_without_a_run(failing: Failing, labelled: Path) -> None:
    said = failing("evaluate", "runs/nothing", "--train", labelled, "--test", labelled)
    assert "no encoder 'runs/nothing'; give a run folder, RUN@STEP" in said


def test_evaluating_without_labelled_images(failing: Failing, finished: Path, photos: Path, labelled: Path) -> None:
    assert "--train and --test not given" in failing("evaluate", finished)
    said = failing("evaluate", finished, "--train", photos, "--test", labelled)
    assert "has no labels; put its images into one sub-folder for each class" in said


def test_evaluating_with_other_classes(failing: Failing, finished: Path, labelled: Path, tmp_path: Path) -> None:
    for old, new in (("class0", "cat"), ("class1", "dog")):
        shutil.copytree(labelled / old, tmp_path / "test" / new)
    said = failing("evaluate", finished, "--train", labelled, "--test", "test")
    assert "--test has classes that --train has not (cat, dog)" in said


def test_evaluating_a_step_that_was_not_kept(failing: Failing, finished: Path, labelled: Path) -> None:
    said = failing("evaluate", f"{finished}@7", "--train", labelled, "--test", labelled)
    assert "has no checkpoint of step 7; there are: 0, 1" in said


def test_evaluating_with_a_probe_that_is_not_known(failing: Failing, finished: Path, labelled: Path) -> None:
    said = failing("evaluate", finished, "--train", labelled, "--test", labelled, "--protocol", "svn")
    assert "'svn'" in said
    assert "knn" in said


def test_evaluating_with_a_recipes_key(failing: Failing, finished: Path) -> None:
    said = failing("evaluate", finished, "--optim.lr_per_256", "1")
    assert "--optim.lr_per_256 is a recipe's key; only `barlow pretrain` takes those" in said


def test_evaluating_with_unreadable_images(failing: Failing, finished: Path, labelled: Path, tmp_path: Path) -> None:
    shutil.copytree(labelled, tmp_path / "test")
    Image.new("RGB", (4, 4)).save(tmp_path / "test" / "class0" / "good.png")
    (tmp_path / "test" / "class0" / "bad.png").write_bytes(b"")
    said = failing("evaluate", finished, "--train", labelled, "--test", "test")
    assert "1 of 26 images of --test" in said
    assert "--max-bad 0.04" in said


# --- Lists --------------------------------------------------------------------------------------------------------


def test_listing_what_is_not_there(failing: Failing) -> None:
    assert "'probes'" in failing("list", "probes")
    assert "'resnet*'" in failing("list", "recipes", "resnet*")
    assert "no timm encoder is called 'nothing-such'" in failing("list", "encoders", "nothing-such")
