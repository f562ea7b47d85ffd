"""`barlow embed` is killed, given again, and the file in the end is that of a command that nobody disturbed."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
from warm import Warm

from barlow import exits
from barlow.features import feature_files, stored_features


@pytest.fixture(scope="module")
def run(warm: Warm, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedding") / "run"
    words = ["pretrain", photos, "--out", folder, *tiny.words(train__steps=1)]
    assert warm.run(words).code == exits.OK
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four parts of images."""
    return tiny.images(tmp_path_factory.mktemp("many") / "images", 1_600, classes=4, side=8)


def command(run: Path, images: Path, out: Path) -> list[object]:
    return ["embed", run, images, "--out", out, "--batch-size", 64, "--device", "cpu"]


FILES = {".npy": (".csv", ".npy"), ".parquet": (".parquet",)}
"""What is there in the end, by the ending that is asked for."""


def same(one: Path, other: Path) -> bool:
    return all(one.with_suffix(end).read_bytes() == other.with_suffix(end).read_bytes() for end in FILES[one.suffix])


def shape(path: Path) -> tuple[int, ...]:
    """Of the matrix of vectors, as whoever searches the file reads it."""
    return tuple(stored_features.read(path).vectors.shape)


@pytest.mark.parametrize("ending", FILES)
def test_killed_at_three_changes_of_the_disk_it_goes_on(
    ending: str, run: Path, many: Path, warm: Warm, tmp_path: Path
) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra `embed`)")
    straight, home = tmp_path / "straight" / f"f{ending}", tmp_path / "out"
    counted = warm.run(command(run, many, straight), fault={"home": str(straight.parent), "how": "count"})
    assert counted.code == exits.OK, counted.output
    assert shape(straight) == (1_600, 8)
    out = home / f"f{ending}"
    killed = []
    for share in (0.3, 0.5, 0.8):
        fault = {"home": str(home), "how": "die", "at": int(share * len(counted.changes))}
        ended = warm.run(command(run, many, out), fault=fault)
        killed.append(ended.killed)
        assert not out.exists() or shape(out) == (1_600, 8)
    # What is there is not written again, so that the last may be through before it would be killed.
    assert killed[:2] == [True, True]
    if killed[-1]:
        ended = warm.run(command(run, many, out))
    assert ended.code == exits.OK, ended.output
    assert same(out, straight)
    assert sorted(path.name for path in home.iterdir()) == [f"f{end}" for end in FILES[ending]]


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
def test_killed_twenty_times_at_any_moment_a_hundred_thousand_images_are_all_there_once(
    run: Path, warm: Warm, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    count = int(os.environ.get("BARLOW_TEST_IMAGES", "100000"))
    images = tiny.images(tmp_path / "images", count, classes=8, side=8)
    straight, out = tmp_path / "straight.npy", tmp_path / "f.npy"
    assert warm.run(command(run, images, straight)).code == exits.OK

    def parts() -> int:
        return len(list(tmp_path.glob("f.npy.parts/part-*")))

    rng = np.random.default_rng(0)
    most = max(1, count // feature_files.PART // 25)  # so that twenty kills come before the end
    done = [0]
    for _ in range(20):
        pids = warm.start(command(run, images, out))
        goal, deadline = done[-1] + rng.integers(1, most + 1), time.monotonic() + 120
        while parts() < goal and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        os.kill(pids[0], signal.SIGKILL)
        assert warm.wait().killed
        done.append(parts())
    record_property("parts at each kill", done)
    assert done == sorted(set(done)), "each goes on from what was there"
    assert warm.run(command(run, images, out)).code == exits.OK
    assert same(out, straight)


@pytest.mark.timeout(600)
def test_two_processes_share_the_parts_and_write_the_same_file(
    run: Path, many: Path, warm: Warm, tmp_path: Path
) -> None:
    alone, shared = tmp_path / "alone.npy", tmp_path / "shared.npy"
    assert warm.run(command(run, many, alone)).code == exits.OK
    ended = warm.run(command(run, many, shared), ranks=2)
    assert ended.codes == [exits.OK] * 2, ended.output
    assert same(alone, shared)


def test_asked_to_stop_it_says_how_to_go_on(run: Path, many: Path, warm: Warm, tmp_path: Path) -> None:
    out = tmp_path / "f.npy"
    pids = warm.start(command(run, many, out))
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("f.npy.parts/part-*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(pids[0], signal.SIGTERM)
    ended = warm.wait()
    if ended.code != exits.OK:  # else it was through before
        assert ended.code == exits.STOPPED, ended.output
        assert "what was embedded is kept, and the same command goes on from there" in ended.output
    assert warm.run(command(run, many, out)).code == exits.OK
