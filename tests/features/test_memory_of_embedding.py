"""What `barlow embed` holds does not grow with the number of images, apart from what is known of each file's place."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from encoder_folders import written

FEW = 5_000
FOR_A_PATH = 500
"""Bytes that an image may take: its path as text, and what the listing knows of the file."""

WIDTH = 512
"""Features that were held would be 2,048 bytes an image; centre views 768."""

PROGRAM = """
import sys
from pathlib import Path

from barlow.cli import main

code = main(sys.argv[1:])
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line for line in lines if line.startswith("VmHWM")).split()[1])
sys.exit(code)
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Quick, and with wide features."""
    options = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, WIDTH]}
    return written(tmp_path_factory.mktemp("encoder"), "resnet18", size=16, options=options)


def peak(encoder: Path, images: Path, out: Path) -> int:
    """The most memory that the command had at any time, in bytes."""
    words = ["embed", encoder, images, "--out", out, "--device", "cpu", "--batch-size", 64]
    command = [sys.executable, "-c", PROGRAM, *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return 1024 * int(done.stdout.split()[-1])


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("ending", [".npy", ".parquet"])
def test_twenty_times_as_many_images_take_the_memory_of_their_paths_alone(
    ending: str, encoder: Path, tmp_path: Path, record_property: object
) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra `embed`)")
    many = int(os.environ.get("BARLOW_TEST_IMAGES", "100000"))
    folders = {count: tmp_path / f"images{count}" for count in (FEW, many)}
    drawn = sorted(tiny.images(tmp_path / "drawn", 64, side=8).iterdir())
    for count, folder in folders.items():
        for i in range(count):
            place = folder / f"class{i % 8}" / f"{i:06}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(drawn[i % len(drawn)], place)
    few, more = (peak(encoder, folder, tmp_path / f"{count}{ending}") for count, folder in folders.items())
    grown = (more - few) / (many - FEW)
    record_property("bytes an image", grown)  # type: ignore[operator]
    assert grown < FOR_A_PATH, f"{few / 1e6:.0f} MB of {FEW:,} images, {more / 1e6:.0f} MB of {many:,}"
