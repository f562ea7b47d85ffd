"""Each verdict is said of a run that deserves it: trained, evaluated and judged by the commands that users give."""

import re
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from barlow import pretraining
from barlow.cli import main
from barlow.runs.run import Run

SIDE = 24


def textures(folder: Path, count: int, *, seed: int, noise: float) -> Path:
    """Noise that is smoothed down, across, or both ways, and more noise: no place in an image tells its class."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        kind = number % 3
        field = rng.standard_normal((SIDE, SIDE))
        for axis in ((0,), (1,), (0, 1))[kind]:
            field = sum(np.roll(field, step, axis) for step in (-1, 0, 1))
        field = field / field.std() + noise * rng.standard_normal((SIDE, SIDE))
        pixels = np.clip(128 + 50 * field / np.hypot(1, noise), 0, 255).astype(np.uint8)
        home = folder / f"class{kind}"
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.repeat(pixels[:, :, None], 3, axis=2)).save(home / f"{number:04}.png")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Textures, and a network that was taught their classes, so that it is better than what costs nothing."""
    made = tmp_path_factory.mktemp("verdicts")
    textures(made / "train", 360, seed=0, noise=0.2)
    textures(made / "test", 240, seed=1, noise=0.2)
    pretrained(made / "train", made / "taught", "-c", "small_supervised", train__steps=200, optim__lr_per_256=0.15)
    return made


def pretrained(images: Path, out: Path, *words: str, **changes: object) -> None:
    kept = tiny.words(**changes)
    at = [place for place, word in enumerate(kept) if word.startswith("--method.projector")]
    without = [word for place, word in enumerate(kept) if place not in (*at, *(place + 1 for place in at))]
    assert main(["pretrain", str(images), "--out", str(out), *words, *without]) == 0


def evaluated(home: Path, run: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    words = ["--train", str(home / "train"), "--test", str(home / "test"), "--protocol", "knn,logistic"]
    assert main(["evaluate", str(home / run), *words]) == 0
    printed = capsys.readouterr().out
    return " ".join(printed[printed.index("verdict") : printed.index("results ")].split())


@pytest.mark.nightly
def test_a_network_that_was_taught_the_classes_is_worth_having(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = evaluated(home, "taught", capsys)
    assert re.match(
        r"verdict worth having: kNN \+[\d.]+ over raw pixels, logistic \+[\d.]+ over the untrained", said
    ), said


@pytest.mark.nightly
def test_a_network_that_training_has_harmed_is_below_its_start_which_is_handed_out_in_its_place(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = home / "harmed"
    words = tiny.words(train__steps=25, optim__lr_per_256=5.0, encoder__name="resnet26")
    assert main(["pretrain", str(home / "train"), "--init", str(home / "taught"), "--out", str(out), *words]) == 0
    said = evaluated(home, "harmed", capsys)
    assert re.match(r"verdict not worth having: kNN -[\d.]+ over its start, logistic -[\d.]+ over its start", said), (
        said
    )
    assert "advice use the run's start/ as it is" in said


def test_minutes_are_told_as_steps_and_epochs_before_the_first_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line that says of three minutes on three thousand photos that they are 2.6 epochs."""
    monkeypatch.setattr(pretraining, "seconds_per_step", lambda learner, loader: 2.95)
    photos, out = tiny.images(tmp_path / "photos", 368, side=16), tmp_path / "run"
    changes = {key: value for key, value in tiny.SMALL.items() if key != "train.steps"}
    told: list[tuple[str, bool]] = []

    def tell(line: str) -> None:
        told.append((line, Run(out).exists()))

    pretraining.pretrain(photos, out, minutes=3.0, overrides=changes, progress=False, tell=tell)
    said = "steps 61: 3 minutes at 2.950 s a step, measured just now; 2.65 epochs"
    assert (said, False) in told, "nothing of the run is there yet"
    (weights,) = [line for line, _ in told if line.startswith("weights ")]
    assert weights.startswith("weights  368 images teach a network little"), "and what else there is"
