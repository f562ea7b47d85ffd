"""An evaluation's number is about the right images and labels, and stands beside its baselines."""

import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor, nn

from barlow import cli, protocols, storage
from barlow.data import labelled
from barlow.evaluation import Evaluation, evaluate
from barlow.pretraining import pretrain
from barlow.probes import baselines, embedding
from barlow.probes import progress as progress_of_probes
from barlow.probes.remarks import AUGMENTED
from barlow.protocols.linear_sgd import LinearSGD
from barlow.protocols.semi import SemiSupervised
from barlow.views.ops import HorizontalFlip, RandomResizedCrop

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
    embed = embedding.embed

    def counted(network: nn.Module, *rest: Any) -> Tensor:
        names.append(type(network).__name__)
        return embed(network, *rest)

    monkeypatch.setattr(embedding, "embed", counted)
    return names


def read(run: Path) -> dict[str, Any]:
    return storage.read_sealed(run / "evaluation" / "results.json")


def value(found: Evaluation, metric: str = "knn.top1", of: str = "encoder") -> float:
    return found.scores[of][metric].value


def test_the_report_has_every_probe_on_encoder_and_baselines_and_what_was_measured(
    run: Path, train: Path, test: Path
) -> None:
    found = evaluate(run, train, test)
    report = read(run)
    assert found.path == run / "evaluation" / "results.json"
    assert report == json.loads(json.dumps(found.report))
    assert set(report["sets"]) == {"encoder", "pixels_16", "untrained", "untrained_recalibrated"}
    assert all(set(outcomes) == set(protocols.DEFAULT) for outcomes in report["sets"].values())
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
    assert value(found, of="pixels_16") == 1.0, "the colour tells the class"
    assert max(len(line) for line in found.table().splitlines()) <= 80


def test_a_second_evaluation_embeds_nothing_anew_and_is_counted(
    run: Path, train: Path, test: Path, embedded: list[str]
) -> None:
    first = evaluate(run, train, test)
    assert embedded == ["ResNet"] * 2 + ["RawPixels"] * 2 + ["ResNet"] * 4
    embedded.clear()
    second = evaluate(run, train, test)
    assert embedded == []
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
    tiny.change_weights(run, lambda tensors: tensors | {"conv1.weight": -tensors["conv1.weight"]})
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
    assert straight["pixels_16"]["knn"]["metrics"]["top1"]["value"] == 1
    assert wrong["pixels_16"]["knn"]["metrics"]["top1"]["value"] == 0


def test_classes_are_matched_by_name_not_by_number(run: Path, train: Path, test: Path, tmp_path: Path) -> None:
    for name in CLASSES[1:]:
        shutil.copytree(test / name, tmp_path / "some" / name)
    found = evaluate(run, train, tmp_path / "some")
    assert value(found, of="pixels_16") == 1.0
    assert found.report["classes"] == CLASSES


def test_a_class_that_only_the_test_images_have_is_refused_by_name(
    run: Path, train: Path, test: Path, tmp_path: Path
) -> None:
    for name in CLASSES[1:]:
        shutil.copytree(train / name, tmp_path / "some" / name)
    with pytest.raises(ValueError, match=r"test has classes that train has not \(class0\); train has class1"):
        evaluate(run, tmp_path / "some", test)
    assert not (run / "evaluation" / "results.json").exists()


def test_unreadable_images_are_left_out_and_listed(run: Path, train: Path, test: Path, tmp_path: Path) -> None:
    spoiled = shutil.copytree(test, tmp_path / "spoiled")
    victim = sorted((spoiled / "class1").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"1 of 24 images of test .*max_bad=0.05"):
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
    monkeypatch.setattr(labelled, "available_memory", lambda: 0)
    assert evaluate(run, train, test).scores == held.scores


def test_the_batch_size_changes_nothing_but_rounding(run: Path, train: Path, test: Path) -> None:
    features = []
    for batch_size in (256, 7):
        evaluate(run, train, test, batch_size=batch_size, baselines=False, protocols=["knn"])
        files = sorted((run / "evaluation" / "features").iterdir())
        features.append({path.name: storage.read_tensors(path)["features"] for path in files})
        shutil.rmtree(run / "evaluation")
    assert len(features[0]) == 2
    for name, whole in features[0].items():
        torch.testing.assert_close(features[1][name], whole)


def test_training_images_among_the_test_images_are_said(run: Path, train: Path) -> None:
    said: list[str] = []
    found = evaluate(run, train, train, baselines=False, protocols=["knn"], tell=said.append)
    assert any("every one of the 60 test images is in the training set" in line for line in said)
    assert found.report["warnings"]


def test_of_some_training_images_among_the_test_images_it_is_said_which_and_what_lists_them(
    run: Path, train: Path, test: Path, tmp_path: Path
) -> None:
    home = shutil.copytree(test, tmp_path / "test images")
    some = sorted(train.glob("*/*.png"))[:5]
    for number, path in enumerate(some):
        shutil.copy(path, home / path.parent.name / f"0{number}-again.png")
    warnings = evaluate(run, train, home, baselines=False, protocols=["knn"]).report["warnings"]
    (line,) = (each for each in warnings if "pixel for pixel" in each)
    assert line.startswith("5 of ")
    assert "remove them from --train. Test and training image: " in line
    name = some[0].relative_to(train).as_posix()
    assert f"{some[0].parent.name}/00-again.png and {name}, " in line
    assert ", and 2 more; `barlow duplicates" in line
    assert line.endswith(f"`barlow duplicates {train} --against '{home}'` lists them")


def test_probes_can_be_chosen(run: Path, train: Path, test: Path) -> None:
    found = evaluate(run, train, test, protocols=["knn"], baselines=False)
    assert set(found.report["sets"]) == {"encoder"}
    assert set(found.report["sets"]["encoder"]) == {"knn"}


def test_an_unknown_probe_is_refused_before_anything_is_read(run: Path, embedded: list[str]) -> None:
    with pytest.raises(ValueError, match="no protocol 'svn'"):
        evaluate(run, "nowhere", "nowhere", protocols=["svn"])
    assert embedded == []


def test_the_untrained_network_is_recalibrated_on_batches_of_mixed_classes(
    run: Path, train: Path, test: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brightness: list[Tensor] = []
    recalibrated = baselines.recalibrated

    def watched(network: nn.Module, batches: Any) -> nn.Module:
        kept = list(batches)
        brightness.extend(batch.mean(dim=(1, 2, 3)) for batch in kept)
        return recalibrated(network, kept)

    monkeypatch.setattr(baselines, "recalibrated", watched)
    monkeypatch.setattr(baselines, "RECALIBRATION_BATCH", 20)
    evaluate(run, train, test, protocols=["knn"])
    assert [len(batch) for batch in brightness] == [20, 20, 20]
    means = [float(batch.mean()) for batch in brightness]
    assert max(means) - min(means) < float(torch.cat(brightness).std()), (
        "20 images a class, yet no batch is of one class"
    )


def test_a_set_with_labels_of_its_own_is_evaluated_on_its_own_split(tmp_path: Path) -> None:
    overrides = tiny.SMALL | {"train.steps": 1, "data.image_size": 8}
    run = pretrain("digits", tmp_path / "run", overrides=overrides, progress=False).run_folder
    report = evaluate(run, protocols=["knn"], baselines=False).report
    assert (report["images"]["train"]["source"], report["images"]["test"]["source"]) == ("digits:train", "digits:test")
    assert report["images"]["train"]["count"] + report["images"]["test"]["count"] == 1797
    assert set(report["sets"]["encoder"]["knn"]["metrics"]) == {"top1", "top5"}, "ten classes"


class Flat(nn.Module):
    """An encoder given in Python: one linear map, the same in every test."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 6)
        nn.init.normal_(self.linear.weight, std=0.02, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.linear(x.flatten(1))
        return features


def test_an_encoder_given_in_python_is_given_again(train: Path, test: Path, tmp_path: Path) -> None:
    overrides = tiny.SMALL | {"train.steps": 1, "encoder.options": {}}
    run = pretrain(train, tmp_path / "run", encoder=Flat(), overrides=overrides, progress=False).run_folder
    with pytest.raises(ValueError, match="cannot be rebuilt"):
        evaluate(run, train, test)
    found = evaluate(run, train, test, encoder=Flat(), protocols=["knn"])
    assert set(found.scores) == {"encoder", "pixels_16"}, "its untrained twin cannot be built"


def test_the_command_line_prints_the_table_and_where_it_is_kept(
    run: Path, train: Path, test: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(run), "--train", str(train), "--test", str(test)]) == 0
    out, err = capsys.readouterr()
    *table, where = out.splitlines()
    assert where == f"results  {run / 'evaluation' / 'results.json'}"
    assert max(map(len, table)) <= 80
    for words in ("Encoder", "Pixels", "Untrained", "Gain", "kNN", "logistic", "SGD", "best epoch"):
        assert words in out
    assert "embedding 84 images: encoder" in err


def test_the_untrained_networks_statistics_need_no_divisor_of_the_images(run: Path, test: Path, tmp_path: Path) -> None:
    """A last batch of one image has no variance at 1×1 pixels."""
    train = tiny.images(tmp_path / "train", 257, classes=3, side=16)
    values = [
        evaluate(run, train, test, protocols=["knn"], batch_size=size)
        .scores["untrained_recalibrated"]["knn.top1"]
        .value
        for size in (64, 256)
    ]
    assert values[0] == values[1]


def test_the_help_says_where_every_protocol_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert f"default: {','.join(protocols.DEFAULT)};" in words
    assert "barlow list protocols" in words
    assert cli.main(["list", "protocols"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{kind} " in shown for kind in protocols.kinds())


# ---------------------------------------------------------------------------------------------------- augmented views


@pytest.fixture
def three_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class ThreeEpochs(LinearSGD):
        epochs: int = 3

    real = protocols.load
    monkeypatch.setattr(protocols, "load", lambda kind: ThreeEpochs if kind == "linear_sgd" else real(kind))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The features that the encoder gave, in order."""
    found: list[Tensor] = []
    embed = embedding.embed

    def keeping(*arguments: Any) -> Tensor:
        found.append(embed(*arguments))
        return found[-1]

    monkeypatch.setattr(embedding, "embed", keeping)
    return found


def test_an_augmented_probe_embeds_other_views_in_each_epoch_and_the_same_again(
    run: Path, train: Path, test: Path, three_epochs: None, kept: list[Tensor]
) -> None:
    first = evaluate(run, train, test, protocols=["linear_sgd"], baselines=False, augment=True)
    centre, measured, *epochs = kept
    assert [len(features) for features in epochs] == [60, 60, 60]
    assert len(measured) == 24
    different = [centre, *epochs]
    for i, a in enumerate(different):
        for b in different[:i]:
            assert (a - b).abs().max() > 1e-3
    kept.clear()
    shutil.rmtree(run / "evaluation" / "outcomes")
    second = evaluate(run, train, test, protocols=["linear_sgd"], baselines=False, augment=True)
    assert len(kept) == 3, "centre views are cached"
    assert all(torch.equal(a, b) for a, b in zip(kept, epochs, strict=True))
    assert second.scores == first.scores
    assert first.results["encoder"][AUGMENTED].notes["embedded"] == "each epoch"
    assert first.results["encoder"]["linear_sgd"].notes["embedded"] == "once"


def test_only_the_encoder_and_only_linear_sgd_are_read_on_augmented_views(
    run: Path, train: Path, test: Path, three_epochs: None
) -> None:
    plain = evaluate(run, train, test)
    augmented = evaluate(run, train, test, augment=True)
    for name, outcomes in augmented.results.items():
        assert set(outcomes) == {*protocols.DEFAULT, *([AUGMENTED] if name == "encoder" else [])}
        assert {kind: outcomes[kind] for kind in protocols.DEFAULT} == plain.results[name]
    report = read(run)
    score = report["sets"]["encoder"][AUGMENTED]["metrics"]["top1"]["value"]
    others = [outcomes for name, outcomes in report["sets"].items() if name != "encoder"]
    best = max(outcomes["linear_sgd"]["metrics"]["top1"]["value"] for outcomes in others)
    assert report["gain"][f"{AUGMENTED}.top1"]["value"] == pytest.approx(score - best)
    assert "SGD augm. top-1" in augmented.table()


def test_an_augmentation_that_changes_nothing_is_the_cached_protocol(
    run: Path, test: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three_epochs: None, kept: list[Tensor]
) -> None:
    train = tiny.images(tmp_path / "train", 60, classes=3, side=16, seed=1)  # as large as the encoder's input
    monkeypatch.setattr(labelled, "RandomResizedCrop", partial(RandomResizedCrop, scale=(1, 1), ratio=(1, 1)))
    monkeypatch.setattr(labelled, "HorizontalFlip", partial(HorizontalFlip, p=0.0))
    found = evaluate(run, train, test, protocols=["linear_sgd"], baselines=False, augment=True)
    centre, _, *epochs = kept
    for features in epochs:
        torch.testing.assert_close(features, centre)
    outcomes = found.results["encoder"]
    assert outcomes[AUGMENTED].metrics == outcomes["linear_sgd"].metrics
    assert outcomes[AUGMENTED].chosen_on_test == outcomes["linear_sgd"].chosen_on_test


def test_augmenting_without_the_probe_that_does_it_is_refused_before_anything_is_read(run: Path) -> None:
    with pytest.raises(ValueError, match="augment=True is for linear_sgd, and protocols names only knn, logistic"):
        evaluate(run, "nowhere", "nowhere", protocols=["knn", "logistic"], augment=True)


def test_long_embeddings_say_how_far_they_are(
    run: Path, train: Path, test: Path, monkeypatch: pytest.MonkeyPatch, three_epochs: None
) -> None:
    said: list[str] = []
    evaluate(run, train, test, protocols=["linear_sgd"], baselines=False, augment=True, batch_size=20, tell=said.append)
    assert not any("images/s" in line for line in said), "half a minute has not gone by"
    assert any("embedded in each of 3 epochs" in line for line in said)
    said.clear()
    shutil.rmtree(run / "evaluation")
    monkeypatch.setattr(progress_of_probes, "SECONDS_BETWEEN_LINES", 0.0)
    evaluate(run, train, test, protocols=["linear_sgd"], baselines=False, augment=True, batch_size=20, tell=said.append)
    lines = [line for line in said if "images/s" in line]
    assert len(lines) == 3 + 2 + 3 * 3
    assert lines[0].startswith(f"embedding {train}: 20 of 60 images, ")
    assert lines[-1].startswith("linear_sgd on augmented views, epoch 3 of 3: 180 of 180 images, ")
    assert lines[-1].endswith("images/s, eta 0:00:00")


def test_a_probe_that_cannot_fit_the_features_is_said_and_kept_in_the_report(
    train: Path, test: Path, tmp_path: Path, three_epochs: None
) -> None:
    overrides = tiny.SMALL | {"train.steps": 1, "encoder.options": {}}
    asked = {"recipe": "small_barlow_twins", "encoder": Flat(), "overrides": overrides}
    run = pretrain(train, tmp_path / "run", progress=False, **asked).run_folder
    tiny.change_weights(run, lambda tensors: {name: 1e5 * tensor for name, tensor in tensors.items()})
    said: list[str] = []
    found = evaluate(run, train, test, encoder=Flat(), protocols=["linear_sgd"], baselines=False, tell=said.append)
    (warning,) = found.report["warnings"]
    assert warning in said
    assert "linear_sgd on encoder fits the training images worse" in warning
    assert "rely on logistic" in warning


def test_the_command_line_takes_augment(
    run: Path, train: Path, test: Path, three_epochs: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(run), "--train", str(train), "--test", str(test), "--augment"]
    assert cli.main(words) == 0
    out, err = capsys.readouterr()
    assert "SGD augm. top-1" in out
    assert max(map(len, out.splitlines()[:-1])) <= 80
    assert "embedded in each of 3 epochs" in err


# ------------------------------------------------------------------------------------------------- several labels


def test_images_of_several_labels_are_measured_from_lists_in_different_orders(run: Path, tmp_path: Path) -> None:
    tiny.images(tmp_path / "photos", 40, classes=4, side=16)
    names = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "photos").rglob("*.*"))
    tags = {i: ";".join(name for name, n in (("b", 2), ("c", 3), ("a", 5)) if i % n == 0) for i in range(40)}
    (tmp_path / "train.csv").write_text("path,labels\n" + "".join(f"{names[i]},{tags[i]}\n" for i in range(0, 40, 2)))
    (tmp_path / "test.csv").write_text(
        "path,labels\n" + "".join(f"{names[i]},{tags[i].replace('a', '')}\n" for i in range(1, 40, 2))
    )
    found = evaluate(run, tmp_path / "train.csv", tmp_path / "test.csv", protocols="knn,svm,retrieval", baselines=False)
    assert {"knn.map", "svm.map_envelope", "svm.map_11_point", "retrieval.recall_at_1"} <= set(found.scores["encoder"])
    assert found.report["classes"] == ["a", "b", "c"], "those of --train; the test images lack one"
    assert found.report["sets"]["encoder"]["knn"]["chance"] == {"map": pytest.approx(0.4389, abs=5e-5)}
    assert 7 / 20 < 0.4389, "on so few images it is above the share that has a label"
    told = found.table()
    assert "\nmAP of a random order: 43.9." in told
    assert all(f"\n{label} " in told for label in ("kNN mAP", "SVM env mAP", "SVM 11-pt mAP"))
    assert told.index("Never set one beside another") < told.index("env mAP of a random order")
    with pytest.raises(ValueError, match=r"protocol fewshot:1 is for images of one class each"):
        evaluate(run, tmp_path / "train.csv", tmp_path / "test.csv", protocols="knn,fewshot")


# --------------------------------------------------------------------------------------- protocols that train encoders


def test_a_list_of_other_images_is_another_question(
    run: Path, train: Path, test: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are renamed in their order, so that pixels, labels and order stay; and then the list has other lines."""

    @dataclass(frozen=True)
    class Quick(SemiSupervised):
        draws: int = 1
        fewest_updates: int = 2
        choice_updates: int = 1

        def _tuned(self, encoder: nn.Module, images: Any, *rest: Any) -> Any:
            worked.append(images.ids.tolist())
            return SemiSupervised._tuned(self, encoder, images, *rest)

    real, worked = protocols.load, list[list[int]]()
    monkeypatch.setattr(protocols, "load", lambda kind: Quick if kind == "semi" else real(kind))
    images = Path(shutil.copytree(train, tmp_path / "train"))
    listed, home = tmp_path / "list.txt", tmp_path / "out"
    files = [path for name in CLASSES for path in sorted((images / name).iterdir())[:4]]

    def measured(*named: Path) -> dict[str, Any]:
        listed.write_text("".join(f"{path.relative_to(images)}\n" for path in named))
        asked: dict[str, Any] = {"protocols": f"semi:{listed}", "baselines": False, "out": home}
        return evaluate(run, images, test, **asked).report

    first = [path for path in files if path == sorted(path.parent.iterdir())[0]]
    assert measured(*first)["times_measured"] == 1
    assert measured(*first)["times_measured"] == 2
    assert len(worked) == 1
    for name in CLASSES:  # the second file gets the first one's name
        one, two, *_ = sorted((images / name).iterdir())
        one.rename(one.with_name(f"!{one.name}"))
        two.rename(one)
    assert measured(*first)["times_measured"] == 1
    measured(*files[2::4])
    assert len(worked) == 3
    assert worked[0] != worked[1]
    assert len(list(home.glob("results-*.json"))) == 3


def test_fine_tuning_is_measured_beside_an_untrained_network_and_goes_on_after_a_draw_that_is_done(
    run: Path, train: Path, test: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass(frozen=True)
    class Quick(SemiSupervised):
        draws: int = 2
        fewest_updates: int = 4
        epochs: int = 1
        choice_updates: int = 2

    real = protocols.load
    monkeypatch.setattr(protocols, "load", lambda kind: Quick if kind == "semi" else real(kind))
    straight = evaluate(run, train, test, protocols="semi:30,knn", out=tmp_path / "a")
    assert set(straight.results["encoder"]) == {"semi:30", "knn"}
    assert set(straight.results["untrained"]) == {"semi:30", "knn"}
    assert set(straight.results["pixels_16"]) == {"knn"}, "pixels have nothing to train"
    assert "30 % labels top-1" in straight.table()
    notes = straight.report["sets"]["encoder"]["semi:30"]["notes"]
    assert [len(each["images"]) for each in notes["each"]] == [18, 18]
    made = Quick._tuned
    worked: list[int] = []

    def stops(self: Quick, encoder: nn.Module, images: Any, views: Any, draw: int, say: Any) -> Any:
        worked.append(draw)
        if len(worked) == 2:
            raise KeyboardInterrupt
        return made(self, encoder, images, views, draw, say)

    monkeypatch.setattr(Quick, "_tuned", stops)
    with pytest.raises(KeyboardInterrupt):
        evaluate(run, train, test, protocols="semi:30,knn", out=tmp_path / "b")
    resumed = evaluate(run, train, test, protocols="semi:30,knn", out=tmp_path / "b")
    assert worked[:3] == [0, 1, 1], "the first draw is kept"
    assert resumed.scores == straight.scores
