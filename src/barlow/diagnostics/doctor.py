"""Names what is wrong with a run, with the evidence and the one setting to change.

All that is read are the lines of metrics.jsonl and a few facts about the run. So the same doctor speaks while a run
trains, in its advice, and in a report made a year later. The thresholds are choices,
made by runs that were made ill on purpose; results/doctor.jsonl has them, and experiments/doctor.py says how many of
them are named rightly.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from barlow.diagnostics.finding import DIRECTIONS, SPREAD, About, Finding, Line

OPENING = "opening"
"""Key of a line that a run begins its log with, beside those at even distances. It is for curves, and not read here: a
network at its first step is as it was drawn, and the thresholds were chosen without such lines."""

START, START_STEPS = 0.1, 20
"""The share of a run that is its start, and so many steps at the least: networks come out of a random state there, and
look ill on the way. Only what explains itself (`CAUSES`) is told so early, whoever asks: the run, or its report."""

FRESH = 2
"""Lines at the end of a log that are looked at: what only one of them shows is the draw of a batch."""

SAME_VIEWS = 1e-3
"""Two views whose pixels differ by less are one: a single flip or crop differs by a hundred times as much."""

STILL = 1e-7
"""Weights that have moved by less between two lines do not learn; float32 rounds at 6e-8."""

LEAP = 0.05
"""Share of their length by which weights move in one step, from which on they leap: what they had learned is gone."""

ONE_POINT, ONE_POINT_AT_FIRST, POINT_OF_FEATURES = 0.25, 0.07, 0.05
"""Spread of embeddings below which all images are one; the same before step `LEARNS_BY`, as BYOL's predictions begin at
0.18 and come out of it; and the spread of features."""

FEW_DIRECTIONS, OF_DIRECTIONS = 1.5, 4
"""Effective rank below which embeddings lie nearly on a line, where so many directions or more are possible."""

FEW_OF_MANY, SHARE_OF_MANY = 3.0, 0.05
"""The same of an objective that keeps embeddings in many directions (`About.spreads_by`): so many, or this share of
those that are possible if that is less.

Chosen on the healthy runs of results/doctor.jsonl (five objectives, `shapes` and CIFAR-10, 63 directions possible, and
32 for W-MSE). From the third line on, Barlow Twins has 8.6 or more, SimCLR 16.2, W-MSE 16.8 and VICReg 44. So the
limit is a third of the least that was seen. BYOL's predictions have 2.3, in runs that learn. No limit near 3 could tell
them from ill ones, so for all objectives but these four it stays at a line. The tenth of `healthy_ranges` is where one
should begin to look, and not a limit: BYOL would be called ill in every run."""

POOLED, EARLY = 10, 50
"""Lines at the end of a log over which the agreement of two views' embeddings is averaged, as a batch has few images;
and lines at its beginning over which that of their features is. What views have in common does not change in a run."""

IN_COMMON = 0.05
"""Agreement of two views of an image, less that of different images, below which the two have nothing in common, if it
is within twice its standard error. Healthy runs have 0.14 or more in their features."""

SURE = 0.035
"""The standard error up to which that can be told."""

LEARNS_BY = 80
"""Steps after which views of an image should be told from views of others by their embeddings."""

SEEN_BY = 20
"""Steps after which they should be by their features: those of an untrained network tell them already."""

WORSE_THAN_UNRELATED = 1.5
"""A loss beyond so many times that of unrelated views has been driven there."""

GAINED, GAINED_BY, LOSSES = 0.02, 0.5, 5
"""The share of the way from the loss of unrelated views to the floor below which nothing was gained; the share of a run
by which something should have been; and how many lines are averaged for it at the least. Of the healthy runs of
results/doctor.jsonl, the least has 0.058 (W-MSE on `shapes`). With views of different images Barlow Twins, W-MSE and
SimCLR have 0.004 or less; VICReg has 0.88 in either case, so it is never told."""

ALIKE, FIRST = 0.9, 5
"""The agreement of two views' features from which on the views are too weak, as a mean over so many lines at the
beginning. The healthy runs of results/doctor.jsonl have 0.47 at the most. Views of `shapes` by a flip alone, or without
colour jitter, have 0.57 to 0.84: milder views are not told from good ones. Crops of 95 % have 0.82 to 0.93."""

COPIES = 0.2
"""Share of copies among the images that is worth a word."""

FEW_EPOCHS, MANY_STEPS = 3, 4_800
"""Epochs below which little can be expected of a start from scratch, and steps from which on that does not hold: no run
of fewer epochs was measured, and after 4,812 steps one had gained 35 points (measured.json)."""


def examine(lines: Sequence[Line], about: About) -> list[Finding]:
    """What a log shows to be wrong, the cause before its consequences; empty where all is well, or nothing can be said
    yet.

    Args:
        lines: of metrics.jsonl, oldest first.
        about: the run.
    """
    lines = [line for line in lines if not line.get(OPENING)]
    found = [finding for sign in SIGNS if lines and (finding := sign(lines, about)) is not None]
    causes = [each for each in found if each.name in CAUSES]
    return causes or (found if started(lines, about) else [])


def started(lines: Sequence[Line], about: About) -> bool:
    """Whether a run is past its start. One that was past it, and is made longer then, does not begin again: each line
    says of how many steps the run was at the time."""
    return about.past_start or any(
        line["step"] >= max(START * total, START_STEPS)
        for line in lines
        for total in [*_numbers([line], ("total",)), about.total][:1]
    )


def beforehand(about: About) -> list[Finding]:
    """What is wrong with the images and the length of a run, which is known before its first step.

    Args:
        about: the run.
    """
    return [finding for fact in FACTS if (finding := fact(about)) is not None]


def _last(lines: Sequence[Line], *keys: str) -> list[float]:
    """The numbers under some keys in the newest lines, as far as they have them."""
    return list(_numbers(lines[-FRESH:], keys))


def _numbers(lines: Sequence[Line], keys: Sequence[str]) -> Iterator[float]:
    for line in lines:
        value: Any = line
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, int | float):
            yield float(value)


def _identical_views(lines: Sequence[Line], about: About) -> Finding | None:
    seen = _last(lines, "views", "difference")
    if not seen or max(seen) >= SAME_VIEWS:
        return None
    return Finding(
        "views identical",
        f"the two views of an image differ by {max(seen):.2g} (normalised pixels)",
        "give the recipe's views ops that draw: random_resized_crop with a scale below 1, colour jitter",
    )


def _no_gradient(lines: Sequence[Line], about: About) -> Finding | None:
    for line in lines:
        if idle := line.get("without_gradient"):
            parts = ", ".join(map(str, idle))
            return Finding(
                "no gradient",
                f"{parts} got no gradient at step {line['step']}",
                "look for a detach(), a no_grad() or requires_grad = False before it, or take it out of the method",
            )
    return None


def _nothing_moves(lines: Sequence[Line], about: About) -> Finding | None:
    # At both ends of a schedule the rate may be next to nothing on purpose.
    lines = [line for line in lines if line.get("rate", 0.0) >= 0.01 * about.peak]
    moved, rates = _last(lines, "moved"), _last(lines, "rate")
    if len(moved) < FRESH or max(moved) >= STILL:
        return None
    rate = max(rates, default=0.0)
    return Finding(
        "rate too low",
        f"weights moved by {max(moved):.2g} of their length between two lines, at a rate of {rate:.2g}",
        "raise --optim.lr_per_256",
    )


def _collapse(lines: Sequence[Line], about: About) -> Finding | None:
    spread, of_features = _last(lines, "embeddings", "std"), _last(lines, "features", "std")
    if len(of_features) == FRESH and max(of_features) < POINT_OF_FEATURES:
        return Finding(
            "constant collapse",
            f"all images have nearly the same features (spread {max(of_features):.2g})",
            _advice(about, SPREAD, LET_VARY),
        )
    if len(spread) == FRESH and max(spread) < _one_point(lines):
        healthy = f", while features spread by {min(of_features):.2g}" if of_features else ""
        return Finding(
            "head-only collapse",
            f"all images have nearly the same embedding (spread {max(spread):.2g}){healthy}",
            _advice(about, SPREAD, LET_VARY),
        )
    directions, possible = _last(lines, "embeddings", "effective_rank"), _possible(lines)
    few = FEW_DIRECTIONS
    if about.spreads_by is not None and math.isfinite(possible):
        few = max(few, min(FEW_OF_MANY, SHARE_OF_MANY * possible))
    if len(directions) == FRESH and max(directions) < few and possible >= OF_DIRECTIONS:
        of = f" of {possible:.0f}" if math.isfinite(possible) else ""
        return Finding(
            "dimensional collapse",
            f"embeddings use {max(directions):.1f}{of} directions",
            _advice(about, DIRECTIONS, "give the term that decorrelates more weight, or lower --optim.lr_per_256"),
        )
    return None


def _advice(about: About, keeps: str, otherwise: str) -> str:
    """A setting of 0 in the objective that alone explains a collapse, if it has one; else what else may help."""
    for setting, kept, usual in about.unweighted:
        if kept == keeps:
            what = "apart" if keeps == SPREAD else "in many directions"
            return f"--{setting} is 0, and it is what keeps embeddings {what}: raise it (by default it is {usual:g})"
    return otherwise


def _one_point(lines: Sequence[Line]) -> float:
    """The spread of embeddings below which all images are one."""
    return ONE_POINT if lines and lines[-1]["step"] >= LEARNS_BY else ONE_POINT_AT_FIRST


def _near_each_other(lines: Sequence[Line], about: About) -> Finding | None:
    """A spread below the range that the log calls healthy, at steps at which it is no collapse yet.

    Of objectives alone that keep embeddings apart from the first steps on: their healthy runs have 0.56 or more at any
    time, and BYOL's predictions begin at 0.13 and come out of it.
    """
    spread, least = _last(lines, "embeddings", "std"), _range(lines, "std")[0] or ONE_POINT
    if about.spreads_by is None or len(spread) < FRESH or not _one_point(lines) <= max(spread) < least:
        return None
    evidence = f"embeddings spread by {max(spread):.2g}, and healthy is {least:g} or more"
    return Finding("embeddings near each other", evidence, _advice(about, SPREAD, LET_VARY))


def _possible(lines: Sequence[Line]) -> float:
    """Directions that embeddings of so many rows and so many features can have at all."""
    return _range(lines, "effective_rank")[1]


def _range(lines: Sequence[Line], statistic: str) -> tuple[float, float]:
    """What the newest line calls healthy for embeddings."""
    low, high = lines[-1].get("healthy", {}).get("embeddings", {}).get(statistic, (0.0, math.inf))
    return float(low), float(high)


def _leaps(lines: Sequence[Line], about: About) -> Finding | None:
    before = lines[-POOLED - 1]["step"] if len(lines) > POOLED else 0
    for line in lines[-POOLED:]:
        steps, before = line["step"] - before, line["step"]
        moved = line.get("moved")
        if isinstance(moved, int | float) and steps > 0 and moved / steps > LEAP:
            at = f"at a rate of {line.get('rate', 0.0):.2g}"
            evidence = f"weights moved by {moved / steps:.2g} of their length in a step, {at}"
            return Finding("rate too high", evidence, "a tenth of --optim.lr_per_256")
    return None


def _too_high(lines: Sequence[Line], about: About) -> Finding | None:
    losses, unrelated = _last(lines, "loss"), _last(lines, "reference", "unrelated")
    if len(losses) < FRESH or not unrelated or unrelated[-1] <= 0:
        return None
    if min(losses) < WORSE_THAN_UNRELATED * unrelated[-1]:
        return None
    return Finding(
        "rate too high",
        f"the loss is {median(losses):.4g}, and views that have nothing in common have {unrelated[-1]:.4g}",
        "a third of --optim.lr_per_256",
    )


def _unlike_features(lines: Sequence[Line], about: About) -> Finding | None:
    """Views that have nothing in common. It is a cause: what does not agree can make an objective collapse."""
    spread = _last(lines, "features", "std")
    if not lines or lines[-1]["step"] < SEEN_BY or (spread and max(spread) < POINT_OF_FEATURES):
        return None
    return _at_chance_by(lines[:EARLY], "features_", "features of two views of one image")


def _unlike_embeddings(lines: Sequence[Line], about: About) -> Finding | None:
    if not lines or lines[-1]["step"] < max(0.1 * about.total, LEARNS_BY):
        return None
    return _at_chance_by(lines[-POOLED:], "", "two views of one image")


def _at_chance_by(lines: Sequence[Line], prefix: str, what: str) -> Finding | None:
    agreement, chance, errors = (
        list(_numbers(lines, ("views", prefix + name))) for name in ("agreement", "chance", "error")
    )
    if len(agreement) < FRESH or len(errors) != len(agreement):
        return None
    error = sum(each**2 for each in errors) ** 0.5 / len(errors)
    if error > SURE or fmean(agreement) - fmean(chance) >= min(IN_COMMON, 2 * error):
        return None
    return Finding(
        UNLIKE,
        f"{what} agree no more than those of two images do (cosine {fmean(agreement):.2f}, and {fmean(chance):.2f})",
        "weaken the views (a larger scale of random_resized_crop), and look at views.png: is each row one image?",
    )


def _weak_views(lines: Sequence[Line], about: About) -> Finding | None:
    """Views that an untrained network takes for one. One that was trained before may do so where all is well."""
    spread = _last(lines, "features", "std")
    if about.from_weights or (spread and max(spread) < POINT_OF_FEATURES):
        return None
    agreement = list(_numbers(lines[:FIRST], ("views", "features_agreement")))
    if len(agreement) < FRESH or fmean(agreement) < ALIKE:
        return None
    return Finding(
        "views too weak",
        f"the features of two views of an image agreed from the beginning (cosine {fmean(agreement):.2f})",
        "strengthen the views: a smaller scale of random_resized_crop, colour jitter",
    )


def _loss_at_chance(lines: Sequence[Line], about: About) -> Finding | None:
    """A loss that is still that of unrelated views when half of the run is over."""
    if about.moving_target or not lines or lines[-1]["step"] < max(GAINED_BY * about.total, LEARNS_BY):
        return None
    late = [line for line in lines[-POOLED:] if line["step"] >= START * about.total]
    losses, unrelated = list(_numbers(late, ("loss",))), _last(lines, "reference", "unrelated")
    if len(losses) < LOSSES or not unrelated or unrelated[-1] <= 0:
        return None
    floor = (_last(lines, "reference", "floor") or [0.0])[-1]
    if unrelated[-1] - fmean(losses) >= GAINED * (unrelated[-1] - floor):
        return None
    return Finding(
        "loss at chance",
        f"the loss is {fmean(losses):.4g}, and views that have nothing in common have {unrelated[-1]:.4g}",
        "another rate: a third of --optim.lr_per_256, or three times",
    )


def _copies(about: About) -> Finding | None:
    if about.copies is None or about.copies < COPIES:
        return None
    return Finding(
        "duplicates",
        f"{about.copies:.0%} of the images are copies of others",
        "remove them: they count as many times as they are there",
    )


def _few_images(about: About) -> Finding | None:
    """Fewer images than features cannot be decorrelated. Where nothing is to be decorrelated, that does no harm."""
    if about.images is None or about.width is None or about.images >= about.width:
        return None
    if about.spreads_by != DECORRELATION:
        return None
    return Finding(
        "too few images for the width",
        f"{about.images:,} images, and embeddings of {about.width:,} features",
        f"a narrower projector: --method.projector.widths that end in {1 << about.images.bit_length() - 1} or less",
    )


def _few_epochs(about: About) -> Finding | None:
    if about.epochs is None or about.epochs >= FEW_EPOCHS or about.from_weights or about.total >= MANY_STEPS:
        return None
    return Finding(
        "too few epochs",
        f"each image is seen {about.epochs:.1f} times in {about.total:,} steps",
        "more --minutes, or --init with weights that exist",
    )


DECORRELATION, CONTRAST = "decorrelation", "contrast"
"""How an objective keeps embeddings in many directions, where it does (`About.spreads_by`)."""

LET_VARY = "lower --optim.lr_per_256; if that does not help, give the term that keeps variance more weight"

UNLIKE = "views too strong, or of different images"

Sign = Callable[[Sequence[Line], About], Finding | None]

SIGNS: tuple[Sign, ...] = (
    _identical_views,
    _no_gradient,
    _nothing_moves,
    _leaps,
    _too_high,
    _unlike_features,
    _collapse,
    _near_each_other,
    _unlike_embeddings,
    _weak_views,
    _loss_at_chance,
)
"""In the order in which they are told."""

FACTS: tuple[Callable[[About], Finding | None], ...] = (_few_epochs, _few_images, _copies)
"""Likewise."""

CAUSES = ("views identical", "no gradient", "rate too low", "rate too high")
"""What explains whatever else is seen."""
