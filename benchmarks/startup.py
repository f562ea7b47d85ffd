"""How long a user waits: from the command to the end of the first step, on 1,000 photographs.

    python benchmarks/startup.py

Files and imports are warm: each command runs once before it is measured. With --minutes the command first measures the
speed of a step, for some seconds, to know how many fit.
"""

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import pictures
from clock import Cost, of_process

IMAGES, SMOKE_IMAGES = 1000, 200
PATIENCE_SECONDS = 120.0


def first_step(folder: Path, budget: Sequence[str]) -> Cost:
    """What passes until the log has the first step; the run is then told to stop."""
    barlow = str(Path(sys.executable).with_name("barlow"))
    with tempfile.TemporaryDirectory() as out:
        log = Path(out) / "run" / "metrics.jsonl"
        before = time.perf_counter()
        words = [barlow, "pretrain", str(folder), "--out", f"{out}/run", "--train.log_steps", "1", *budget]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as command:
            while not (log.exists() and log.stat().st_size):
                time.sleep(0.01)
                waited = time.perf_counter() - before
                if command.poll() is not None or waited > PATIENCE_SECONDS:
                    command.kill()
                    assert command.stderr is not None
                    raise RuntimeError(f"no first step after {waited:.0f} s: {command.stderr.read()}")
            cost = Cost(time.perf_counter() - before, of_process(command.pid))
            with contextlib.suppress(ProcessLookupError):
                command.send_signal(signal.SIGINT)
            command.communicate()
    return cost


def rows(smoke: bool) -> list[measure.Row]:
    count = SMOKE_IMAGES if smoke else IMAGES
    folder = pictures.write_folder(pictures.home() / "photos", count, 375, 500)
    what = f"`barlow pretrain` on {count:,} JPEGs of 500×375, to the end of the first step"
    return [
        measure.Row(
            name="startup_steps",
            what=f"{what}, with --steps",
            ours=lambda: first_step(folder, ["--steps", "50"]),
            at_most_seconds=8.0,
            warmups=0 if smoke else 1,
            seconds=90,
        ),
        measure.Row(
            name="startup_minutes",
            what=f"{what}, with --minutes, which measures steps first",
            ours=lambda: first_step(folder, ["--minutes", "5"]),
            at_most_seconds=8.0,
            seconds=90,
        ),
    ][: 1 if smoke else 2]


if __name__ == "__main__":
    sys.exit(measure.main(__file__, rows))
