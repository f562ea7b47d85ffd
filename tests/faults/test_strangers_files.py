"""A run, a recipe or an encoder of a stranger's asks for too much: refused within a second and 100 MB, in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from barlow.pretraining import pretrain

PROGRAM = Path(__file__).with_name("strangers.py")
SECONDS, MEGABYTES = 1.0, 100.0


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """What became of each file, in one program that reads them all."""
    root = tmp_path_factory.mktemp("strangers")
    images = tiny.images(root / "images", 20)
    changes = tiny.SMALL | {"train.steps": 1, "encoder.stages": "all", "data.executor": "in_memory"}
    pretrain(images, root / "run", recipe="small_barlow_twins", overrides=changes, progress=False)
    (root / "work").mkdir()
    words = [sys.executable, str(PROGRAM), str(root / "run"), str(images), str(root / "work")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_each_is_refused_in_one_line(outcomes: list[dict[str, object]]) -> None:
    assert len(outcomes) >= 30
    refusals = ("ValueError", "TooLarge", "RecipeError", "BrokenRun", "UnusableData")
    foreseen = (*refusals, "Damaged", "AllDamaged", "NoInput")
    wrong = [o for o in outcomes if not str(o["said"]).startswith(foreseen)]
    assert not wrong
    assert not [o for o in outcomes if len(str(o["said"])) > 400 or "\n" in str(o["said"])]


def test_each_is_refused_within_a_second_and_100_megabytes(outcomes: list[dict[str, object]]) -> None:
    assert not [o for o in outcomes if float(str(o["seconds"])) > SECONDS], "seconds of the processor"
    assert not [o for o in outcomes if float(str(o["megabytes"])) > MEGABYTES]
