"""Numbers and files are of the run, the encoder and the images that they say they are of."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny

from barlow import checkpoints
from barlow.evaluation import evaluate
from barlow.pretraining import pretrain
from barlow.runs.beginning import ChangedImages
from barlow.runs.finishing import load_encoder


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("which") / "run"
    return pretrain(photos, out, overrides=tiny.SMALL | {"train.steps": 2}, progress=False).run_folder


def test_an_unfinished_run_is_measured_where_another_has_its_name_and_step(
    finished: Path, photos: Path, labelled: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "encoder")
    alone = evaluate(run, labelled, labelled, protocols=["knn"], baselines=False).report["encoder_sha256"]
    other = tmp_path / "run@2"
    pretrain(photos, other, overrides=tiny.SMALL | {"train.steps": 1, "seed": 5}, progress=False)
    assert evaluate(run, labelled, labelled, protocols=["knn"], baselines=False).report["encoder_sha256"] == alone
    named = evaluate(other, labelled, labelled, protocols=["knn"], baselines=False).report["encoder_sha256"]
    assert named != alone, "a folder of that whole name is what it names"


def test_a_folder_whose_name_has_no_plain_number_is_no_checkpoint(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    for name in ("step-²", "step-٣", f"step-{'9' * 200}"):
        (run / "checkpoints" / name).mkdir()
    assert list(checkpoints.folders(run)) == [0, 2]
    assert checkpoints.split_step(f"{run}@²")[1] is None
    load_encoder(f"{run}@2")


def test_a_result_is_kept_beside_one_of_other_labels_or_another_encoder(
    finished: Path, labelled: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    classes = sorted(path.name for path in labelled.iterdir())
    turned = tmp_path / "turned"
    for name, other in zip(classes, [*classes[1:], classes[0]], strict=True):
        shutil.copytree(labelled / name, turned / other)
    renamed = tmp_path / "renamed"
    for name in classes:
        shutil.copytree(labelled / name, renamed / f"{name}x")

    def looked(folder: Path) -> int:
        return int(evaluate(run, folder, folder, protocols=["knn"], baselines=False).report["times_measured"])

    def kept() -> int:
        return len(list((run / "evaluation").glob("results-*.json")))

    assert (looked(labelled), kept()) == (1, 1)
    assert (looked(labelled), kept()) == (2, 1), "the same question has one file"
    assert (looked(renamed), kept()) == (3, 2), "the same images, and other classes"
    turned_before = looked(turned), kept()
    assert turned_before[1] == 3
    tiny.change_weights(run, lambda tensors: tensors | {"conv1.weight": -tensors["conv1.weight"]})
    assert (looked(labelled), kept()) == (4, 4), "another encoder, and the same test images looked at once more"


def dark(folder: Path, first: int, count: int = 40) -> Path:
    """Arrays that differ outside of their first, middle and last 4 kB alone."""
    for number in range(count):
        image = np.zeros((128, 128), np.uint16)
        image[30:34] = first + number
        place = folder / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / f"{number}.npy", image)
    return folder


def test_images_that_differ_between_three_blocks_are_told_apart(tmp_path: Path) -> None:
    images, said = dark(tmp_path / "images", 1000), list[str]()
    wide = tiny.SMALL | {"train.steps": 2, "data.value_range": [0, 65535]}
    run = pretrain(images, tmp_path / "run", overrides=wide, tell=said.append).run_folder
    assert not [line for line in said if "copies" in line]
    new = dark(tmp_path / "new", 5000, 16)
    warnings = evaluate(run, images, new, protocols=["knn"], baselines=False).report["warnings"]
    assert not [line for line in warnings if "pretrained on" in line]
    warnings = evaluate(run, images, images, protocols=["knn"], baselines=False).report["warnings"]
    assert [line for line in warnings if "40 of 40" in line and "byte for byte" in line]
    dark(images, 9000)
    with pytest.raises(ChangedImages, match="contents"):
        pretrain(out=run, resume=True, steps=3, progress=False)
