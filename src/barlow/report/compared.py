"""Several runs beside each other: what came of them, their curves in one picture, and where their recipes differ."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from statistics import fmean, stdev
from typing import Any

from barlow.diagnostics import told_of
from barlow.probes.report import Row, called, rows_of
from barlow.recipe.changes import flat
from barlow.record import Point, Record, curve, names_in, table_of
from barlow.report import charts, summary
from barlow.report.charts import Chart, Line, number
from barlow.report.curves import BETTER, FIRST, OUTPUTS, STATISTICS, score_chart
from barlow.report.markup import Markup, el, join, note, pairs, table
from barlow.report.part import Part, missing
from barlow.report.scores import interval, percent

LOSSES = "A loss is comparable between runs of one objective only, and not between objectives."
NOT_THE_RECIPE = ("seed", "data.mean", "data.std", "data.workers")
"""Keys in which repetitions of one recipe differ."""
SHARED = "only what all runs have"


def names_of(runs: Sequence[Record]) -> list[str]:
    """What each run is called: by its folder, or by its whole path where several folders have one name."""
    names = [run.name for run in runs]
    return [run.command if names.count(name) > 1 else name for run, name in zip(runs, names, strict=True)]


def verdicts(runs: Sequence[Record], names: Sequence[str]) -> Part:
    """What came of each run, a line of words for each; and below, their numbers."""
    keys = [charts.key(name, i) for i, name in enumerate(names)]
    words = pairs((key, join(_words(run), "; ") or "–") for run, key in zip(runs, keys, strict=True))
    rows = [[key, *_numbers(run)] for run, key in zip(runs, keys, strict=True)]
    head = ["run", "objective", "steps", "seed", "loss", "kNN top-1", "logistic top-1"]
    how = "The scores are those of the newest evaluation of each run, in per cent, with their 95 % intervals."
    notes = [note(line) for line in _other_images(runs, names)]
    return Part("verdict", "Runs", join([words, table(head, rows, words=(0, 1), caption="the runs"), *notes]), how)


def _numbers(run: Record) -> Iterator[object]:
    yield str(table_of(run.recipe, "objective").get("kind"))
    done, total = run.steps
    yield f"{total:,}" if done >= total else f"{done:,} of {total:,}"
    yield str(run.recipe.get("seed"))
    losses = run.curve("loss")
    yield number(losses[-1][1]) if losses else "–"
    rows = rows_by_name(run)
    for key in ("knn.top1", "logistic.top1"):
        yield interval(rows[key].encoder) if key in rows else "–"


def _words(run: Record) -> Iterator[object]:
    """How a run is, and then what came of it, in the colours of the report on it alone. One that is ill says why, which
    is all that it has reached."""
    state, lines = summary.state_of(run), dict(summary.lines_of(run))
    told = state is not None and state[1] != state[0]
    if state is not None:
        yield el("span", state[1], class_=f"state {state[0]}")
    if "reached" in lines and not told and (summary.is_ill(run) or "verdict" not in lines):
        yield summary.said(run, "reached", lines["reached"])
    if "verdict" in lines:
        yield lines["verdict"]


def rows_by_name(run: Record) -> dict[str, Row]:
    """The rows of a run's newest evaluation, by probe and metric."""
    return {} if run.results is None else {f"{row.probe}.{row.metric}": row for row in rows_of(run.results)}


def _other_images(runs: Sequence[Record], names: Sequence[str]) -> Iterator[str]:
    """A line where not all runs were measured by the same test images."""
    images = {n: _test_images(run) for run, n in zip(runs, names, strict=True) if run.results is not None}
    if len(set(images.values())) > 1:
        groups: dict[str, list[str]] = {}
        for name, each in images.items():
            groups.setdefault(each, []).append(name)
        yield "Beware: these runs were measured on different test images, so their scores do not compare: " + "; ".join(
            " and ".join(group) for group in groups.values()
        )


def _test_images(run: Record) -> str:
    return str(table_of(run.results, "images", "test").get("fingerprint"))


def curves(runs: Sequence[Record], names: Sequence[str]) -> Part:
    """The curves of all runs, quantity by quantity."""
    logged, scores = list(_charts(runs, names)), list(_scores_in_training(runs, names))
    monitored = {output: list(_diagnostics(runs, names, output)) for output in OUTPUTS}
    drawn = [*logged, *scores, *(chart for several in monitored.values() for chart in several)]
    if not drawn:
        return missing("loss", "Curves", "None of the runs has logged a step.")
    blocks: list[object] = [charts.grid(logged)]
    if scores:
        blocks += [el("h3", "Scores while they trained"), charts.grid(scores)]
    for output, several in monitored.items():
        if several:
            blocks += [
                el("h3", f"{output.capitalize()}, the same images in views that never change"),
                *_looked_at(runs),
            ]
            blocks.append(charts.grid(chart for chart in several if chart.name.endswith(FIRST)))
            rest = [chart for chart in several if not chart.name.endswith(FIRST)]
            blocks.append(el("details", el("summary", f"{len(rest)} more diagnostics"), charts.grid(rest)))
    return Part("loss", "Curves", join(blocks), LOSSES, charts.files(drawn))


def _overlaid(runs: Sequence[Record], names: Sequence[str], points: Callable[[Record], Sequence[Point]]) -> list[Line]:
    """A curve of each run that has one."""
    lines = [Line(name, points(run), i) for i, (run, name) in enumerate(zip(runs, names, strict=True))]
    return [line for line in lines if line.points]


def _scores_in_training(runs: Sequence[Record], names: Sequence[str]) -> Iterator[Chart]:
    """What the monitors have measured on labelled images."""

    def points(run: Record, name: str) -> list[Point]:
        return [(step, 100 * value) for step, value in curve(run.monitor, "scores", name, "value")]

    for name in dict.fromkeys(name for run in runs for name in names_in(run.monitor, "scores")):
        if lines := _overlaid(runs, names, partial(points, name=name)):
            yield score_chart(name, lines)


def _diagnostics(runs: Sequence[Record], names: Sequence[str], output: str) -> Iterator[Chart]:
    """What the monitors say of features, or of embeddings."""

    def points(run: Record, name: str) -> list[Point]:
        return curve(run.monitor, "diagnostics", output, name, "value")

    for name in dict.fromkeys(name for run in runs for name in names_in(run.monitor, "diagnostics", output)):
        if lines := _overlaid(runs, names, partial(points, name=name)):
            yield Chart(f"monitor-{output}-{name}", f"{output}: {name}", lines, about=told_of(name))


def _looked_at(runs: Sequence[Record]) -> Iterator[Markup]:
    """A line where not all monitors have looked at as many images, in as many views."""
    counts = [[curve(run.monitor, "images", key) for key in ("count", "views")] for run in runs]
    looked = {tuple(points[-1][1] for points in of_run) for of_run in counts if all(of_run)}
    if len(looked) > 1:
        numbers = " and ".join(f"{images:,.0f} × {views:,.0f}" for images, views in sorted(looked))
        yield note(
            f"Beware: the runs were looked at with different numbers of images × views, {numbers}: ranks and LiDAR do "
            "not compare then."
        )


def _charts(runs: Sequence[Record], names: Sequence[str]) -> Iterator[Chart]:
    def overlaid(name: str, title: str, *keys: str, y_from: float | None = None, about: str = "") -> Iterator[Chart]:
        lines = _overlaid(runs, names, lambda run: run.curve(*keys))
        if any(value for line in lines for _, value in line.points):
            yield Chart(name, title, lines, y_from=y_from, about=about)

    yield from overlaid("loss", "loss", "loss")
    terms = dict.fromkeys(name for run in runs for name in names_in(run.log, "terms"))
    if len(terms) > 1:
        for term in terms:
            yield from overlaid(f"term-{term}", term, "terms", term)
    yield from overlaid("rate", "learning rate", "rate", y_from=0.0)
    for output in OUTPUTS:
        for statistic, words in STATISTICS.items():
            yield from overlaid(
                f"{output}-{statistic}", f"{output}: {words}", output, statistic, y_from=0.0, about=BETTER[statistic]
            )
    yield from overlaid("speed", "images a second", "images_per_second", y_from=0.0)


def recipes(runs: Sequence[Record], names: Sequence[str]) -> Part:
    """The keys in which the recipes differ."""
    tables = [flat(run.recipe) for run in runs]
    keys = dict.fromkeys(key for each in tables for key in each if not key.startswith("source."))
    rows = [
        [el("code", key), *(_views(tables) if key == "views" else (_value(each, key) for each in tables))]
        for key in keys
        if len({repr(each.get(key)) for each in tables}) > 1
    ]
    if not rows:
        return Part("recipe", "Recipes", note("All runs have the same recipe, seed included."))
    how = (
        "Only the keys that are not the same in all runs; a dash where a recipe has no such key. Of views only the ops "
        "that not all runs have there, with the settings in which they differ."
    )
    return Part(
        "recipe", "Recipes", table(["key", *names], rows, words=range(len(runs) + 1), caption="differing keys"), how
    )


def _value(content: Mapping[str, Any], key: str) -> object:
    if key not in content:
        return "–"
    value = content[key]
    written = ", ".join(map(_short, value)) if isinstance(value, list) else _short(value)
    return el("span", written, class_="words")


def _views(tables: Sequence[Mapping[str, Any]]) -> list[object]:
    """Of each run the ops of its views that not all runs have in that view, with the settings in which they differ."""
    of_runs = [[_listed(view) for view in _listed(each.get("views"))] for each in tables]
    told: list[list[str]] = [[] for _ in of_runs]
    for i in range(max(map(len, of_runs))):
        here = [views[i] if i < len(views) else [] for views in of_runs]
        by_kind: dict[str, list[Any]] = {}
        for op in chain.from_iterable(here):
            by_kind.setdefault(_kind(op), []).append(op)
        alike = {kind: _settings_of_all(ops) for kind, ops in by_kind.items()}
        common = {kind for kind in by_kind if all(kind in map(_kind, ops) for ops in here)}
        orders = {tuple(kind for kind in map(_kind, ops) if kind in common) for ops in here}
        for run, (views, ops) in enumerate(zip(of_runs, here, strict=True)):
            if i < len(views):
                order = f", in the order {', '.join(map(_kind, ops))}" if len(orders) > 1 else ""
                own = [op for op in ops if not all(op in other for other in here)]
                words = ", ".join(_short(_without(op, alike[_kind(op)])) for op in own)
                told[run].append((words or SHARED) + order)
    return [el("span", _of_views(each), class_="words") for each in told]


def _of_views(told: Sequence[str]) -> str:
    if len(told) > 1 and len(set(told)) == 1:
        return f"each of {len(told)} views: {told[0]}"
    return "; ".join(f"view {i}: {words}" for i, words in enumerate(told, 1)) or "–"


def _kind(op: Any) -> str:
    return str(op.get("kind")) if isinstance(op, dict) else ""


def _settings_of_all(ops: Sequence[Any]) -> dict[str, Any]:
    """The settings that some ops of one kind have in common."""
    tables = [op for op in ops if isinstance(op, dict)]
    return {k: v for k, v in (tables[0] if tables else {}).items() if all(k in op and op[k] == v for op in tables)}


def _without(op: Any, alike: Mapping[str, Any]) -> Any:
    return {k: v for k, v in op.items() if k == "kind" or k not in alike} if isinstance(op, dict) else op


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _short(value: Any) -> str:
    """A value of a recipe as a person writes it. A section is its kind, with what is set of it."""
    if isinstance(value, dict):
        kind = value["kind"] if isinstance(value.get("kind"), str) else ""
        settings = ", ".join(f"{k} {_short(v)}" for k, v in value.items() if k != "kind" and v is not None)
        return f"{kind} ({settings})".lstrip() if settings else kind
    if isinstance(value, list):
        return " to ".join(map(_short, value)) if len(value) == 2 else ", ".join(map(_short, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return "null" if value is None else str(value)


def groups_of(runs: Sequence[Record]) -> list[list[int]]:
    """Runs of one recipe that differ in their seeds alone, by position; the recipe as it was asked for, if it is known.

    With a budget in minutes two seeds make different numbers of steps, and are the same recipe.
    """
    found: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        content = {k: v for k, v in flat(run.asked or run.recipe).items() if k not in NOT_THE_RECIPE}
        found.setdefault(repr(sorted(content.items(), key=lambda item: item[0])), []).append(i)
    return list(found.values())


def scores(runs: Sequence[Record], names: Sequence[str]) -> Part:
    """Scores beside each other, and mean and spread of runs that differ in their seeds alone."""
    by_run = [rows_by_name(run) for run in runs]
    keys = dict.fromkeys(key for rows in by_run for key in rows)
    if not keys:
        return missing("evaluation", "Evaluation", f"None of the runs was evaluated: {runs[0].evaluate}")
    rows = [[called(next(r[key] for r in by_run if key in r)), *(_score(r.get(key)) for r in by_run)] for key in keys]
    body = [table(["", *names], rows, caption="scores of each run")]
    several = [group for group in groups_of(runs) if len(group) > 1]
    if several:
        heads = [join([_of_group(g, names), el("br"), el("small", f"{len(g)} seeds")]) for g in several]
        means = [
            [called(next(r[key] for r in by_run if key in r)), *(_mean(by_run, g, key, runs) for g in several)]
            for key in keys
        ]
        body += [
            el("h3", "Over seeds"),
            table(["", *heads], means, caption="mean and standard deviation over the seeds"),
        ]
    how = (
        "The interval of a run is over the choice of test images, or over draws of training images. Over seeds: mean ± "
        "standard deviation of runs that differ in their seeds alone, which is what chance makes of one recipe."
    )
    return Part("evaluation", "Evaluation", join(body), how)


def _of_group(group: Sequence[int], names: Sequence[str]) -> str:
    return ", ".join(names[i] for i in group)


def _score(row: Row | None) -> object:
    return "–" if row is None or row.encoder is None else interval(row.encoder)


def _mean(by_run: Sequence[Mapping[str, Row]], group: Sequence[int], key: str, runs: Sequence[Record]) -> str:
    """Mean ± standard deviation; a dash where the runs were not measured by the same images."""
    having = [i for i in group if key in by_run[i] and by_run[i][key].encoder is not None]
    if len(having) < 2 or len({_test_images(runs[i]) for i in having}) > 1:
        return "–"
    values = [row.encoder.value for i in having if (row := by_run[i][key]).encoder is not None]
    return f"{percent(fmean(values))} ± {percent(stdev(values))}"
