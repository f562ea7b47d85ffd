"""Runs whose encoder ends with a whitening layer: what is handed out, saved, measured and gone on with."""

from pathlib import Path

import pytest
import tiny
import torch

from barlow import evaluate, load_encoder, storage
from barlow.pretraining import Result, pretrain

WHITE = tiny.SMALL | {"encoder.whiten": 0.1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data"), 64, classes=4)


@pytest.fixture(scope="module")
def white(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return pretrain(str(data), tmp_path_factory.mktemp("white") / "run", overrides=WHITE, progress=False)


def on(encoder: torch.nn.Module, data: Path) -> torch.Tensor:
    with torch.no_grad():
        features: torch.Tensor = encoder(encoder.preprocess(sorted(data.rglob("*.png"))))
    return features.double()


def test_the_features_that_are_handed_out_vary_alike_and_training_is_as_without(
    data: Path, white: Result, tmp_path: Path
) -> None:
    plain = pretrain(str(data), tmp_path / "plain", overrides=tiny.SMALL, progress=False)
    before, after = storage.read_tensors(plain.run_folder / "encoder" / "model.safetensors"), white.encoder.state_dict()
    assert after.keys() - {f"network.{name}" for name in before} == {"whiten.weight", "whiten.bias"}
    assert all(torch.equal(value, after[f"network.{name}"]) for name, value in before.items())
    spread = torch.linalg.eigvalsh(torch.cov(on(plain.encoder, data).T))
    whitened = torch.linalg.eigvalsh(torch.cov(on(white.encoder, data).T))
    assert whitened[-1] / whitened.mean() < 0.5 * spread[-1] / spread.mean()
    assert on(white.encoder, data).mean(0).abs().max() < 0.05


def test_a_whitened_encoder_comes_back_from_its_folder(data: Path, white: Result) -> None:
    loaded = load_encoder(white.run_folder)
    torch.testing.assert_close(on(loaded, data), on(white.encoder, data))
    assert storage.read_json(white.run_folder / "encoder" / "config.json")["whiten"] == 0.1


def test_baselines_of_a_whitened_encoder_are_whitened_too(data: Path, white: Result, tmp_path: Path) -> None:
    found = evaluate(white.run_folder, data, data, protocols=["knn"])
    assert found.results.keys() >= {"pixels_16", "pixels_16_whitened", "untrained", "untrained_handed_out"}
    plain = pretrain(str(data), tmp_path / "plain", overrides=tiny.SMALL, progress=False)
    found = evaluate(plain.run_folder, data, data, protocols=["knn"])
    assert not [name for name in found.results if name.endswith(("_whitened", "_handed_out"))]


def test_a_start_is_whitened_as_its_run_is(data: Path, white: Result, tmp_path: Path) -> None:
    run = pretrain(str(data), tmp_path / "run", init=str(white.run_folder), overrides=WHITE, progress=False).run_folder
    start, end = load_encoder(run / "start"), load_encoder(run)
    assert start.state_dict().keys() == end.state_dict().keys()
    assert on(start, data).mean(0).abs().max() < 0.05
    torch.testing.assert_close(on(start, data), on(white.encoder, data), rtol=1e-3, atol=1e-3)
    assert not torch.equal(on(start, data), on(end, data))


def test_a_finished_run_that_is_resumed_is_whitened_once(data: Path, tmp_path: Path) -> None:
    run = pretrain(str(data), tmp_path / "run", overrides=WHITE, progress=False).run_folder
    before = tiny.weights(run)
    pretrain(out=run, resume=True, progress=False)
    assert tiny.weights(run) == before


def test_an_encoder_given_in_python_is_handed_out_as_it_is(data: Path, tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    changes = {key: value for key, value in tiny.SMALL.items() if not key.startswith("encoder.")}
    result = pretrain(str(data), tmp_path / "run", encoder=module, overrides=changes, progress=False)
    assert type(result.encoder) is torch.nn.Sequential
    assert len(result.encoder) == 3


def test_the_encoder_takes_whole_images_larger_than_the_views_it_was_trained_on(data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    changes = WHITE | {"data.centre_size": "auto", "encoder.stages": "all"}
    result = pretrain(str(data), tmp_path / "run", overrides=changes, progress=False, tell=said.append)
    encoder = load_encoder(result.run_folder)
    assert encoder.preprocessing.size == 24, "views are 16, and the images themselves 24"
    assert any(line.startswith("encoder  takes whole images at 24 px") for line in said)
    assert on(encoder, data).mean(0).abs().max() < 0.05, "whitened by what it will see, and not by views"
    assert encoder.num_features == sum(encoder.widths) == 64 + 4 * 8, "of the stem and four stages"
    found = evaluate(result.run_folder, data, data, protocols=["knn"])
    assert found.report["preprocessing"]["size"] == 24
    assert {"pixels_16", "pixels_24"} <= found.results.keys()
