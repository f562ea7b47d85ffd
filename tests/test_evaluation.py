"""An evaluation's number is about the right images and labels, and stands beside its baselines."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor, nn

from barlow import cli, evaluation, storage
from barlow.evaluation import Evaluation, evaluate
from barlow.probes import PROBES
from barlow.train import pretrain

CLASSES = ["class0", "class1", "class2"]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data") / "train", 60, classes=3, seed=1)


@pytest.fixture(scope="module")
def test(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data") / "test", 24, classes=3, seed=2)


@pytest.fixture(scope="module")
def finished(train: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    return pretrain(train, out, overrides=tiny.SMALL | {"train.steps": 2}, progress=False).run_folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A run without any evaluation yet."""
    return shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the networks that images are passed through, in order."""
    names: list[str] = []
    embed = evaluation.embed

    def counted(network: nn.Module, *rest: Any) -> Tensor:
        names.append(type(network).__name__)
        return embed(network, *rest)

    monkeypatch.setattr(evaluation, "embed", counted)
    return names


def read(run: Path) -> dict[str, Any]:
    report: dict[str, Any] = storage.read_json(run / "evaluation" / "results.json")
    return report


def value(found: Evaluation, metric: str = "knn.top1", of: str = "encoder") -> float:
    return found.scores[of][metric].value


def test_the_report_has_every_probe_on_encoder_and_baselines_and_what_was_measured(
    run: Path, train: Path, test: Path
) -> None:
    found = evaluate(run, train, test)
    report = read(run)
    assert found.path == run / "evaluation" / "results.json"
    assert report == json.loads(json.dumps(found.report))
    assert set(report["sets"]) == {"encoder", "pixels", "untrained", "untrained_recalibrated"}
    assert all(set(outcomes) == set(PROBES) for outcomes in report["sets"].values())
    top1 = report["sets"]["encoder"]["knn"]["metrics"]["top1"]
    assert 0 <= top1["low"] <= top1["value"] <= top1["high"] <= 1
    assert top1["n"] == report["images"]["test"]["count"] == 24
    assert report["images"]["train"]["count"] == 60
    assert report["images"]["train"]["source"] == str(train)
    assert report["images"]["train"]["skipped"] == []
    assert report["images"]["train"]["fingerprint"] != report["images"]["test"]["fingerprint"]
    assert report["classes"] == CLASSES
    assert report["preprocessing"]["size"] == 16
    assert report["warnings"] == []
    assert report["times_measured"] == 1
    assert value(found, of="pixels") == 1.0, "the colour tells the class"
    assert max(len(line) for line in found.table().splitlines()) <= 80


def test_a_second_evaluation_embeds_nothing_anew_and_is_counted(
    run: Path, train: Path, test: Path, embedded: list[str]
) -> None:
    first = evaluate(run, train, test)
    assert embedded == ["ResNet"] * 2 + ["RawPixels"] * 2 + ["ResNet"] * 4
    embedded.clear()
    second = evaluate(run, train, test)
    assert embedded == ["RawPixels"] * 2
    assert second.scores == first.scores
    assert (first.report["times_measured"], second.report["times_measured"]) == (1, 2)
    embedded.clear()
    path = next((test / "class0").iterdir())
    other = shutil.copytree(test, run.parent / "other")
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(other / "class0" / path.name)
    evaluate(run, train, other, baselines=False)
    assert embedded == ["ResNet"], "one changed image: the test set is embedded anew, the training set is not"


def test_other_weights_are_embedded_anew(run: Path, train: Path, test: Path, embedded: list[str]) -> None:
    evaluate(run, train, test, baselines=False)
    weights = run / "encoder" / "model.safetensors"
    tensors = storage.read_tensors(weights)
    storage.write_tensors(weights, tensors | {"conv1.weight": -tensors["conv1.weight"]})
    embedded.clear()
    evaluate(run, train, test, baselines=False)
    assert embedded == ["ResNet"] * 2


def test_test_labels_change_the_score_and_nothing_that_was_fitted(
    run: Path, train: Path, test: Path, tmp_path: Path
) -> None:
    turned = tmp_path / "turned"
    for k, name in enumerate(CLASSES):
        shutil.copytree(test / name, turned / CLASSES[(k + 1) % 3])
    straight, wrong = (evaluate(run, train, folder).report["sets"] for folder in (test, turned))
    for name, outcomes in straight.items():
        for kind, outcome in outcomes.items():
            assert wrong[name][kind]["notes"] == outcome["notes"], "what was chosen, was chosen without them"
    assert straight["pixels"]["knn"]["metrics"]["top1"]["value"] == 1
    assert wrong["pixels"]["knn"]["metrics"]["top1"]["value"] == 0


def test_classes_are_matched_by_name_not_by_number(run: Path, train: Path, test: Path, tmp_path: Path) -> None:
    for name in CLASSES[1:]:
        shutil.copytree(test / name, tmp_path / "some" / name)
    found = evaluate(run, train, tmp_path / "some")
    assert value(found, of="pixels") == 1.0
    assert found.report["classes"] == CLASSES


def test_a_class_that_only_the_test_images_have_is_refused_by_name(
    run: Path, train: Path, test: Path, tmp_path: Path
) -> None:
    for name in CLASSES[1:]:
        shutil.copytree(train / name, tmp_path / "some" / name)
    with pytest.raises(ValueError, match=r"--test has classes that --train has not \(class0\); --train has class1"):
        evaluate(run, tmp_path / "some", test)
    assert not (run / "evaluation" / "results.json").exists()


def test_unreadable_images_are_left_out_and_listed(run: Path, train: Path, test: Path, tmp_path: Path) -> None:
    spoiled = shutil.copytree(test, tmp_path / "spoiled")
    victim = sorted((spoiled / "class1").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"1 of 24 images of --test .*--max-bad 0.05"):
        evaluate(run, train, spoiled)
    said: list[str] = []
    found = evaluate(run, train, spoiled, max_bad=0.05, tell=said.append)
    (skipped,) = found.report["images"]["test"]["skipped"]
    assert skipped["where"] == f"class1/{victim.name}"
    assert skipped["reason"]
    assert any(victim.name in line for line in said)
    assert found.report["images"]["test"]["count"] == 23
    victim.unlink()
    assert evaluate(run, train, spoiled).scores == found.scores, "as if the file were not there"


def test_images_that_do_not_fit_in_memory_give_the_same_numbers(
    run: Path, train: Path, test: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = evaluate(run, train, test)
    shutil.rmtree(run / "evaluation")
    monkeypatch.setattr(evaluation, "available_memory", lambda: 0)
    assert evaluate(run, train, test).scores == held.scores


def test_the_batch_size_changes_nothing_but_rounding(run: Path, train: Path, test: Path) -> None:
    features = []
    for batch_size in (256, 7):
        evaluate(run, train, test, batch_size=batch_size, baselines=False, probes=["knn"])
        files = sorted((run / "evaluation" / "features").iterdir())
        features.append({path.name: storage.read_tensors(path)["features"] for path in files})
        shutil.rmtree(run / "evaluation")
    assert len(features[0]) == 2
    for name, whole in features[0].items():
        torch.testing.assert_close(features[1][name], whole)


def test_training_images_among_the_test_images_are_said(run: Path, train: Path) -> None:
    said: list[str] = []
    found = evaluate(run, train, train, baselines=False, probes=["knn"], tell=said.append)
    assert any("every one of the 60 test images is in the training set" in line for line in said)
    assert found.report["warnings"]


def test_probes_can_be_chosen(run: Path, train: Path, test: Path) -> None:
    found = evaluate(run, train, test, probes=["knn"], baselines=False)
    assert set(found.report["sets"]) == {"encoder"}
    assert set(found.report["sets"]["encoder"]) == {"knn"}


def test_an_unknown_probe_is_refused_before_anything_is_read(run: Path, embedded: list[str]) -> None:
    with pytest.raises(ValueError, match="unknown probe 'svm'; use one or more of knn"):
        evaluate(run, "nowhere", "nowhere", probes=["svm"])
    assert embedded == []


def test_the_untrained_network_is_recalibrated_on_batches_of_mixed_classes(
    run: Path, train: Path, test: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brightness: list[Tensor] = []
    recalibrated = evaluation.recalibrated

    def watched(network: nn.Module, batches: Any) -> nn.Module:
        kept = list(batches)
        brightness.extend(batch.mean(dim=(1, 2, 3)) for batch in kept)
        return recalibrated(network, kept)

    monkeypatch.setattr(evaluation, "recalibrated", watched)
    monkeypatch.setattr(evaluation, "RECALIBRATION_BATCH", 20)
    evaluate(run, train, test, probes=["knn"])
    assert [len(batch) for batch in brightness] == [20, 20, 20]
    means = [float(batch.mean()) for batch in brightness]
    assert max(means) - min(means) < float(torch.cat(brightness).std()), (
        "20 images a class, yet no batch is of one class"
    )


def test_a_set_with_labels_of_its_own_is_evaluated_on_its_own_split(tmp_path: Path) -> None:
    overrides = tiny.SMALL | {"train.steps": 1, "data.image_size": 8}
    run = pretrain("digits", tmp_path / "run", overrides=overrides, progress=False).run_folder
    report = evaluate(run, probes=["knn"], baselines=False).report
    assert (report["images"]["train"]["source"], report["images"]["test"]["source"]) == ("digits:train", "digits:test")
    assert report["images"]["train"]["count"] + report["images"]["test"]["count"] == 1797
    assert set(report["sets"]["encoder"]["knn"]["metrics"]) == {"top1", "top5"}, "ten classes"


class Flat(nn.Module):
    """An encoder given in Python: one linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 6)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.linear(x.flatten(1))
        return features


def test_an_encoder_given_in_python_is_given_again(train: Path, test: Path, tmp_path: Path) -> None:
    overrides = tiny.SMALL | {"train.steps": 1, "encoder.options": {}}
    run = pretrain(train, tmp_path / "run", encoder=Flat(), overrides=overrides, progress=False).run_folder
    with pytest.raises(ValueError, match="cannot be rebuilt"):
        evaluate(run, train, test)
    found = evaluate(run, train, test, encoder=Flat(), probes=["knn"])
    assert set(found.scores) == {"encoder", "pixels"}, "its untrained twin cannot be built"


def test_the_command_line_prints_the_table_and_where_it_is_kept(
    run: Path, train: Path, test: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(run), "--train", str(train), "--test", str(test)]) == 0
    out, err = capsys.readouterr()
    *table, where = out.splitlines()
    assert where == f"results  {run / 'evaluation' / 'results.json'}"
    assert max(map(len, table)) <= 80
    for words in ("Encoder", "Raw pixels", "Untrained", "Gain", "kNN", "logistic"):
        assert words in out
    assert "embedding 84 images: encoder" in err


def test_the_untrained_networks_statistics_need_no_divisor_of_the_images(run: Path, test: Path, tmp_path: Path) -> None:
    """A last batch of one image has no variance at 1×1 pixels."""
    train = tiny.images(tmp_path / "train", 257, classes=3, side=16)
    values = [
        evaluate(run, train, test, probes=["knn"], batch_size=size).scores["untrained_recalibrated"]["knn.top1"].value
        for size in (64, 256)
    ]
    assert values[0] == values[1]
