"""Sizes of views, from what a user asks for to an encoder that is evaluated."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import yaml
from PIL import Image

import barlow
from barlow import checkpoints, storage
from barlow.distributed import World
from barlow.planning import preparation
from barlow.pretraining import Result, pretrain
from barlow.recipe import files, schema
from barlow.recipe.messages import RecipeError
from barlow.recipe.request import chosen_recipe
from barlow.size import aspect, height_width, largest_inside, resized, size_of, words
from barlow.views.ops import RandomResizedCrop

NETWORK = {key: value for key, value in tiny.SMALL.items() if key != "data.image_size"}
"""A tiny run whose size of views is the recipe's `auto`."""


def trained(images: Path, out: Path, said: list[str] | None = None, **arguments: Any) -> Result:
    overrides = NETWORK | {"train.steps": 2} | arguments.pop("overrides", {})
    tell = None if said is None else said.append
    return pretrain(images, out, progress=False, overrides=overrides, tell=tell, **arguments)


# --- What a size is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "size", "said"),
    [
        (64, 64, "64"),
        ("64", 64, "64"),
        ([32, 128], (32, 128), "32x128"),
        ((32, 128), (32, 128), "32x128"),
        ("32x128", (32, 128), "32x128"),
        ("128×32", (128, 32), "128x32"),
        ([48, 48], 48, "48"),
        ("48X48", 48, "48"),
        ([7], 7, "7"),
    ],
)
def test_every_spelling_of_a_size_becomes_one(given: object, size: object, said: str) -> None:
    found = size_of(given)
    assert found == size
    assert type(found) is type(size)
    assert words(found) == said
    assert size_of(words(found)) == size_of(list(height_width(found))) == size


@pytest.mark.parametrize(
    "given",
    ["", "x", "32x", "x32", "0x10", "1x2x3", "3.5", "٣", "-4", 0, -1, 2.0, True, None, [], [4, True], {}, "auto"],
)
def test_what_is_no_size_is_named_with_what_is_allowed(given: object) -> None:
    with pytest.raises(ValueError, match=r"give the side of a square, or height x width .*integers of at least 1") as e:
        size_of(given, "the view")
    assert str(e.value).startswith(f"the view is {given!r}; ")


def test_the_shortest_and_the_longest_side_have_limits() -> None:
    assert size_of([4, 9], least=4, most=9) == (4, 9)
    for given in ([3, 9], [4, 10], 10, 3):
        with pytest.raises(ValueError, match="integers from 4 to 9, or auto"):
            size_of(given, least=4, most=9, otherwise=", or auto")


def test_boxes_and_resized_shapes_keep_the_aspect_ratio() -> None:
    assert largest_inside((20, 50), (1, 1)) == (20, 20)
    assert largest_inside((20, 50), (1, 4)) == (12.5, 50)
    assert largest_inside((30, 100), (30, 100)) == (30, 100)
    for shape in ((32, 128), (128, 32), (7, 9), (224, 224)):
        high, wide = resized(shape, 1024)
        assert 0.9 < wide / high / aspect(shape) < 1.1
        assert 0.9 < high * wide / 1024 < 1.1
    assert all(resized((side, side), 32 * 32) == (32, 32) for side in range(1, 2049))
    assert resized((1, 10_000), 100) == (1, 1000)


# --- Small images -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "view", "why"),
    [(28, 28, "the images' own shorter side"), (32, 24, "three quarters"), (19, 19, "the images' own shorter side")],
)
def test_small_images_keep_their_own_size_and_the_run_says_why(side: int, view: int, why: str, tmp_path: Path) -> None:
    said: list[str] = []
    result = trained(tiny.images(tmp_path / "images", 40, side=side), tmp_path / "run", said)
    (line,) = [line for line in said if line.startswith("size ")]
    assert line.startswith(f"size     {view} px: {why}")
    encoder = barlow.load_encoder(result.run_folder)
    assert encoder.preprocessing.size == view
    x = encoder.preprocess(tmp_path / "images" / "000.png")
    assert x.shape == (1, 3, view, view)
    assert torch.equal(encoder(x), result.encoder(x))


def test_a_size_that_was_given_needs_no_reason(tmp_path: Path) -> None:
    said: list[str] = []
    trained(tiny.images(tmp_path / "images", 40), tmp_path / "run", said, image_size=20)
    assert not [line for line in said if line.startswith("size ")]


# --- Views that are not square ------------------------------------------------------------------------------------

WIDE = (16, 40)


@pytest.fixture(scope="module")
def strips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data") / "strips", 48, classes=3, side=(20, 90))


@pytest.fixture(scope="module")
def finished(strips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(strips, tmp_path_factory.mktemp("runs") / "run", image_size="16x40").run_folder


def test_a_run_writes_down_height_and_width(finished: Path) -> None:
    recipe = yaml.safe_load((finished / "recipe.yaml").read_text())
    assert recipe["data"]["image_size"] == [16, 40]
    assert [op["size"] for view in recipe["views"] for op in view if "size" in op] == [[16, 40]] * 2
    config = storage.read_json(finished / "encoder" / "config.json")
    assert config["image_size"] == config["preprocessing"]["size"] == [16, 40]
    with Image.open(finished / "views.png") as sheet:
        assert sheet.width > 2 * sheet.height / 1.5, "cells are as wide as the views are"


def test_a_recipe_with_a_height_and_a_width_is_the_same_after_json_and_yaml(finished: Path) -> None:
    chosen = schema.check(yaml.safe_load((finished / "recipe.yaml").read_text()))
    assert chosen.data.image_size == WIDE
    assert [op.size for op in chosen.build_views()[1] if isinstance(op, RandomResizedCrop)] == [WIDE]
    assert schema.check(json.loads(json.dumps(chosen.as_dict()))) == chosen
    assert schema.check(yaml.safe_load(files.as_yaml(chosen.as_dict()))) == chosen


def test_the_encoder_that_is_loaded_takes_the_centre_of_that_shape(finished: Path, strips: Path) -> None:
    encoder = barlow.load_encoder(finished)
    assert encoder.preprocessing.size == WIDE
    assert encoder.built_as.image_size == WIDE
    x = encoder.preprocess([strips / "class0" / "000.png", np.zeros((64, 64, 3), np.uint8)])
    assert x.shape == (2, 3, 16, 40)
    assert encoder(x).shape == (2, encoder.num_features)


def test_it_is_evaluated_beside_pixels_and_the_untrained_network(finished: Path, strips: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    found = barlow.evaluate(run, strips, strips, protocols=["knn", "linear_sgd"], augment=True)
    assert set(found.results) == {"encoder", "pixels_16", "pixels_16x40", "untrained", "untrained_recalibrated"}
    assert found.report["preprocessing"]["size"] == [16, 40]
    assert found.scores["pixels_16"]["knn.top1"].value == 1.0, "the colours tell the classes"


@pytest.mark.parametrize("executor", ["in_memory", "streaming"])
def test_a_run_that_was_stopped_goes_on_to_the_bit(executor: str, strips: Path, tmp_path: Path) -> None:
    changes = {"train.steps": 4, "train.checkpoint_steps": 2, "data.executor": executor, "data.workers": 0}
    whole = trained(strips, tmp_path / "whole", image_size=WIDE, overrides=changes).run_folder
    stopped = shutil.copytree(whole, tmp_path / "stopped")
    shutil.rmtree(stopped / "encoder")
    shutil.rmtree(stopped / "checkpoints" / "step-000004")
    assert checkpoints.newest(stopped)[0].step == 2
    with pytest.raises(RecipeError, match=r"data\.image_size is \[16, 40\]; you gave 16"):
        pretrain(out=stopped, resume=True, progress=False, image_size=16)
    pretrain(out=stopped, resume=True, progress=False, image_size="16x40")
    assert tiny.weights(stopped) == tiny.weights(whole)


def test_both_executors_make_the_same_views_of_images_that_are_held_whole(tmp_path: Path) -> None:
    images = tiny.images(tmp_path / "images", 32, side=(20, 90))
    loaders = []
    for executor in ("in_memory", "streaming"):
        changes = NETWORK | {
            "data.executor": executor,
            "data.workers": 0,
            "data.mean": [0.5] * 3,
            "data.std": [0.5] * 3,
        }
        chosen = chosen_recipe(images, image_size=WIDE, overrides=changes)
        loaders.append(preparation.prepare(chosen, World(torch.device("cpu"))).loader)
    for memory, streamed in zip(*(loader.stream(0, 3) for loader in loaders), strict=True):
        assert torch.equal(memory.rows.known["ids"], streamed.rows.known["ids"])
        for one, other in zip(memory.rows.views, streamed.rows.views, strict=True):
            assert one.shape == other.shape == (16, 3, *WIDE)
            assert (one - other).abs().mean() <= 2 / 255 / 0.5
    (one, *_), (other, *_) = (list(loader.all_rows()) for loader in loaders)
    assert (one.views[0] - other.views[0]).abs().mean() <= 2 / 255 / 0.5


@pytest.mark.parametrize("encoder", ["vit_tiny_patch16_224", "own"])
def test_other_encoders_are_trained_and_loaded_too(encoder: str, strips: Path, tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d((1, 2)), torch.nn.Flatten(), torch.nn.Linear(6, 5))
    given: Any = module if encoder == "own" else encoder
    overrides = {"encoder.options": {} if encoder == "own" else {"depth": 1, "patch_size": 8}, "train.steps": 1}
    result = trained(strips, tmp_path / "run", image_size="16x40", encoder=given, overrides=overrides)
    loaded = barlow.load_encoder(result.run_folder, module if encoder == "own" else None)
    x = loaded.preprocess(strips / "class0" / "000.png")
    assert torch.equal(loaded(x), result.encoder(x))


def test_the_lines_at_the_start_say_which_side_is_which(strips: Path, tmp_path: Path) -> None:
    said: list[str] = []
    trained(strips, tmp_path / "run", said, image_size="16x40", overrides={"train.steps": 1})
    text = "\n".join(said)
    assert "median 20x90 (height x width)" in text
    assert "2 of 16x40 px (height x width)" in text


# --- Long, thin images --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "line"),
    [
        (
            (40, 600),
            "aspect   images are 15 times as wide as high (median), and square views show little of one; "
            "image_size='16x240' (height x width) fits them, with 6.7 times the pixels of a square view",
        ),
        (
            (150, 50),
            "aspect   images are 3 times as high as wide (median), and square views show little of one; "
            "image_size='48x16' (height x width) fits them, with 0.8 times the pixels of a square view",
        ),
        ((40, 80), None),
        ((80, 40), None),
    ],
)
def test_a_run_on_long_images_says_which_size_would_fit_them(
    shape: tuple[int, int], line: str | None, tmp_path: Path
) -> None:
    images, said = tiny.images(tmp_path / "images", 20, side=shape), []
    trained(images, tmp_path / "run", said, overrides={"train.steps": 1})
    found = [line for line in said if line.startswith("aspect ")]
    if line is None:
        assert not found
        return
    assert found == [line]
    size = found[0].split("image_size='")[1].split("'")[0]
    again: list[str] = []
    trained(images, tmp_path / "again", again, image_size=size, overrides={"train.steps": 1})
    assert f"2 of {size} px" in "\n".join(again)
    assert not [line for line in again if line.startswith(("aspect ", "size "))]


def test_long_images_are_held_with_the_pixels_that_their_views_need(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(20):  # stripes, 5 pixels wide
        pixels = np.broadcast_to(255 * (np.arange(600) // 5 % 2)[:, None], (40, 600, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    crop = {"kind": "random_resized_crop", "size": "auto", "scale": [0.2, 0.3]}
    changes = {"views": [[crop], [crop]], "data.mean": [0.0], "data.std": [1.0], "data.workers": 0}
    contrast = {}
    for executor in ("in_memory", "streaming"):
        chosen = chosen_recipe(images, image_size=(32, 128), overrides=NETWORK | changes | {"data.executor": executor})
        prepared = preparation.prepare(chosen, World(torch.device("cpu")))
        assert prepared.plan.working_size == ((40, 600) if executor == "in_memory" else (48, 720))
        contrast[executor] = next(iter(prepared.loader.stream(0, 1))).rows.views[0].std().item()
    assert contrast["in_memory"] == pytest.approx(contrast["streaming"], rel=0.01)
    assert contrast["in_memory"] > 0.35, "the stripes are there"
