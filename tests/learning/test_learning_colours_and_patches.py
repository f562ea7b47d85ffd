"""Colorization learns CIFAR-10, whose images have colours; the embedded set has none.

python -m pytest tests/learning/test_learning_colours_and_patches.py -m nightly
"""

import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

import barlow
from barlow.probes.intervals import Score

LEARNED, TESTED = 800, 200
"""Images of each class of CIFAR-10."""

MARGINS = {
    "colorization": {"knn.top1": 0.035, "logistic.top1": 0.035},
    "cpc": {"knn.top1": 0.016, "logistic.top1": 0.055},
}
"""Half of what one seed gave over the untrained network (docs/experiments.md)."""

LAST_STAGE = {"encoder.stages": "last", "encoder.whiten": None, "data.centre_size": None}


def some(home: Path, to: Path, count: int) -> Path:
    """A folder with links to the first images of each class."""
    for of_class in sorted(home.iterdir()):
        (to / of_class.name).mkdir(parents=True)
        for image in sorted(of_class.iterdir())[:count]:
            (to / of_class.name / image.name).symlink_to(image)
    return to


@pytest.fixture(scope="module")
def sets(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    archive = shared_data / "cifar10.tar"
    if not archive.exists():
        pytest.skip(f"no {archive}")
    home = tmp_path_factory.mktemp("cifar10")
    with tarfile.open(archive) as tar:
        tar.extractall(home, filter="data")
    whole = home / "cifar10"
    return some(whole / "train", home / "learned", LEARNED), some(whole / "test", home / "tested", TESTED)


def check(kind: str, scores: Mapping[str, Mapping[str, Score]]) -> None:
    for metric, margin in MARGINS[kind].items():
        ours, untrained = (scores[name][metric].value for name in ("encoder", "untrained"))
        assert ours - untrained >= margin, f"{metric}: {ours}, untrained {untrained}"


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_colorization_beats_the_untrained_network(sets: tuple[Path, Path], tmp_path: Path) -> None:
    learned, tested = sets
    changes = LAST_STAGE | {"train.monitor_images": 0, "train.batch_size": 128}
    run = tmp_path / "run"
    barlow.pretrain(learned, run, recipe="small_colorization", steps=600, seed=0, overrides=changes, progress=False)
    check("colorization", barlow.evaluate(run, learned, tested, protocols=["knn", "logistic"]).scores)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_cpc_beats_the_untrained_network(tmp_path: Path) -> None:
    changes = LAST_STAGE | {"train.monitor_images": 0, "train.batch_size": 64, "views.0.0.scale": [0.4, 1.0]}
    run = tmp_path / "run"
    barlow.pretrain("shapes", run, recipe="small_cpc", steps=200, seed=0, overrides=changes, progress=False)
    check("cpc", barlow.evaluate(run, protocols=["knn", "logistic"]).scores)
