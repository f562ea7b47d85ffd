"""One process, two, three: the same loss, gradient of every parameter, buffers, and training, with different shards."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import joins
import pytest
import tiny
import torch
import trainings
import worlds
from nightly_cases import nightly_but
from nightly_log import record

from barlow.distributed import World
from barlow.pretraining import pretrain

SINGLE = World(torch.device("cpu"))
ALLOWED = {"without batch norm": 1e-10, "with batch norm": 1e-8, "float64": 1e-8, "float32": 1e-5}


@pytest.mark.parametrize("processes", nightly_but([2, 3], lambda count: count == 2))
def test_processes_with_different_rows_have_gradients_and_training_of_one(processes: int, tmp_path: Path) -> None:
    for done in worlds.start([worlds.__file__, str(tmp_path)], processes):
        assert done.returncode == 0, done.stderr
    alone = worlds.found(SINGLE)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(processes)]
    for case, reference in alone.items():
        worst = None
        allowed = next(allowed for words, allowed in ALLOWED.items() if words in case)
        for shared in ranks:
            assert all(shared[case][name].equal(value) for name, value in ranks[0][case].items()), case
            if "in chunks, with batch norm" in case:
                continue  # there batch norm sees other chunks than in one process
            found = worlds.differences(shared[case], reference)
            assert {name: error for name, error in found.items() if error > allowed} == {}, case
            worst = max(worst or 0.0, *found.values())
        record(kind="processes", name=case, processes=processes, error=worst, allowed=allowed)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data") / "photos", 96)


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The trainings in so many processes, made when first asked for."""
    home, made = tmp_path_factory.mktemp("runs"), dict[int, Path]()

    def run(processes: int) -> Path:
        if processes not in made:
            out = home / str(processes)
            if processes == 1:
                trainings.run(data, out)
            for done in worlds.start([trainings.__file__, str(data), str(out)], processes) if processes > 1 else []:
                assert done.returncode == 0, done.stderr
            made[processes] = out
        return made[processes]

    return run


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_in_two_processes_is_the_run_of_one(runs: Callable[[int], Path]) -> None:
    """Batches, views, batch norm, rates and files; its first steps, before rounding has grown."""
    for recipe in trainings.RECIPES:
        alone, shared = (runs(processes) / recipe for processes in (1, 2))
        assert losses(shared)[:4] == pytest.approx(losses(alone)[:4], rel=1e-5), recipe
        assert sorted(path.name for path in shared.iterdir()) == sorted(path.name for path in alone.iterdir())
        for file in ("recipe.yaml", "data.json", "views.png"):
            assert (shared / file).read_bytes() == (alone / file).read_bytes(), file
        assert [json.loads((run / "run.json").read_text())["starts"][0]["processes"] for run in (alone, shared)] == [
            1,
            2,
        ]


@pytest.mark.parametrize(("before", "after"), nightly_but([(2, 1), (1, 2)], lambda pair: pair == (2, 1)))
def test_a_checkpoint_goes_on_in_another_number_of_processes(
    before: int, after: int, runs: Callable[[int], Path], data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(runs(before), out)
    for recipe in trainings.RECIPES:
        shutil.rmtree(out / recipe / "checkpoints" / f"step-{trainings.STEPS:06d}")
    if after == 1:
        trainings.resume(out)
    else:
        for done in worlds.start([trainings.__file__, "--resume", str(out)], after):
            assert done.returncode == 0, done.stderr
    for recipe in trainings.RECIPES:
        straight, resumed = losses(runs(before) / recipe), losses(out / recipe)
        assert len(resumed) == trainings.STEPS
        next_steps = slice(trainings.HALF, trainings.HALF + 3)
        assert resumed[: trainings.HALF] == straight[: trainings.HALF]
        assert resumed[next_steps] == pytest.approx(straight[next_steps], rel=1e-5), recipe


def test_blocks_are_contiguous_and_a_batch_that_does_not_divide_is_refused_with_the_arithmetic() -> None:
    device = torch.device("cpu")
    assert [World(device, rank, 3).block(12) for rank in range(3)] == [slice(0, 4), slice(4, 8), slice(8, 12)]
    with pytest.raises(ValueError, match="use --batch-size 63 or 66"):
        World(device, 0, 3).block(64)
    with pytest.raises(ValueError, match="use --batch-size 3,"):
        World(device, 0, 3).block(2)


@pytest.mark.nightly
def test_a_run_by_the_flag_is_the_run_by_torchrun(data: Path, tmp_path: Path) -> None:
    pretrain(data, tmp_path / "alone", overrides=tiny.SMALL | {"train.steps": 2}, progress=False)
    words = ["pretrain", str(data), "--out", str(tmp_path / "two"), "--devices", "2", *tiny.words(train__steps=2)]
    done = worlds.start_anew(["-m", "barlow.cli", *words])
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "alone"), rel=1e-5)
    assert done.stderr.count("reading") == 1, "one process speaks"
    assert "2 processes" in done.stderr
    assert done.stdout.count("next ") == 1


PARTED = ["0 3.0", "1 3.0", "2 3.0"]
"""What one of two processes says that found each other three times."""


def test_processes_that_have_parted_find_each_other_again() -> None:
    """The launcher's store keeps what the first group told, and the second must not take that for new."""
    for done in worlds.start([joins.__file__], 2):
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == PARTED


@pytest.mark.nightly
def test_processes_of_torchs_launcher_that_have_parted_find_each_other_again() -> None:
    done = worlds.start_anew(["-m", "torch.distributed.run", "--nproc-per-node", "2", joins.__file__])
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == sorted(2 * PARTED)
