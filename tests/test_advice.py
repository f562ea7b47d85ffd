"""Advice: each verdict for a run that deserves it, effects only where they were measured, three lines at most."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from torch import Tensor
from torch.nn import functional

from barlow import advice, evaluate
from barlow.advice import Measured, Way, after_evaluation, after_training, before_training, effect, measured
from barlow.cli import main
from barlow.data.epochs import epochs_of
from barlow.diagnostics.health import HEALTHY, Health
from barlow.pretraining import pretrain
from barlow.probes.metrics import Predicted
from barlow.probes.report import outcome_of
from barlow.probes.results import Results
from barlow.recipe import files
from barlow.recipe.changes import override
from barlow.recipe.request import shipped_name
from barlow.runs.ran import Ran
from barlow.runs.run import load_recipe_text
from barlow.storage import read_json


def ran(recipe: str | None = "small_w_mse", **more: Any) -> Ran:
    """A run of some length, or with what else is given."""
    objective = {"small_vicreg": "vicreg", "small_byol": "byol"}.get(str(recipe), "w_mse")
    values = {"objective": objective, "from_weights": False, "steps": 5000, "epochs": 30, "images": 20_000}
    return Ran(recipe=recipe, **values | {"view": 32, "short_side": 96, "rate": 0.012} | more)


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
        way = Way(found.recipe, found.minutes, None if found.shipped else found.view)
        assert found in way.of(measured()).values(), "nothing is there twice"


def test_an_effect_is_the_mean_over_sets_that_were_measured_both_ways_on_the_same_part() -> None:
    runs = [
        run("a", minutes=3, scores=scores(0.5, 0.6)),
        run("a", minutes=15, scores=scores(0.6, 0.62)),
        run("a", minutes=3, shipped=False, view=64, scores=scores(0.1, 0.1)),
        run("b", minutes=3, scores=scores(0.3, 0.3)),
        run("b", minutes=15, scores=scores(0.32, 0.36)),
        run("c", minutes=15, scores=scores(0.9, 0.9)),
        run("b", minutes=3, part="held out", scores=scores(0.0, 0.0)),
    ]
    short, long = Way("small_w_mse", 3), Way("small_w_mse", 15)
    assert effect(runs, short, long) == pytest.approx({"knn": 6.0, "logistic": 4.0})
    assert effect(runs, short, Way("small_w_mse", 60)) is None
    assert effect(runs, Way("small_w_mse", 3, 64), long) == pytest.approx({"knn": 50.0, "logistic": 52.0})
    with pytest.raises(ValueError, match="was measured twice on a, test"):
        effect([*runs, run("a", minutes=3, steps=100)], short, long)


# --- Before training --------------------------------------------------------------------------------------------------


def test_a_budget_says_what_it_gave_elsewhere(known: list[Measured]) -> None:
    known += [
        run("a", steps=1000, gains=scores(0.31, 0.25)),
        run("b", steps=1600, gains=scores(0.08, 0.12)),
        run("a", minutes=15, steps=6000, gains=scores(0.4, 0.4)),
        run("a", recipe="small_vicreg", steps=1000, gains=scores(0.9, 0.9)),
        run("a", shipped=False, view=64, steps=1000, gains=scores(0.9, 0.9)),
        run("c", steps=1000, gains=None),
    ]
    (line,) = before_training(ran(steps=900))
    assert line.startswith(
        "expect   1,000 to 1,600 steps of small_w_mse gained +8 to +25 points over the best baseline"
    )
    assert "on 2 sets of images" in line
    assert "shorter" not in line
    (line,) = before_training(ran(steps=450))
    assert line.endswith("this run is shorter")
    assert before_training(ran(steps=340))[0].endswith("this run is shorter")
    assert before_training(ran(steps=330)) == [], "much shorter than any that was measured"
    (line,) = before_training(ran(steps=2800))
    assert "6,000 steps" in line, "which are twice as many, and 1,000 to 1,600 hardly half"
    (line,) = before_training(ran(steps=8000))
    assert "6,000 steps of small_w_mse gained +40 points over the best baseline on 1 set of images" in line
    assert before_training(ran(steps=50_000)) == [], "much longer than any that was measured"
    assert before_training(ran("small_byol")) == [], "nothing was measured, nothing is said"
    assert before_training(ran(None)) == [], "a changed recipe is not the one that was measured"


@pytest.mark.parametrize(("steps", "images", "few"), [(61, 3000, "61 steps"), (5000, 80, "80 images")])
def test_weights_are_named_where_a_start_from_scratch_is_hopeless(
    known: list[Measured], steps: int, images: int, few: str
) -> None:
    (line,) = before_training(ran(steps=steps, images=images))
    assert few in line
    assert "-c continue_barlow_twins" in line
    assert "pip install 'barlow[weights]'" in line
    assert before_training(ran(steps=steps, images=images, from_weights=True)) == []
    assert before_training(ran(steps=steps, images=images, captions=True)) == [], "captions go with no such weights"


def test_a_run_of_61_steps_is_not_told_what_thousands_gained() -> None:
    (line,) = before_training(ran(steps=61, images=3068))
    assert line.startswith("weights  61 steps teach a network little")
    assert "7,422 steps" in before_training(ran(steps=3000, images=3068))[0]


# --- After training ---------------------------------------------------------------------------------------------------


def log(first: float, last: float, *, std: float = 0.8, rank: float = 20.0) -> list[dict[str, Any]]:
    spread = (0.8, 0.8, std, std)
    return [
        {"step": 1250 * (i + 1), "loss": loss, "embeddings": {"std": s, "effective_rank": rank}}
        for i, (loss, s) in enumerate(zip((first, first, last, last), spread, strict=True))
    ]


def test_after_training_the_verdict_is_that_of_the_runs_own_curves(known: list[Measured]) -> None:
    def said(of: Ran, lines: list[dict[str, Any]]) -> str:
        return after_training(of, lines)[0]

    fine = "reached  5,000 steps, 30 epochs: loss 0.8 to 0.4, no sign of a collapse"
    assert said(ran(), log(0.8, 0.4)) == fine
    alike = "all images have nearly the same embedding (spread 0.01)"
    assert said(ran(), log(0.8, 0.4, std=0.01)) == f"reached  head-only collapse: {alike}"
    assert "dimensional collapse: embeddings use 1.2 directions" in said(ran(), log(0.8, 0.4, rank=1.2))
    assert said(ran(), log(0.8, 0.79)) == "reached  nothing: the loss went from 0.8 at the start to 0.79"
    assert said(ran(), log(0.8, 0.9)).startswith("reached  nothing")
    assert said(ran("small_byol"), log(0.8, 0.9)).endswith("no sign of a collapse"), "its target moves"
    assert said(ran(None, objective="custom:Mine"), log(0.8, 0.9)).endswith("no sign of a collapse"), (
        "it may be negative"
    )
    assert said(ran(steps=61, epochs=3.6), log(0.8, 0.9)).startswith("reached  what 61 steps allow, which is little")
    assert said(ran(images=80), log(0.8, 0.4)).startswith("reached  what 80 images allow")
    assert said(ran(images=80), log(0.8, 0.9)).startswith("reached  nothing"), "which few images do not explain"
    assert said(ran(images=80), log(0.8, 0.4, std=0.01)).startswith("reached  head-only collapse")
    assert said(ran(), []) == "reached  5,000 steps, 30 epochs: no sign of a collapse"


def test_few_epochs_copies_and_few_images_are_said_before_and_after(known: list[Measured]) -> None:
    short = ran("small_vicreg", images=60_000, steps=937, epochs=2.0, copies=15_000, width=256)
    few = "too few epochs: each image is seen 2.0 times in 937 steps"
    copies = (
        "duplicates: 25% of the images are copies of others; remove them: they count as many times as they are there"
    )
    remedy = "more --minutes, or --init with weights that exist"
    assert before_training(short) == [f"beware   {few}; {remedy}", f"beware   {copies}"]
    assert after_training(short, log(0.8, 0.4)) == [f"reached  {few}", f"advice   {remedy}", f"advice   {copies}"]
    wide = ran("small_vicreg", images=2_000, width=8_192)
    assert "too few images for the width: 2,000 images, and embeddings of 8,192 features" in before_training(wide)[0]
    assert after_training(wide, log(0.8, 0.4))[0].endswith("no sign of a collapse"), "it has learned all the same"
    assert "too few images for the width" in after_training(wide, log(0.8, 0.4))[1]
    ill = after_training(short, log(0.8, 0.4, std=0.01))
    assert ill[0].startswith("reached  head-only collapse"), "what the log shows comes first"


def test_a_rate_that_ends_at_zero_is_no_rate_that_is_too_low(known: list[Measured]) -> None:
    """The word while it trains and the verdict at the end are by the same facts, the schedule's peak among them."""
    of = Ran.of(tiny.recipe_of("small_barlow_twins", steps=100), {"usable": 20_000, **tiny.SIZES})
    assert of.peak == pytest.approx(files.read("small_barlow_twins")["optim"]["lr_per_256"] * 16 / 256)
    health = Health(of.about)
    rates = [of.peak, 0.5 * of.peak, 0.1 * of.peak, *[0.0] * 5]  # the last ones: beyond the end of its schedule
    lines = [
        {**line, "step": 30 + 10 * i, "rate": rate, "moved": rate}
        for i, (rate, line) in enumerate(zip(rates, 2 * log(0.8, 0.4), strict=True))
    ]
    for line in lines:
        health.read(line)
    assert health.word == HEALTHY
    assert advice.illness(of, lines) is None


def test_a_run_that_collapsed_for_a_setting_of_its_objective_is_told_that_setting_and_no_rate(
    known: list[Measured],
) -> None:
    recipe = override(tiny.recipe_of("small_vicreg", steps=100), {"objective.variance": 0.0})
    of = Ran.of(recipe, {"usable": 20_000, **tiny.SIZES})
    reached, told = after_training(of, log(0.8, 0.4, std=0.01))
    assert reached.startswith("reached  head-only collapse: ")
    assert told == (
        "advice   --objective.variance is 0, and it is what keeps embeddings apart: raise it (by default it is 25)"
    )


def test_the_remedies_of_a_failed_run_are_numbers_to_type(known: list[Measured]) -> None:
    assert "lower --optim.lr_per_256" in (line := after_training(ran(), log(0.8, 0.4, std=0.01))[1])
    assert line.endswith("; the rate was 0.012")
    assert after_training(ran(), log(0.8, 0.8))[1].endswith("another rate: --optim.lr_per_256 0.036, or 0.004")


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
        ((80, 80), "worth having: kNN +40.0 over raw pixels, logistic +30.0 over the untrained network"),
        ((20, 80), "worth having in part: kNN -20.0 over raw pixels, logistic +30.0 over the untrained network"),
        ((20, 20), "not worth having: kNN -20.0 over raw pixels, logistic -30.0 over the untrained network"),
        ((80, 50), "worth having in part: kNN +40.0 over raw pixels, logistic +0.0 ("),
        ((20, 50), "not worth having: kNN -20.0 over raw pixels, logistic +0.0 ("),
        ((40, 50), "not told apart from what costs nothing: kNN +0.0 ("),
    ],
)
def test_after_an_evaluation_the_verdict_is_by_the_gains_beyond_their_intervals(
    known: list[Measured], encoder: tuple[int, int], verdict: str
) -> None:
    found = results(encoder=encoder, pixels_16=(40, 20), untrained=(30, 50))
    line = after_evaluation(ran(), found)[0]
    assert line.startswith(f"verdict  {verdict}")
    assert line.endswith("(100 test images)")
    assert after_evaluation(None, found)[0] == line, "numbers need no run to be judged"


def test_an_encoder_below_its_start_is_not_handed_out_as_the_better_one(known: list[Measured]) -> None:
    continued = ran("continue_barlow_twins", from_weights=True, rate=0.003)
    lines = after_evaluation(continued, results(encoder=(60, 90), start=(80, 70), pixels_16=(30, 30)))
    assert lines[0].startswith("verdict  worth having in part: kNN -20.0 over its start, logistic +20.0 over its start")
    assert lines[1] == "advice   use the run's start/ as it is, or continue slower: --optim.lr_per_256 0.001"
    lines = after_evaluation(continued, results(encoder=(60, 60), start=(50, 50), start_plain=(80, 80)))
    assert "kNN -20.0 over its start's last stage" in lines[0]
    assert lines[1].startswith("advice   use the network of the run's start/, not whitened, as it is")


def test_a_test_that_pixels_solve_tells_nothing_apart(known: list[Measured]) -> None:
    lines = after_evaluation(ran(), results(encoder=(100, 100), pixels_16=(100, 100)))
    assert "not told apart" in lines[0]
    assert lines[1] == "advice   the baselines solve these images: a harder test tells encoders apart"


def test_nothing_is_said_where_too_little_was_measured(known: list[Measured]) -> None:
    found = results(encoder=(80, 80), pixels_16=(40, 40))
    assert after_evaluation(ran(), {"encoder": found["encoder"]}) == [], "no baselines"
    assert after_evaluation(ran(), {name: {"knn": of["knn"]} for name, of in found.items()}) == [], "one probe"
    assert after_evaluation(ran(), {}) == []


# --- What to try next -------------------------------------------------------------------------------------------------


def test_what_is_named_had_an_effect_elsewhere_and_the_run_has_not_done_it(known: list[Measured]) -> None:
    known += [
        run(minutes=3, steps=1000, scores=scores(0.5, 0.5)),
        run(minutes=15, steps=6000, scores=scores(0.6, 0.6)),
        run(minutes=15, steps=2000, view=64, shipped=False, scores=scores(0.63, 0.64)),
        run(minutes=15, recipe="continue_barlow_twins", view=96, scores=scores(0.8, 0.9)),
        run(minutes=3, recipe="small_vicreg", scores=scores(0.45, 0.4)),
    ]
    minutes = "advice   more minutes: 15 in place of 3 gave +10.0 kNN, +10.0 logistic elsewhere"
    continued = "advice   -c continue_barlow_twins, from ImageNet's weights:"
    weights = f"{continued} +20.0 kNN, +30.0 logistic over small_w_mse elsewhere"
    views = "advice   larger views, --image-size 64: +3.0 kNN, +4.0 logistic elsewhere"
    recipe = "advice   -c small_w_mse in place of small_vicreg: +5.0 kNN, +10.0 logistic elsewhere"

    def named(*given: Any, **more: Any) -> list[str]:
        return after_training(ran(*given, **more), log(0.8, 0.4))[1:]

    assert named(steps=1200) == [minutes, weights]
    assert named(steps=1200, view=96) == [weights], "an hour of larger views makes as few steps"
    assert named(steps=6000) == [weights, views]
    assert named(steps=6000, view=64) == [weights]
    assert named(steps=6000, view=None) == [weights], "views that are not square"
    assert named(steps=6000, view=24, short_side=32) == [weights], "images of 32 pixels"
    assert named("small_vicreg", steps=6000) == [recipe, weights]
    assert named("continue_barlow_twins", from_weights=True) == []
    assert named(None) == [], "a changed or a published recipe"
    assert named("small_vse", captions=True, steps=6000) == [], "captions would have to be given up"
    known.append(run(minutes=15, recipe="small_vicreg", scores=scores(0.7, 0.85)))
    own = f"{continued} +10.0 kNN, +5.0 logistic over small_vicreg elsewhere"
    assert named("small_vicreg", steps=6000) == [recipe, own], "by the run's own recipe, where that was measured"


def test_what_did_harm_or_nothing_is_not_named(known: list[Measured]) -> None:
    known += [
        run(minutes=3, steps=1000, scores=scores(0.5, 0.5)),
        run(minutes=15, steps=6000, scores=scores(0.504, 0.6)),
        run(minutes=15, recipe="continue_barlow_twins", scores=scores(0.6, 0.4)),
    ]
    assert after_training(ran(steps=1200), log(0.8, 0.4))[1:] == []


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
    collapsed = started(data, tmp_path / "a", objective=AllAlike(), **{"train.steps": 60, "optim.lr_per_256": 0.3})
    assert collapsed.advice[0].startswith("reached  head-only collapse: all images have nearly the same"), (
        collapsed.advice
    )
    many = tiny.images(tmp_path / "many", 1000, side=16)
    no_rate = {"optim.lr_per_256": 1e-12, "train.batch_size": 64, "train.steps": 100}
    still = started(many, tmp_path / "b", objective="vicreg", **no_rate)
    assert still.advice[0].startswith("reached  rate too low: weights moved by 0 of"), still.advice


def test_a_short_run_says_so_on_the_terminal_and_an_encoder_below_pixels_is_called_so(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = tiny.words(optim__lr_per_256=0.006)
    assert main(["pretrain", str(data), "--out", str(out), *words]) == 0
    printed = capsys.readouterr()
    assert "weights  64 images teach a network little from scratch" in printed.err
    assert "reached  what 64 images allow, which is little: 12 steps, 3 epochs" in printed.out
    assert main(["evaluate", str(out), "--train", str(data), "--test", str(data), "--protocol", "knn,logistic"]) == 0
    printed = capsys.readouterr()
    said = printed.out[printed.out.index("verdict") : printed.out.index("results ")]
    assert "not worth having" in said or "not told apart" in said, "the mean colour tells these classes"
    assert "the baselines solve these images" in said
    assert all(len(line) <= 80 for line in said.splitlines())


def test_an_evaluation_of_python_holds_the_same_lines(data: Path, tmp_path: Path) -> None:
    out = started(data, tmp_path / "run").run_folder
    found = evaluate(out, train=str(data), test=str(data), protocols=["knn", "logistic"])
    assert found.advice[0].startswith("verdict")
    assert len(found.advice) <= advice.MOST_LINES
    assert evaluate(out, train=str(data), test=str(data), protocols=["knn"], baselines=False).advice == []
    (out / "data.json").unlink()
    assert evaluate(out, train=str(data), test=str(data), protocols=["knn", "logistic"]).advice == found.advice[:2]


def test_a_run_is_known_as_its_recipe_unless_that_was_changed(data: Path, tmp_path: Path) -> None:
    images = tiny.images(tmp_path / "photos", 40)
    run = pretrain(str(images), tmp_path / "run", steps=1, seed=3, image_size=16, device="cpu", progress=False)
    stored = load_recipe_text(run.run_folder / "recipe.yaml")
    assert shipped_name(stored) == "small_w_mse"
    assert shipped_name(override(stored, {"optim.weight_decay": 0.0})) is None
    assert shipped_name(override(stored, {"views.0.1.p": 0.3})) is None
    assert shipped_name({}) is None
    byol = load_recipe_text(Path("src/barlow/recipes/small_byol.yaml"))
    assert shipped_name(byol) == "small_byol"
    assert shipped_name(override(byol, {"method.predictor": None})) is None
    assert Ran.of(stored, read_json(run.run_folder / "data.json")).recipe == "small_w_mse"


def test_epochs_are_counted_as_the_loader_and_a_comparison_count_them_and_images_as_they_are_seen() -> None:
    recipe = tiny.recipe_of("small_barlow_twins", steps=60)
    batch = int(recipe["train"]["batch_size"])
    report = {"usable": 5 * batch + batch // 2 + 100, "held_out": 100, **tiny.SIZES}
    of = Ran.of(recipe, report)
    assert of.epochs == epochs_of(60, 5 * batch + batch // 2, batch) == 12
    assert of.about.epochs == pytest.approx(60 * batch / report["usable"])
