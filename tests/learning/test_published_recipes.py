"""The published CIFAR-10 recipes on real images: two hundred steps without failure, and the loss falls."""

import statistics
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from nightly_log import record

from barlow.pretraining import pretrain
from barlow.recipe.files import names
from barlow.runs.run import Run

STEPS = 200
ON_CPU = {"encoder.options": {"channels": [8, 16, 32, 64]}}
"""An eighth of ResNet-18's width: with all of it two cores would need hours. Batch, slices, views, rates, head stay."""


@pytest.fixture(scope="module")
def photos(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = shared_data / "cifar10.tar"
    if not archive.exists():
        pytest.skip(f"no {archive}")
    home = tmp_path_factory.mktemp("cifar10")
    with tarfile.open(archive) as tar:
        tar.extractall(home, filter="data")
    return home / "cifar10" / "train"


@pytest.fixture
def _all_cores() -> Iterator[None]:
    """These runs come one at a time, so each may use the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.nightly
@pytest.mark.usefixtures("_all_cores")
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("name", [name for name in names() if name.startswith("cifar10/")])
def test_a_published_recipe_runs_on_real_images_and_its_loss_falls(name: str, photos: Path, tmp_path: Path) -> None:
    changes = {"train.steps": STEPS, "train.log_steps": 1, "train.precision": "auto"}
    changes |= {} if torch.cuda.is_available() else ON_CPU
    result = pretrain(photos, tmp_path / "run", recipe=name, overrides=changes, progress=False)
    rows = Run(result.run_folder).metrics()
    losses = [row["loss"] for row in rows]
    assert len(losses) == STEPS
    first, last = statistics.mean(losses[:20]), statistics.mean(losses[-20:])
    speed = statistics.median(row["images_per_second"] for row in rows)
    record(
        kind="published recipe",
        name=name,
        steps=STEPS,
        changes=changes,
        first=round(first, 4),
        last=round(last, 4),
        images_per_second=speed,
    )
    assert last < first
