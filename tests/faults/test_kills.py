"""Runs that are killed from outside, at any moment of their life, and are the same in the end: real kill -9.

The moments are spread evenly over the whole life of the command, from the first look at the images to the last byte of
the encoder. Then the same command is given again, until it is through; now and then it is killed once more.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
from forks import children
from injections import record
from run_folders import meaning, wrong_in
from warm import Ended, Warm

from barlow import exits

HEADS = {
    "byol": {"method.predictor.widths": [16, 4]},
    "moco_v2": {"objective.queue": 64, "method.batch_norm_rows": 8},
}
CASES = [
    (recipe, executor)
    for recipe in ("barlow_twins", "vicreg", "w_mse", "byol", "moco_v2")
    for executor in ("in_memory", "streaming")
]
EACH = 2
"""Kills of each case in CI; with ten cases that is twenty."""


def command(photos: Path, run: Path, recipe: str, executor: str, **more: Any) -> list[object]:
    changes = {"data.executor": executor, "data.workers": 1, "train.checkpoint_steps": 2, "train.steps": 6}
    words = tiny.words(**changes | HEADS.get(recipe, {}) | more)
    return ["pretrain", photos, "-c", f"small_{recipe}", "--out", run, "--resume", *words]


def killed_after(seconds: float, warm: Warm, words: Sequence[object], ranks: int, rng: random.Random) -> Ended:
    """A command that one of its processes is killed of."""
    pids = warm.start(words, ranks=ranks)
    time.sleep(seconds)
    os.kill(rng.choice(pids), signal.SIGKILL)
    return warm.wait()


def kills(
    count: int, warm: Warm, words: Sequence[object], run: Path, *, ranks: int = 1, seed: int = 0
) -> tuple[int, list[str]]:
    """Kills a command so often, at moments that are spread over its life.

    Returns:
        How often it was killed, and what was wrong afterwards, a line for each.
    """
    began = time.monotonic()
    ended = warm.run(words, ranks=ranks)
    life = time.monotonic() - began
    assert ended.codes == [exits.OK] * ranks, ended.output
    expected = meaning(run)
    rng = random.Random(seed)
    done, wrong = 0, list[str]()
    while done < count:
        shutil.rmtree(run)
        for again in range(10):
            moment = life * (done + rng.random()) / count
            ended = killed_after(moment, warm, words, ranks, rng)
            if not ended.killed:  # it was through before its time
                life *= 0.95
                break
            done += 1
            if again or done == count or rng.random() < 0.7:
                break
        ended = ended if exits.OK in ended.codes and not ended.killed else warm.run(words, ranks=ranks)
        place = f"killed after {moment:.3f} s of {life:.3f}: "
        if ended.codes != [exits.OK] * ranks:
            wrong.append(f"{place}the same command ends with {ended.codes}: {ended.told or ended.output}")
            continue
        found = meaning(run)
        differ = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
        wrong += [place + line for line in [*wrong_in(run), *(f"{name} differs" for name in differ)]]
    return done, wrong


@pytest.mark.parametrize(("recipe", "executor"), CASES)
def test_a_run_that_is_killed_from_outside_and_given_again_is_the_same(
    recipe: str, executor: str, photos: Path, warm: Warm, tmp_path: Path
) -> None:
    words = command(photos, tmp_path / "run", recipe, executor)
    done, wrong = kills(EACH, warm, words, tmp_path / "run", seed=CASES.index((recipe, executor)))
    record(f"kill -9 of a run in one process: {recipe}, {executor}", done, len(wrong))
    assert done == EACH
    assert not wrong, "\n".join(wrong)
    assert warm.left() == 0, "helpers of a run that was killed live on"


@pytest.mark.nightly
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(("recipe", "executor"), CASES)
def test_many_kills(recipe: str, executor: str, ranks: int, photos: Path, warm: Warm, tmp_path: Path) -> None:
    """With several processes, one of them is killed, and the others have to notice."""
    many = {1: 14, 2: 4}[ranks]
    words = command(photos, tmp_path / "run", recipe, executor)
    done, wrong = kills(many, warm, words, tmp_path / "run", ranks=ranks, seed=1000 + CASES.index((recipe, executor)))
    record(f"kill -9 of a run in {ranks} process{'es' * (ranks > 1)}: {recipe}, {executor}", done, len(wrong))
    assert done == many
    assert not wrong, "\n".join(wrong)
    assert warm.left() == 0, "helpers of a run that was killed live on"


@pytest.mark.nightly
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("who", ["the launcher", "the first", "the second"])
def test_kills_of_a_run_that_was_launched_in_two_processes(who: str, photos: Path, warm: Warm, tmp_path: Path) -> None:
    """By `--devices 2`, as users do it. The launcher's processes end by themselves once it is gone."""
    run, many, done, wrong = tmp_path / "run", 7, 0, list[str]()
    words = [*command(photos, run, "barlow_twins", "in_memory", train__steps=40), "--devices", "2"]
    assert launched(words).wait(120) == exits.OK
    expected = meaning(run)
    rng = random.Random(("the launcher", "the first", "the second").index(who))
    while done < many:
        shutil.rmtree(run)
        process = launched(words)
        while not (run / "recipe.yaml").exists():
            time.sleep(0.01)
        time.sleep(rng.random())
        found = children(process.pid)
        victim = {"the launcher": [process.pid], "the first": found[:1], "the second": found[1:]}[who]
        if process.poll() is None and victim:
            os.kill(victim[0], signal.SIGKILL)
            done += process.wait(60) != exits.OK
        wait_until_gone(found)
        code = launched(words).wait(120)
        if code != exits.OK or meaning(run) != expected:
            wrong.append(f"kill {done} of {who}: the same command ends with {code}")
        wrong += wrong_in(run)
    record(f"kill -9 of a run by --devices 2: {who}", done, len(wrong))
    assert not wrong, "\n".join(wrong)


def launched(words: Sequence[object]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "barlow.cli", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def wait_until_gone(pids: Sequence[int]) -> None:
    """A process whose launcher was killed saves and ends."""
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids):
        assert time.monotonic() < deadline, "a process lives on without its launcher"
        time.sleep(0.05)
