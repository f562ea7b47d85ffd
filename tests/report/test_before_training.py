"""The network before training is shown as an encoder that was made in the same way as the trained one."""

import shutil
from pathlib import Path

import pytest
import tiny

from barlow import record
from barlow.evaluation import evaluate
from barlow.pretraining import pretrain
from barlow.protocols.knn import WeightedKNN
from barlow.report import write_report
from barlow.report.before import before_training
from barlow.report.kept import _features
from barlow.report.shown import shown
from barlow.runs import finishing
from barlow.telling import silent


@pytest.fixture(scope="module")
def whitened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that hands out all stages, whitened; evaluated."""
    home = tmp_path_factory.mktemp("whitened")
    train, test = tiny.images(home / "train", 60, classes=3), tiny.images(home / "test", 30, classes=3, seed=1)
    changes = tiny.SMALL | {"encoder.stages": "all", "encoder.whiten": 0.1, "train.steps": 2}
    run = pretrain(train, home / "run", overrides=changes, progress=False).run_folder
    evaluate(run, train, test, protocols=["knn"])
    return run


def test_of_an_evaluation_it_is_the_untrained_network_handed_out_that_its_table_has(whitened: Path) -> None:
    run = record.read(whitened)
    found, before = shown(run, 100, silent), before_training(run, finishing.load_encoder(whitened))
    assert not isinstance(found, str)
    assert found.before is not None
    assert found.before.shape == found.features.shape, "the same stages"
    assert before is not None
    assert run.results is not None
    train = _features(run, run.results, "train", before.identity(run.results["images"]["train"]["fingerprint"]), silent)
    assert train is not None
    top1 = WeightedKNN().predict(train, found.before).predictions == found.labels
    assert top1.mean() == run.results["sets"]["untrained_handed_out"]["knn"]["metrics"]["top1"]["value"]
    assert "batch norm and whitening by the labelled images that the evaluation learned from" in found.before_words


def test_without_an_evaluation_it_is_finished_by_the_images_that_the_run_finished_its_own_by(
    whitened: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(whitened, tmp_path / "run")
    shutil.rmtree(run / "evaluation")
    found = shown(record.read(run), 100, silent)
    assert not isinstance(found, str)
    assert found.before is not None
    assert found.before.shape == found.features.shape, "the same stages"
    for features in (found.features, found.before):
        assert float(features.mean(0).abs().max()) < 1e-3, "whitened by these images, so their mean is 0"
    assert "all stages side by side; batch norm and whitening by images of the run" in found.before_words


def test_the_page_says_beside_the_numbers_how_both_were_made(whitened: Path, tmp_path: Path) -> None:
    page = write_report(whitened, tmp_path / "report.html", map="pca").read_text(encoding="utf-8")
    assert "weights drawn at random, treated as the trained one is: the features of all stages" in page
    assert "Each neighbour counts by itself here" in page
    assert "the share of these votes that its wrong class got" in page or "None of the images" in page


def test_what_a_run_started_from_is_as_the_run_finished_it(whitened: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whitened, tmp_path / "run")
    shutil.copytree(run / "encoder", run / "start")
    encoder = finishing.load_encoder(run)
    before = before_training(record.read(run), encoder)
    assert before is not None
    assert not before.drawn
    assert before.network.num_features == encoder.num_features
    assert "the weights that the run started from" in before.words("")
