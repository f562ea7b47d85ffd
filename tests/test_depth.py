"""Runs on images of any depth and any number of bands, from the files to the scores."""

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models import adapt_input_conv

from barlow.data.decoding import stored_values
from barlow.data.labelled import read_labelled
from barlow.evaluation import evaluate
from barlow.nets.building import build_encoder
from barlow.nets.fitting import adapted
from barlow.nets.weights import initialise
from barlow.pretraining import pretrain
from barlow.recipe.messages import RecipeError
from barlow.runs.finishing import load_encoder

sys.path.insert(0, str(Path(__file__).parent / "data"))
import measurements

SMALL = tiny.SMALL | {"data.executor": "in_memory"}


def run(images: Path, out: Path, **changes: Any) -> list[str]:
    """Pretrains on images, and returns what was told."""
    told: list[str] = []
    overrides = SMALL | {key.replace("__", "."): value for key, value in changes.items()}
    pretrain([images], out, recipe="small_barlow_twins", overrides=overrides, progress=False, tell=told.append)
    return told


def recipe_of(out: Path) -> dict[str, Any]:
    content = yaml.safe_load((out / "recipe.yaml").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


@pytest.fixture(scope="module")
def bands(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path, list[str]]:
    """Twelve bands of 12 bits in 16: training and test images, a run on them, and what it told."""
    home = tmp_path_factory.mktemp("bands")
    train = measurements.scenes(home / "train", 96, bands=12)
    test = measurements.scenes(home / "test", 64, bands=12, seed=1)
    return train, test, home / "run", run(train, home / "run", train__steps=40)


def test_a_labelled_folder_of_twelve_bands_pretrains_and_evaluates_above_chance(
    bands: tuple[Path, Path, Path, list[str]],
) -> None:
    train, test, out, _ = bands
    scores = evaluate(out, train, test, protocols=["knn", "logistic"]).scores
    for probe in ("knn.top1", "logistic.top1"):
        assert scores["encoder"][probe].value > 0.75, f"{probe}: of two classes, chance is a half"
    assert scores["pixels_16"]["knn.top1"].value > 0.5


def test_what_was_chosen_is_told_and_stands_in_the_recipe_and_in_the_encoder(
    bands: tuple[Path, Path, Path, list[str]],
) -> None:
    _, _, out, told = bands
    recipe, lines = recipe_of(out), "\n".join(told)
    low, high = recipe["data"]["value_range"]
    assert 0 <= low < high <= 4_095
    assert recipe["data"]["channels"] == len(recipe["data"]["mean"]) == len(recipe["data"]["std"]) == 12
    assert f"values   {low:g} is black and {high:g} is white, in 16 bits (uint16; found over 96 images" in lines
    assert "12 bands" in lines
    assert "each channel is changed by itself, in place of hue, saturation and grey" in lines
    kinds = {op["kind"] for view in recipe["views"] for op in view}
    assert {"channel_jitter", "channel_dropout"} <= kinds
    assert not kinds & {"color_jitter", "grayscale"}
    encoder: Any = load_encoder(out)
    assert encoder.preprocessing.value_range == (low, high)
    assert encoder.preprocessing.channels == 12


def test_preprocess_makes_of_a_file_and_of_its_array_what_evaluation_makes(
    bands: tuple[Path, Path, Path, list[str]],
) -> None:
    _, test, out, _ = bands
    encoder: Any = load_encoder(out)
    path = sorted((test / "class0").iterdir())[1]
    views = next(iter(read_labelled(test, "test", encoder.preprocessing, 0.0).views(8)))
    x = encoder.preprocess(path)
    assert x.shape == (1, 12, 16, 16)
    torch.testing.assert_close(x[0], views[1], atol=1e-6, rtol=0)
    stored = stored_values(path.read_bytes())
    assert stored is not None
    for kind in (np.uint16, np.int32, np.float32):
        torch.testing.assert_close(encoder.preprocess(stored.values.astype(kind)), x, atol=1e-6, rtol=0)
    assert len(x.unique()) > 1_000, "more than 8 bits would hold"
    with pytest.raises(ValueError, match="has 3 bands, and images are read with 12"):
        encoder.preprocess(np.zeros((20, 20, 3), np.uint16))


def test_the_recipe_of_a_run_repeats_it_and_streaming_learns_the_same(
    bands: tuple[Path, Path, Path, list[str]], tmp_path: Path
) -> None:
    train, _, out, _ = bands
    pretrain([train], tmp_path / "again", recipe=str(out / "recipe.yaml"), progress=False)
    assert tiny.weights(tmp_path / "again") == tiny.weights(out)
    told = run(train, tmp_path / "streamed", data__executor="streaming", train__steps=2)
    assert any("streamed" in line for line in told)
    kept = ("value_range", "channels")
    first, second = (recipe_of(folder)["data"] for folder in (out, tmp_path / "streamed"))
    assert [first[key] for key in kept] == [second[key] for key in kept]
    np.testing.assert_allclose(first["mean"], second["mean"], atol=1e-6)


def test_a_run_on_many_bands_goes_on_to_the_bit(tmp_path: Path) -> None:
    train = measurements.scenes(tmp_path / "train", 32, bands=5)
    run(train, tmp_path / "run", train__steps=4, train__checkpoint_steps=2, data__executor="streaming")
    whole = tiny.weights(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000004")
    shutil.rmtree(tmp_path / "run" / "encoder")
    pretrain(None, tmp_path / "run", resume=True, progress=False)
    assert tiny.weights(tmp_path / "run") == whole


@pytest.mark.nightly
@pytest.mark.parametrize("executor", ["in_memory", "streaming"])
def test_two_processes_train_on_many_bands_as_one_does(executor: str, tmp_path: Path) -> None:
    train = measurements.scenes(tmp_path / "train", 48, bands=6)
    changes = SMALL | {"data.executor": executor, "train.steps": 6}
    words = [word for key, value in changes.items() for word in (f"--{key}", json.dumps(value))]
    for devices in ("1", "2"):
        command = [sys.executable, "-m", "barlow.cli", "pretrain", str(train), "-c", "small_barlow_twins"]
        subprocess.run([*command, "--out", str(tmp_path / devices), "--devices", devices, *words], check=True)
    one, two = (load_file(tmp_path / devices / "encoder" / "model.safetensors") for devices in ("1", "2"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-4, rtol=1e-3)


def test_floats_of_a_folder_of_arrays_are_trained_on(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    (tmp_path / "train").mkdir()
    for i in range(32):
        np.save(tmp_path / "train" / f"{i:02}.npy", draws.normal(-40, 5, (24, 24, 2)).astype(np.float32))
    told = run(tmp_path / "train", tmp_path / "run", train__steps=2)
    assert any("(float32; found over 32 images" in line for line in told)
    low, high = recipe_of(tmp_path / "run")["data"]["value_range"]
    assert -100 < low < -55
    assert -25 < high < 20


def test_a_set_of_8_bits_is_read_as_ever(tmp_path: Path) -> None:
    images = tiny.images(tmp_path / "train", 32)
    told = run(images, tmp_path / "run", train__steps=2)
    recipe = recipe_of(tmp_path / "run")
    assert recipe["data"]["value_range"] is None
    assert not any(line.startswith(("values", "alpha")) for line in told)
    assert recipe["views"][0][2]["kind"] == "color_jitter"
    encoder: Any = load_encoder(tmp_path / "run")
    assert encoder.preprocessing.value_range is None
    with pytest.raises(ValueError, match="of type uint8"):
        encoder.preprocess(np.zeros((20, 20, 3), np.uint16))


def test_a_range_that_is_given_holds_and_a_wrong_one_is_refused_in_a_line(tmp_path: Path) -> None:
    train = measurements.scenes(tmp_path / "train", 16, bands=1)
    told = run(train, tmp_path / "run", train__steps=2, data__value_range=[100, 2_000.5])
    assert recipe_of(tmp_path / "run")["data"]["value_range"] == [100.0, 2000.5]
    assert any(line == "values   100 is black and 2000.5 is white, in 16 bits" for line in told)
    for wrong in ([5, 5], [1, 2, 3], [0, float("inf")], "wide", ["a", "b"], 7):
        with pytest.raises(RecipeError, match=r"data.value_range .*: give \[low, high\]"):
            run(train, tmp_path / "other", data__value_range=wrong)


def test_without_a_range_deep_images_are_told(tmp_path: Path) -> None:
    train = measurements.scenes(tmp_path / "train", 16, bands=1)
    told = run(train, tmp_path / "run", train__steps=2, data__value_range=None)
    assert any("16 images have more than 8 bits, read with 8" in line for line in told)


def test_transparent_images_and_files_of_8_bits_among_deep_ones_are_told(tmp_path: Path) -> None:
    train = measurements.scenes(tmp_path / "train", 16, bands=1)
    draws = np.random.default_rng(0)
    for i in range(3):
        pixels = draws.integers(0, 255, (24, 24, 4), np.uint8)
        Image.fromarray(pixels).save(train / "class0" / f"drawing{i}.png")
    told = run(train, tmp_path / "run", train__steps=2)
    assert any("alpha    3 images have transparency: they are put on mid-grey" in line for line in told)
    assert any("values   3 images have 8 bits: of these 255 is white" in line for line in told)


def test_files_of_other_bands_are_refused_by_name(tmp_path: Path) -> None:
    train = measurements.scenes(tmp_path / "train", 16, bands=4)
    measurements.scenes(tmp_path / "other", 1, bands=3)
    shutil.copy(tmp_path / "other" / "class0" / "000.tif", train / "class0" / "odd.tif")
    with pytest.raises(ValueError, match=r"class0/odd.tif: it has 3 bands, and images are read with 4"):
        run(train, tmp_path / "run")


# --- Starting from weights --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [1, 3])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 12])
def test_a_first_convolution_sees_equal_channels_as_it_did(there: int, channels: int) -> None:
    weight = torch.randn(8, there, 3, 3, generator=torch.Generator().manual_seed(0))
    grey = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(1))
    before = torch.nn.functional.conv2d(grey.expand(-1, there, -1, -1), weight)
    new = adapted(weight, channels)
    assert new.shape == (8, channels, 3, 3)
    if channels == 1 or channels % there == 0:
        after = torch.nn.functional.conv2d(grey.expand(-1, channels, -1, -1), new)
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    if there == 3 and channels > 1:
        torch.testing.assert_close(new, adapt_input_conv(channels, weight.clone()))


@pytest.mark.parametrize(
    ("name", "size", "layer"),
    [
        ("resnet18", 32, "conv1"),
        ("resnet10t", 32, "conv1.0"),
        ("vit_tiny_patch16_224", 32, "patch_embed.proj"),
        ("convnext_atto", 32, "stem.0"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "network.", "module.backbone."])
def test_weights_of_three_channels_start_networks_of_twelve(
    name: str, size: int, layer: str, prefix: str, tmp_path: Path
) -> None:
    donor = build_encoder(name, image_size=size, seed=1)
    save_file({prefix + key: value for key, value in donor.state_dict().items()}, tmp_path / "w.safetensors")
    encoder = build_encoder(name, image_size=size, in_channels=12, seed=2)
    report = initialise(encoder, tmp_path / "w.safetensors")
    assert report.notes == (f"{layer}.weight adapted from 3 to 12 channels",)
    grey = torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = [net.eval()(grey.expand(-1, c, -1, -1)) for net, c in ((donor, 3), (encoder, 12))]
    torch.testing.assert_close(features[1], features[0], atol=1e-4, rtol=1e-3)


def test_four_bands_are_asked_for_and_all_of_them_are_learned_from(tmp_path: Path) -> None:
    """Colours and near infrared: the fourth band is no alpha, and no band is dropped."""
    train = measurements.scenes(tmp_path / "train", 32, bands=4)
    run(train, tmp_path / "run", data__channels=4, train__steps=2)
    assert recipe_of(tmp_path / "run")["data"]["channels"] == 4
    encoder = load_encoder(tmp_path / "run")
    first = next(layer for layer in encoder.modules() if isinstance(layer, torch.nn.Conv2d))
    assert first.in_channels == 4
    images = torch.rand(1, 4, 24, 24, generator=torch.Generator().manual_seed(0), requires_grad=True)
    encoder(images).square().sum().backward()
    assert images.grad is not None
    assert bool((images.grad.abs().amax(dim=(0, 2, 3)) > 0).all())


def test_weights_of_other_channels_are_refused(tmp_path: Path) -> None:
    save_file(build_encoder("resnet18", image_size=32, in_channels=4).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"conv1.weight is \[64, 4, 7, 7\] float32 there, \[64, 12, 7, 7\]"):
        initialise(build_encoder("resnet18", image_size=32, in_channels=12), tmp_path / "w.safetensors")


def test_a_run_of_many_bands_starts_from_a_run_of_colour_and_another_from_that(tmp_path: Path) -> None:
    run(tiny.images(tmp_path / "colour", 32), tmp_path / "first", train__steps=2, encoder__stem="as_is")
    train = measurements.scenes(tmp_path / "train", 32, bands=5)
    given = {"encoder__stem": "as_is", "train__steps": 2}
    told = run(train, tmp_path / "second", encoder__init=str(tmp_path / "first"), **given)
    assert any("conv1.weight adapted from 3 to 5 channels" in line for line in told)
    brighter = measurements.scenes(tmp_path / "brighter", 32, bands=5, seed=2)
    run(brighter, tmp_path / "third", encoder__init=str(tmp_path / "second"), **given)
    second, third = (recipe_of(tmp_path / name)["data"] for name in ("second", "third"))
    for key in ("value_range", "mean", "std"):
        assert second[key] == pytest.approx(third[key]), "they are of the weights, which know no other images"


# --- Real images ------------------------------------------------------------------------------------------------------


CELLS = ("17P1_POS0013", "20P1_POS0005", "20P1_POS0007", "20P1_POS0010", "A9_p7d", "AS_09125")
"""Files of fields of cells, whose numbers end at 255, in 16 bits: by the bits of their files they would be black."""


@pytest.fixture(scope="module")
def microscopy(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kinds of real images of 16 bits, six of each, half of them for training: cells, and slices of a fruit."""
    archive = shared_data / "multi-channel.tar"
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    home, counts = tmp_path_factory.mktemp("microscopy"), {"cells": 0, "fruit": 0}
    with tarfile.open(archive) as tar:
        for member in sorted(tar, key=lambda member: member.name):
            kind = "fruit" if "banana" in member.name else "cells" if any(c in member.name for c in CELLS) else None
            if kind is None or not member.isfile() or counts[kind] == 6:
                continue
            file = tar.extractfile(member)
            assert file is not None
            folder = home / ("train", "test")[counts[kind] % 2] / kind
            folder.mkdir(parents=True, exist_ok=True)
            (folder / Path(member.name).name).write_bytes(file.read())
            counts[kind] += 1
    assert counts == {"cells": 6, "fruit": 6}
    return home


def test_real_microscopy_of_16_bits_is_trained_on_with_its_own_white(microscopy: Path, tmp_path: Path) -> None:
    told = run(microscopy / "train" / "cells", tmp_path / "run", train__steps=2, train__batch_size=2)
    data = recipe_of(tmp_path / "run")["data"]
    low, high = data["value_range"]
    assert 0 <= low <= 2
    assert 226 <= high <= 255
    assert data["mean"][0] > 0.05
    assert data["std"][0] > 0.05
    assert any("found over 3 images; 0 % of their values lie outside" in line for line in told)


def test_real_microscopy_of_16_bits_pretrains_and_evaluates(microscopy: Path, tmp_path: Path) -> None:
    train, test = microscopy / "train", microscopy / "test"
    run(train, tmp_path / "run", train__steps=20, train__batch_size=4)
    data = recipe_of(tmp_path / "run")["data"]
    assert data["value_range"][0] == 0
    assert 1_000 < data["value_range"][1] <= 1_557, "the brightest number of these slices"
    scores = evaluate(tmp_path / "run", train, test, protocols=["logistic"], baselines=False).scores
    assert scores["encoder"]["logistic.top1"].value > 0.5
