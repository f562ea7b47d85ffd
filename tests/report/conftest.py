"""A small run that was evaluated, whose classes and files have names that a stranger would choose."""

import shutil
from pathlib import Path

import pytest
import tiny
from strange_names import HOSTILE, LONG

from barlow.evaluation import evaluate
from barlow.pretraining import pretrain


def labelled(home: Path, count: int, seed: int) -> Path:
    """Three classes told apart by their colour; one of them has a hostile name, and a file of it a very long one."""
    folder = tiny.images(home, count, classes=3, seed=seed)
    hostile = folder / HOSTILE
    (folder / "class1").rename(hostile)
    first = min(hostile.iterdir())
    (hostile / LONG / LONG).mkdir(parents=True)
    first.rename(hostile / LONG / LONG / "</script><script>alert(2)</script>.png".replace("/", "_"))
    return folder


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/, test/ and run/."""
    home = tmp_path_factory.mktemp("report")
    train, test = labelled(home / "train", 60, 1), labelled(home / "test", 30, 2)
    run = pretrain(train, home / "run", overrides=tiny.SMALL, progress=False).run_folder
    evaluate(run, train, test, protocols=["knn", "logistic"])
    return home


@pytest.fixture
def run(home: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed; its images stay where they are."""
    return shutil.copytree(home / "run", tmp_path / "run")
