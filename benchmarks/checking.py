"""How long `barlow check` takes: 50,000 images of 32 pixels, all of them different, with the time of a step.

    python benchmarks/checking.py

The command is run as a user runs it, imports included. Files are warm: they have just been written.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import pictures
from clock import Cost, children_seconds

IMAGES, SMOKE_IMAGES, SIDE = 50_000, 500, 32
AT_MOST_SECONDS = 90.0


def checked(folder: Path) -> Cost:
    """One whole command."""
    barlow = str(Path(sys.executable).with_name("barlow"))
    before, spent = time.perf_counter(), children_seconds()
    subprocess.run([barlow, "check", str(folder)], check=True, capture_output=True)
    return Cost(time.perf_counter() - before, children_seconds() - spent)


def rows(smoke: bool) -> Sequence[measure.Row]:
    count = SMOKE_IMAGES if smoke else IMAGES
    folder = pictures.write_folder(pictures.home() / "small", count, SIDE, SIDE, different=count)
    return [
        measure.Row(
            name="check_50000_32px",
            what=f"`barlow check` of {count:,} JPEGs of {SIDE}×{SIDE}: every file, all pairs, the time of a step",
            ours=lambda: checked(folder),
            at_most_seconds=AT_MOST_SECONDS,
            work=(count, "images"),
            warmups=0,
            seconds=100,
        )
    ]


if __name__ == "__main__":
    sys.exit(measure.main(__file__, rows))
