"""Writes the table of docs/compared.md, of all methods beside each other, from results/methods.jsonl (`--check` only
compares).

python experiments/compared.py
"""

import sys
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from compared_methods import BESIDE, COMPARED, PHOTOS, SMALL, Compared
from generated import ROOT, markdown, put_between, write_or_check
from results_line import METHODS_PROGRAM, METHODS_RESULTS, is_as_shipped, spread

BEGIN, END = "<!-- compared: written by experiments/compared.py -->", "<!-- end of compared -->"
NAMES = {SMALL: "CIFAR-10", PHOTOS: "Imagenette, 96 px"}
PROBES = ("knn.top1", "logistic.top1")
FEWEST = 5
"""Methods from which on a rank correlation is printed."""

Line = Mapping[str, Any]


def content(lines: Sequence[Line]) -> str:
    """The tables of both sets, each with its rank correlation of our column and the papers', and what failed."""
    parts = [part for images in NAMES for part in (table(lines, images), correlation_line(lines, images))]
    return "\n\n".join([*parts, *filter(None, [failures(lines)])])


def failures(lines: Sequence[Line]) -> str:
    """Which runs of the recipes as they are now came to no end, and why; nothing if none."""
    failed = [line for line in lines if line["program"] == METHODS_PROGRAM and "failed" in line and is_as_shipped(line)]
    return "\n".join(
        f"- Failed: `{line['recipe']}` on {NAMES[line['images']]}, rate {line['overrides']['optim.lr_per_256']}, "
        f"seed {line['seed']}. {line['failed']}"
        for line in failed
    )


def methods_on(images: str) -> dict[str, Compared]:
    """The methods that are compared on a set."""
    found = {recipe: compared for recipe, compared in COMPARED.items() if compared.images == images}
    return found if BESIDE[1] != images else {BESIDE[0]: COMPARED[BESIDE[0]], **found}


def runs_of(lines: Sequence[Line], recipe: str, images: str) -> list[Line]:
    """The runs that were measured on test images, of the recipe as it is now."""
    return [
        line
        for line in lines
        if line["program"] == METHODS_PROGRAM
        and "scores" in line
        and (line.get("part"), line.get("recipe"), line.get("images")) == ("test", recipe, images)
        and is_as_shipped(line)
    ]


def table(lines: Sequence[Line], images: str) -> str:
    """A row for each method; of those that were not run yet dashes."""
    header = [NAMES[images], "recipe", "rate", "kNN", "linear", "seeds", "ImageNet in papers", "printed where"]
    rows = []
    for recipe, compared in methods_on(images).items():
        runs = runs_of(lines, recipe, images)
        rates = sorted({line["overrides"]["optim.lr_per_256"] for line in runs})
        scores = [_mean([line["scores"]["encoder"][probe] for line in runs]) for probe in PROBES]
        printed = "–" if compared.imagenet is None else f"{compared.imagenet:.1f}"
        what = [compared.name, f"`{recipe}`", ", ".join(rates) or "–", *scores, str(len(runs))]
        rows.append([*what, printed, compared.source or "–"])
    rows.append(["untrained", "–", "–", *_untrained(lines, images), "–", "–", "–"])
    return markdown(header, rows)


def correlation_line(lines: Sequence[Line], images: str) -> str:
    """How far the order here is the order in the papers, in a sentence."""
    pairs = []
    for recipe, compared in methods_on(images).items():
        runs = runs_of(lines, recipe, images)
        if runs and compared.imagenet is not None:
            pairs.append((fmean(line["scores"]["encoder"][PROBES[1]] for line in runs), compared.imagenet))
    if len(pairs) < FEWEST:
        return f"*Rank correlation of linear here and in the papers: {len(pairs)} methods are too few to say.*"
    found = rank_correlation(*zip(*pairs, strict=True))
    return f"*Rank correlation (Spearman) of linear here and in the papers: {found:+.2f}, over {len(pairs)} methods.*"


def rank_correlation(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Spearman's: the correlation of the ranks, equals sharing theirs."""
    from scipy.stats import spearmanr

    return float(spearmanr(ours, theirs).statistic)


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "–"
    found = spread(values)
    assert found["mean"] is not None
    deviation = "" if found["spread"] is None else f" ± {100 * found['spread']:.1f}"
    return f"{100 * found['mean']:.1f}{deviation}"


def _untrained(lines: Sequence[Line], images: str) -> list[str]:
    """The best of the untrained networks, probe by probe, of the runs that have baselines."""
    first = next(iter(methods_on(images)))
    runs = [line for line in runs_of(lines, first, images) if len(line["scores"]) > 1]
    return [
        _mean([max(v[probe] for name, v in line["scores"].items() if name.startswith("untrained")) for line in runs])
        for probe in PROBES
    ]


def main() -> int:
    page = ROOT / "docs" / "compared.md"
    return write_or_check(
        __doc__ or "", page, [METHODS_RESULTS], lambda text, lines: put_between(text, BEGIN, END, content(lines))
    )


if __name__ == "__main__":
    sys.exit(main())
