"""Writes README's tables, and that of docs/experiments.md, from results.jsonl, methods.jsonl and protocols.jsonl of
results/ (`--check` only compares). Of what nobody has measured yet a line says so; there is no table of dashes.

python experiments/table.py
"""

import sys
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

from compared_methods import COMPARED, FIRST, SMALL
from generated import ROOT, markdown, put_between, write_or_check
from results_line import (
    BUDGET,
    GPU_PROGRAM,
    GPU_RECIPES,
    METHODS_PROGRAM,
    METHODS_RESULTS,
    PROTOCOLS_PROGRAM,
    PROTOCOLS_RESULTS,
    RESULTS,
    is_as_shipped,
    of_barlow,
    once_a_seed,
    spread,
)

from barlow.probes.metrics import BALANCED, BEST_EPOCH
from barlow.probes.remarks import row_label
from barlow.recipe import files
from barlow.recipe.request import CONTINUED, DEFAULT

BEGIN, END = "<!-- results: written by experiments/table.py -->", "<!-- end of results -->"
OWN_BEGIN, OWN_END = "<!-- one's own folder: written by experiments/table.py -->", "<!-- end of one's own folder -->"
METHODS_BEGIN, METHODS_END = "<!-- methods: written by experiments/table.py -->", "<!-- end of methods -->"
METHODS_NAMES = {recipe: compared.name for recipe, compared in FIRST.items()}
FEATURES_BEGIN, FEATURES_END = "<!-- features: written by experiments/table.py -->", "<!-- end of features -->"
PROTOCOLS_BEGIN, PROTOCOLS_END = "<!-- protocols: written by experiments/table.py -->", "<!-- end of protocols -->"
EARLIER_BEGIN, EARLIER_END = (
    "<!-- earlier recipes: written by experiments/table.py -->",
    "<!-- end of earlier recipes -->",
)
LEFT_OUT = (BEST_EPOCH, BALANCED, "top5", "map_11_point", "recall_at_5", "recall_at_10")
"""Metrics that stand in results/protocols.jsonl and not in README."""
OWN_PROGRAM = "experiments/own_folder.py"
OWN_SETS = {
    "cifar10": "CIFAR-10, 10 kinds of things",
    "imagenette": "Imagenette, 10 kinds of photos",
    "aerial": "aerial, 30 kinds of scenes",
    "mri": "MRI, 4 kinds of grey slices",
}
OWN_MINUTES = 15
OTHER_TABLES = (GPU_PROGRAM, OWN_PROGRAM, METHODS_PROGRAM, PROTOCOLS_PROGRAM)
"""Whose lines have tables of their own."""
PROBES = ("knn.top1", "logistic.top1")
SEEN = "imagenette"
"""Its photos are among those that ImageNet's weights were trained on."""
COLUMNS = {"knn.top1": "kNN", "knn5_euclidean.top1": "5-NN", "logistic.top1": "linear"}
GPU_COLUMNS = {
    "linear_sgd.top1": "linear (SGD)",
    "logistic.top1": "linear (logistic)",
    "knn.top1": "kNN",
    "knn5_euclidean.top1": "5-NN",
}
METHODS_CAPTION = """\
**Methods beside each other.** CIFAR-10, two CPU cores, the same small network and the same images seen: 2,500 steps of
128 images. The rate of each method is the best of three, its recipe's, a third of it and three times it, by images held
out from training. The features are those of the last stage, not whitened, so that the table shows what the objective
has taught the network. Mean ± standard deviation over seeds, per cent of the test images. The time of a step is the
median of short runs of all methods in turn. So short a training says which method is quick here, and not which is best
in the end. This copy of CIFAR-10 is JPEG-compressed, so do not set these numbers beside published ones.
`experiments/methods.py` writes the lines, [results/methods.jsonl](results/methods.jsonl)."""
PROTOCOLS_CAPTION = f"""\
**Every protocol, on the same encoders.** Each method has trained the same small network on CIFAR-10 once, for 2,500
steps of 128 images. Each protocol then learns from 1,000 labelled images of each class (the SVM from 200) and is
measured on the test images; *1-shot* is one labelled image of each class, *1 % labels* fine-tunes the whole network on
a hundred ([docs/protocols.md](docs/protocols.md)). Per cent, ± half of the 95 % interval over test images or draws. So
short a training says which method is quick here, and not which is best in the end. This copy of CIFAR-10 is
JPEG-compressed, so do not set these numbers beside published ones. `{PROTOCOLS_PROGRAM}` writes the lines,
[results/protocols.jsonl](results/protocols.jsonl). A dash: not measured yet."""
GPU_CAPTION = f"""\
**ResNet-18, GPU, 100 epochs.** The shipped CIFAR-10 recipes, written for 1000 epochs, cut to the budget of the row and
run in bfloat16 on one GPU by `{GPU_PROGRAM}`. Linear (SGD) is the released protocol of Barlow Twins and VICReg on
features embedded once, its last epoch; the other columns are explained below. **This copy of CIFAR-10 is
JPEG-compressed (quality 75, 4:2:0)**, for training and for testing, so do not set these numbers beside published
ones."""

Line = Mapping[str, Any]


def content(lines: Sequence[Line]) -> str:
    """The runs of the recipes as they are now, on a CPU and on a GPU."""
    if any(is_gpu_result(line) for line in lines):
        return f"{table(lines)}\n\n{GPU_CAPTION}\n\n{gpu_table(lines)}"
    return f"{table(lines)}\n\n*Not measured yet: the shipped CIFAR-10 recipes on a GPU (`{GPU_PROGRAM}`).*"


def own_table(lines: Sequence[Line]) -> str:
    """What a run on one's own folder gives, beside what else one could take: a row for each set of images.

    Cells are kNN / logistic, means over the seeds, and how many these were. Baselines are those of the runs of barlow,
    metric by metric the best of each family. What was not measured is a dash, and what the weights have seen is no
    measurement.
    """
    header = ["images", "raw pixels", "untrained", f"**`{DEFAULT}`**", "lightly", "ImageNet's weights", "continued"]
    rows = [header, ["---"] * len(header)]
    measured = [line for line in lines if line["program"] == OWN_PROGRAM and line["part"] == "test"]
    as_shipped = (line for line in measured if not line["overrides"].keys() - set(BUDGET))
    measured = once_a_seed(line for line in as_shipped if line["minutes"] == OWN_MINUTES)
    for images, name in OWN_SETS.items():
        by_recipe: dict[str, list[Line]] = {}
        for line in measured:
            if line["images"] == images and (not of_barlow(line) or is_as_shipped(line)):
                by_recipe.setdefault(line["recipe"], []).append(line)
        ours, continued = (by_recipe.get(recipe, []) for recipe in (DEFAULT, CONTINUED))
        others = [of_one for recipe, of_one in by_recipe.items() if recipe.startswith("lightly/")]
        cells = [
            _family(ours, "pixels"),
            _family(ours, "untrained"),
            _own(ours),
            _own(max(others, key=_mean_of, default=[])),
        ]
        from_weights = ["seen", "seen"] if images == SEEN else [_family(continued, "start"), _own(continued)]
        rows.append([name, *cells, *from_weights])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _mean_of(lines: Sequence[Line]) -> float:
    return fmean(line["scores"]["encoder"][probe] for line in lines for probe in PROBES)


def _own(lines: Sequence[Line]) -> str:
    """The encoder's scores with their spread over the seeds, and how many these were."""
    if not lines:
        return "–"
    scores = (_with_spread([line["scores"]["encoder"][probe] for line in lines]) for probe in PROBES)
    return f"{' / '.join(scores)} (n = {len(lines)})"


def _with_spread(values: Sequence[float]) -> str:
    deviation = spread(values)["spread"]
    return f"**{_percent(fmean(values))}**" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def _family(lines: Sequence[Line], family: str) -> str:
    """The best of a family of baselines, metric by metric."""
    if not lines:
        return "–"
    names = [name for name in lines[0]["scores"] if name.partition("_")[0] == family]
    best = (max(fmean(line["scores"][name][probe] for line in lines) for name in names) for probe in PROBES)
    return " / ".join(map(_percent, best))


def methods_part(lines: Sequence[Line]) -> str:
    """Methods beside each other, once one of them was measured."""
    if any(_is_of_methods_test(line) for line in lines):
        return f"{METHODS_CAPTION}\n\n{methods_table(lines)}"
    return f"*Not measured yet: methods beside each other, each at the best of three rates (`{METHODS_PROGRAM}`).*"


def _is_of_methods_test(line: Line) -> bool:
    of_methods = line["program"] == METHODS_PROGRAM and line.get("part") == "test"
    return of_methods and "scores" in line and line["images"] == SMALL


def methods_table(lines: Sequence[Line]) -> str:
    """Methods beside each other: scores on the test images, seconds a step beside the fastest, and the rate chosen."""
    of_methods = [line for line in lines if line["program"] == METHODS_PROGRAM]
    finals = [line for line in lines if _is_of_methods_test(line) and is_as_shipped(line)]
    timed: dict[str, list[float]] = {}
    for line in of_methods:
        if "timed" in line:
            timed.setdefault(line["timed"], []).append(line["seconds_a_step"])
    header = ["method", "recipe", "rate", *(COLUMNS[probe] for probe in PROBES), "ms a step", "seeds"]
    rows = []
    for recipe, name in METHODS_NAMES.items():
        runs = [line for line in finals if line["recipe"] == recipe]
        rates = sorted({line["overrides"]["optim.lr_per_256"] for line in runs})
        scores = ["–" if not runs else _with_spread([_encoder(line, probe) for line in runs]) for probe in PROBES]
        speed = f"{1000 * median(timed[recipe]):.0f}" if recipe in timed else "–"
        rows.append([name, f"`{recipe}`", ", ".join(rates) or "–", *scores, speed, str(len(runs))])
    untrained = [_best_of(line, "untrained") for line in finals if len(line["scores"]) > 1]
    scores = ["–" if not untrained else _with_spread([each[probe] for each in untrained]) for probe in PROBES]
    rows.append(["untrained, the better of two", "–", "–", *scores, "–", str(len(untrained))])
    return markdown(header, rows)


def features_table() -> str:
    """Every method of the papers' tables: its small recipe, its published recipes, and the pages of its parts."""
    sections = {
        name: {part: files.read(name)[part]["kind"] for part in ("objective", "method")} for name in files.names()
    }
    rows = []
    for small, compared in COMPARED.items():
        parts = sections[small]
        published = [
            f"`{name}`"
            for name, others in sections.items()
            if "/" in name and others == parts and _of_one_version(small, name)
        ]
        objective, topology = parts["objective"], parts["method"]
        pages = [f"[{objective}](docs/objectives.md#{objective})", f"[{topology}](docs/methods.md#{topology})"]
        rows.append([compared.name, f"`{small}`", ", ".join(published) or "–", *pages])
    return markdown(["method", "for two cores", "as published", "objective", "topology"], rows)


def _of_one_version(small: str, published: str) -> bool:
    """Whether a published recipe is of the version that a small one is of: MoCo v1 and v2 are one objective."""
    version = [name for name in ("moco_v1", "moco_v2", "pcl_v1") if name in published]
    return not version or version[0] in small or (version[0] == "pcl_v1" and small == "small_pcl")


def protocols_part(lines: Sequence[Line]) -> str:
    """Every protocol on every encoder, once one of them was measured."""
    if any(line["program"] == PROTOCOLS_PROGRAM for line in lines):
        return f"{PROTOCOLS_CAPTION}\n\n{protocols_table(lines)}"
    return f"*Not measured yet: every protocol on the same encoders (`{PROTOCOLS_PROGRAM}`).*"


def protocols_table(lines: Sequence[Line]) -> str:
    """Every protocol on every encoder, with the half of its 95 % interval.

    An encoder that was measured at several rates stands there once, as it was measured last.
    """
    found = {line["encoder"]: line["scores"] for line in lines if line["program"] == PROTOCOLS_PROGRAM}
    names = {**METHODS_NAMES, "small_supervised": "supervised", "untrained": "untrained"}
    metrics = dict.fromkeys(metric for scores in found.values() for metric in scores)
    rows = [
        (
            row_label(*metric.rsplit(".", 1)),
            *(_half(found[encoder].get(metric)) if encoder in found else "–" for encoder in names),
        )
        for metric in metrics
        if metric.rsplit(".", 1)[1] not in LEFT_OUT
    ]
    return markdown(("protocol", *names.values()), rows) + _of_given_rates(lines, names)


def _of_given_rates(lines: Sequence[Line], names: dict[str, str]) -> str:
    """Which encoders were trained at a rate that nobody had chosen for them."""
    lines = [line for line in lines if line["program"] == PROTOCOLS_PROGRAM and line["encoder"] != "untrained"]
    latest = {line["encoder"]: line for line in lines}
    given = {name: line["factor"] for name, line in latest.items() if line.get("factor_from") == "the command line"}
    own = ", ".join(names[name] for name, factor in given.items() if factor == 1)
    others = ", ".join(f"{names[name]} ({factor:.3g} times)" for name, factor in given.items() if factor != 1)
    said = [f"At the recipe's own rate, without a choice by held-out images: {own}."] if own else []
    said += [f"At a multiple of the recipe's rate that was given, not chosen: {others}."] if others else []
    return f"\n\n*{' '.join(said)}*" if said else ""


def _half(score: dict[str, float] | None) -> str:
    if score is None:
        return "–"
    return f"{_percent(score['value'])} ± {50 * (score['high'] - score['low']):.1f}"


def _encoder(line: Line, probe: str) -> float:
    return float(line["scores"]["encoder"][probe])


def _best_of(line: Line, family: str) -> dict[str, float]:
    """Of a family of baselines the best by each probe."""
    of_family = [scores for name, scores in line["scores"].items() if name.partition("_")[0] == family]
    return {probe: max(scores[probe] for scores in of_family) for probe in PROBES}


def table(lines: Sequence[Line], *, current: bool = True) -> str:
    """The runs on a CPU as Markdown: means over the seeds, beside the best baseline.

    Args:
        lines: of results.jsonl.
        current: those of recipes as they are now; else those of recipes that have changed since.
    """
    rows = [
        "| images | recipe | budget | "
        + " | ".join(COLUMNS.values())
        + " | raw pixels (kNN, linear) | untrained (kNN, linear) |",
        "|---|---|---|" + "---|" * (len(COLUMNS) + 2),
    ]
    on_cpu = [line for line in lines if "scores" in line and line["program"] not in OTHER_TABLES]
    measured = [line for line in on_cpu if is_as_shipped(line) == current]
    order = [_what(line) for line in measured]
    measured.sort(key=lambda line: order.index(_what(line)))  # the runs of one recipe below each other
    return "\n".join([*rows, *(_row(line, current) for line in measured)])


def _what(line: Line) -> tuple[str, str]:
    return line["images"], _recipe(line)


def gpu_table(lines: Sequence[Line]) -> str:
    """The published recipes on a GPU as Markdown: a row for every length that was run, and for those never run."""
    header = ["method", "recipe", "budget", *GPU_COLUMNS.values(), "images/s", "memory", "hardware"]
    rows = [header, ["---"] * len(header)]
    for recipe, name in GPU_RECIPES.items():
        measured = [line for line in lines if line.get("recipe") == recipe and is_gpu_result(line)]
        lengths = sorted({line["epochs"] for line in measured})
        rows += [_gpu_row(name, [line for line in measured if line["epochs"] == length]) for length in lengths]
        if not lengths:
            rows.append([name, f"`{recipe}`", "not measured", *["–"] * (len(header) - 3)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def is_gpu_result(line: Line) -> bool:
    """Whether a line is of a whole run on a GPU, and not of a trial on a part of the images or on a CPU."""
    return line["program"] == GPU_PROGRAM and line["limit"] is None and "gpu" in line["hardware"]


def _gpu_row(name: str, lines: Sequence[Line]) -> list[str]:
    """One recipe at one length; of lines of one seed the newest, and none of an earlier form of the recipe."""
    newest = lines[-1]
    by_seed = {line["seeds"][0]: line for line in lines if line["recipe_sha256"] == newest["recipe_sha256"]}
    runs = list(by_seed.values())
    minutes = sum(run["training_seconds"][0] for run in runs) / len(runs) / 60
    rate = sum(run["images_per_second"][0] for run in runs) / len(runs)
    memory = max(run["peak_gpu_bytes"] for run in runs) / 2**30
    cells = [name, _recipe(newest), f"{newest['epochs']:g} epochs, {minutes:.0f} min"]
    cells += [_gpu_score(runs, metric) for metric in GPU_COLUMNS]
    return [*cells, f"{rate:,.0f}", f"{memory:.1f} GiB", newest["hardware"]["gpu"]]


def _gpu_score(runs: Sequence[Line], metric: str) -> str:
    """The mean over the runs, with a mark where the probe's rate did not suit the features, or what there is of it."""
    probe = metric.split(".")[0]
    values = [run["scores"]["encoder"][metric]["mean"] for run in runs if metric in run["scores"]["encoder"]]
    if not values:
        return "diverged" if any(probe in run["failed_probes"] for run in runs) else "not measured"
    unsuited = any(run["probe_notes"].get(probe, {}).get("worse_than_class_frequencies") for run in runs)
    return _mean(spread(values), len(values)) + (", its rate unsuited" if unsuited else "")


def _row(line: Line, current: bool) -> str:
    scores = line["scores"]
    minutes = sum(line["training_seconds"]) / len(line["training_seconds"]) / 60
    recipe = _recipe(line) + ("" if current else f", as it was at {line['commit'][:7]}")
    cells = [line["images"], recipe, f"{line['steps']} steps, {minutes:.0f} min"]
    cells += [_mean(scores["encoder"][metric], len(line["seeds"])) for metric in COLUMNS]
    for family in ("pixels", "untrained"):  # the best of each, metric by metric, as `barlow evaluate` has them
        of_family = [scores[name] for name in scores if name.partition("_")[0] == family]
        best = [max(each[metric]["mean"] for each in of_family) for metric in ("knn.top1", "logistic.top1")]
        cells.append(", ".join(_percent(value) for value in best))
    return "| " + " | ".join(cells) + " |"


def _recipe(line: Line) -> str:
    changed = "".join(f", `{key} {value}`" for key, value in line.get("overrides", {}).items())
    return f"`{line['recipe']}`{changed}"


def _mean(score: dict[str, Any], seeds: int) -> str:
    spread = f" ± {100 * score['spread']:.1f}" if score["spread"] is not None else ""
    return f"**{_percent(score['mean'])}**{spread} (n = {seeds})"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def readme_with(text: str, lines: Sequence[Line]) -> str:
    """README's text with the tables put between the markers."""
    text = put_between(text, OWN_BEGIN, OWN_END, own_table(lines))
    text = put_between(text, FEATURES_BEGIN, FEATURES_END, features_table())
    text = put_between(text, METHODS_BEGIN, METHODS_END, methods_part(lines))
    text = put_between(text, PROTOCOLS_BEGIN, PROTOCOLS_END, protocols_part(lines))
    return put_between(text, BEGIN, END, content(lines))


def experiments_with(text: str, lines: Sequence[Line]) -> str:
    """The text of docs/experiments.md with the runs of earlier recipes put between the markers."""
    return put_between(text, EARLIER_BEGIN, EARLIER_END, table(lines, current=False))


def main() -> int:
    about, logs = __doc__ or "", [RESULTS, METHODS_RESULTS, PROTOCOLS_RESULTS]
    readme = write_or_check(about, ROOT / "README.md", logs, readme_with)
    return max(readme, write_or_check(about, ROOT / "docs" / "experiments.md", logs, experiments_with))


if __name__ == "__main__":
    sys.exit(main())
