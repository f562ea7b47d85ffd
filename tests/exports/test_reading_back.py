"""A folder that timm and transformers read is read by barlow, too: our own exports, and what lies on their hub."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from encoder_folders import SMALL, written

import barlow
from barlow import exports, storage
from barlow.encoders import FoundEncoder, find_encoder
from barlow.exports._protocol import Material
from barlow.nets import hub_folder
from barlow.nets.building import build_encoder
from barlow.nets.weights import description_of, initialise
from barlow.probes.report import ENCODER


def foldered(found: FoundEncoder, folder: Path) -> Path:
    """The files of `--to timm`, without the proof."""
    material = Material(found.network, description_of(found.network))
    for name, data in exports.load("timm").files(material).items():
        storage.write_bytes(folder / name, data)
    return folder


def changed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """With another config.json."""
    content = json.loads((folder / "config.json").read_text())
    change(content)
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def alike(one: FoundEncoder, other: FoundEncoder) -> bool:
    """Whether two encoders make the same features, of the same images."""
    seen = one.preprocessing
    high, wide = (seen.size, seen.size) if isinstance(seen.size, int) else seen.size
    x = torch.linspace(-1, 1, 2 * seen.channels * high * wide).view(2, seen.channels, high, wide)
    with torch.no_grad():
        return bool(one.network(x).equal(other.network(x))) and one.preprocessing == other.preprocessing


@pytest.fixture
def own(tmp_path: Path) -> FoundEncoder:
    return find_encoder(written(tmp_path / "encoder", "resnet18", options=SMALL))


def test_an_export_for_timm_is_imported_embedded_and_started_from(own: FoundEncoder, tmp_path: Path) -> None:
    barlow.export(tmp_path / "encoder", "timm", tmp_path / "out")
    file = tmp_path / "out" / "model.safetensors"
    for name in (file, tmp_path / "out"):
        assert alike(find_encoder(name), own)
    done = barlow.import_weights(file, tmp_path / "back")
    assert alike(find_encoder(done.folder), own)
    barlow.import_weights(tmp_path / "out", tmp_path / "again")
    told = storage.read_sealed(tmp_path / "again" / "config.json")["imported"]
    assert (told["source"], len(told["sha256"])) == ("out", 64), "no path of somebody's machine"
    fresh = build_encoder("resnet18", image_size=32, options=SMALL)
    assert initialise(fresh, file).loaded == len(fresh.state_dict())
    photos = tiny.images(tmp_path / "photos", 6, side=32)
    barlow.embed(file, photos, tmp_path / "f.npy", device="cpu")
    barlow.embed(tmp_path / "encoder", photos, tmp_path / "own.npy", device="cpu")
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), np.load(tmp_path / "own.npy"))


def test_an_export_for_timm_is_evaluated_as_the_encoder_is(own: FoundEncoder, tmp_path: Path) -> None:
    folder = foldered(own, tmp_path / "out")
    labelled = [tiny.images(tmp_path / name, 24, classes=2, side=32, seed=len(name)) for name in ("train", "test")]
    results = [
        barlow.evaluate(each, *labelled, protocols="knn", baselines=False, device="cpu", out=tmp_path / f"scores{i}")
        for i, each in enumerate((tmp_path / "encoder", folder, folder / "model.safetensors"))
    ]
    assert len({json.dumps(storage.read_json(each.path)["sets"][ENCODER], sort_keys=True) for each in results}) == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("convnext_atto", {"channels": 12}),
        ("vit_tiny_patch16_224", {"size": 64, "options": {"patch_size": 8, "depth": 2}}),
        ("resnet18", {"channels": 1, "options": SMALL}),
    ],
)
def test_channels_sizes_and_options_come_back(name: str, options: Mapping[str, Any], tmp_path: Path) -> None:
    found = find_encoder(written(tmp_path / "encoder", name, **options))
    assert alike(find_encoder(foldered(found, tmp_path / "out")), found)


def test_the_form_that_transformers_saves_is_the_same(own: FoundEncoder, tmp_path: Path) -> None:
    folder = foldered(own, tmp_path / "out")
    tensors = {f"timm_model.{name}": value for name, value in own.network.state_dict().items()}
    tensors |= {"timm_model.fc.weight": torch.ones(3, 8), "timm_model.fc.bias": torch.ones(3)}
    storage.write_tensors(folder / "model.safetensors", tensors)
    labels = {str(i): f"a class with a long name, number {i}" for i in range(4_000)}
    wrapper = {"model_type": "timm_wrapper", "architectures": ["TimmWrapperModel"], "do_pooling": True}
    changed(folder, lambda c: c.update(wrapper | {"id2label": labels, "torch_dtype": "float32"}))
    assert (folder / "config.json").stat().st_size > 100_000
    said: list[str] = []
    assert alike(find_encoder(folder, say=said.append), own)
    assert "the classifier (fc.bias, fc.weight)" in said[0]


def test_pickled_weights_and_the_flat_form_of_before_are_read(own: FoundEncoder, tmp_path: Path) -> None:
    folder = foldered(own, tmp_path / "out")
    torch.save(own.network.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert alike(find_encoder(folder), own)
    changed(folder, lambda c: c.update(c.pop("pretrained_cfg")))
    assert alike(find_encoder(folder / "pytorch_model.bin"), own)


def test_what_is_not_done_to_images_is_said_and_what_is_not_known_is_asked(own: FoundEncoder, tmp_path: Path) -> None:
    folder = foldered(own, tmp_path / "out")
    changed(folder, lambda c: c["pretrained_cfg"].update(crop_mode="squash", interpolation="random"))
    said: list[str] = []
    find_encoder(folder, say=said.append)
    assert "timm's crop mode is squash" in said[0]
    assert "resampled bicubic, where timm's filter is random" in said[0]
    changed(folder, lambda c: c["pretrained_cfg"].update(mean=[0.5], std=[0.25]))
    assert find_encoder(folder).preprocessing.mean == (0.5, 0.5, 0.5)
    changed(folder, lambda c: c["model_args"].update(in_chans=5))
    changed(folder, lambda c: c["pretrained_cfg"].update(mean=[0.5] * 3))
    with pytest.raises(ValueError, match="is of images of 5 channels, and does not say how they were normalised"):
        find_encoder(folder)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda c: c.update(architecture="resnet18_of_2031"), r"resnet18_of_2031, which timm \S+ does not have"),
        (lambda c: c.update(architecture=7), r"architecture is 7, and should be text"),
        (lambda c: c.pop("architecture"), "does not say the architecture"),
        (lambda c: c.update(model_args=[1]), r"model_args is \[1\], and should be a table"),
        (lambda c: c["pretrained_cfg"].update(mean="grey"), "mean is 'grey', and should be a list of numbers"),
        (lambda c: c["pretrained_cfg"].update(std=[0, 0, 0]), r"standard deviations .* must be positive"),
        (lambda c: c["pretrained_cfg"].update(input_size=[3, -1, 9]), "input_size is .*, and should be three whole"),
        (lambda c: c["pretrained_cfg"].update(input_size=[3, 9_000, 9_000]), "integers from 1 to 2048"),
        (lambda c: c["model_args"].update(checkpoint_path="/etc/passwd"), "weights come from init"),
        (lambda c: c["model_args"].update(odd_word=1), "timm cannot build resnet18 .*odd_word"),
        (lambda c: c["model_args"].update(channels=[2_000] * 4), "parameters, and its file of weights has"),
        (lambda c: c["model_args"].update(layers=[10**9, 1, 1, 1]), "has a number above"),
        (lambda c: c["model_args"].update(layers=[2, 1, 1, 1]), "is missing"),
    ],
)
def test_what_is_wrong_in_a_strangers_description_is_told_in_one_line(
    change: Callable[[dict[str, Any]], Any], line: str, own: FoundEncoder, tmp_path: Path
) -> None:
    folder = changed(foldered(own, tmp_path / "out"), change)
    with pytest.raises(ValueError, match=line) as raised:
        find_encoder(folder / "model.safetensors")
    assert "\n" not in str(raised.value)


def test_a_folder_of_transformers_own_is_not_called_damaged_and_ours_is(own: FoundEncoder, tmp_path: Path) -> None:
    folder = foldered(own, tmp_path / "out")
    (folder / "config.json").write_text(json.dumps({"model_type": "resnet", "architectures": ["ResNetModel"]}))
    said: list[str] = []
    assert find_encoder(folder, say=said.append).network(torch.zeros(1, 3, 224, 224)).shape == (1, 256)
    assert "does not say how images were normalised" in said[-1]
    with pytest.raises(ValueError, match=r"and no run: barlow\.find_encoder reads it as it is"):
        barlow.load_encoder(folder)
    home = tmp_path / "encoder"
    content = {key: value for key, value in storage.read_json(home / "config.json").items() if key != "sha256"}
    storage.write_json(home / "config.json", {key: value for key, value in content.items() if key != "kind"})
    assert hub_folder.whose(home) == "barlow"
    with pytest.raises(ValueError, match="'kind' is missing"):
        find_encoder(home)
