"""What features and embeddings looked like over the steps: spread, directions in use, correlation; and scores."""

from collections.abc import Iterator, Sequence

from barlow.diagnostics import told_of
from barlow.record import Record, curve, names_in, table_of, value_of
from barlow.report import charts
from barlow.report.charts import Chart, Line
from barlow.report.markup import Markup, el, join
from barlow.report.part import Part, missing

HOW = (
    "Each line is a number of one training batch; the tinted band is the range that is called healthy. A spread near 0 "
    "means that all images get the same output, few directions that most of the width is not used."
)
TITLE = "Features and embeddings"
OUTPUTS = ("features", "embeddings")
FIRST = ("-rankme", "-lidar", "-alignment")
"""What the names of the monitor's charts end with that are shown at once."""

STATISTICS = {
    "std": "spread",
    "effective_rank": "directions in use",
    "mean_abs_correlation": "mean |correlation|",
    "dead": "share of dead features",
}
"""What a line of the log holds of each output, in words."""
BETTER = {
    "std": "more is better, up to 1; near 0, all images have one output",
    "effective_rank": "more is better, within the band; near 1, all lies on a line",
    "mean_abs_correlation": "less is better; near 1, features repeat each other",
    "dead": "less is better",
}
"""Which direction is good."""
LEAST_RANGE = 10.0
"""Per cent that the axis of a score spans at least: else a change that is chance alone would fill its height."""
OWN_FEATURES = (
    "of the network's own last features, on labelled images that were held out. The evaluation's table is of the "
    "encoder that is handed out (its stages, its whitening), so it is mostly higher; more is better"
)


def part(record: Record) -> Part:
    """The statistics of the log, and the diagnostics and scores of the monitor where there is one."""
    logged = [(name, list(_of_batches(record, name))) for name in OUTPUTS]
    monitored = [(name, list(_of_monitor(record, name))) for name in OUTPUTS]
    scores = list(_scores(record))
    blocks, drawn = [], []
    if views := _of_views(record):
        logged.append(("views", views))
    for name, several in logged:
        if several:
            blocks += [el("h3", f"{name.capitalize()}, one training batch"), charts.grid(several)]
            drawn += several
    for name, several in monitored:
        if several:
            blocks += [el("h3", f"{name.capitalize()}, the same images in views that never change"), _of_images(record)]
            blocks.append(charts.grid(chart for chart in several if chart.name.endswith(FIRST)))
            rest = [chart for chart in several if not chart.name.endswith(FIRST)]
            blocks.append(el("details", el("summary", f"{len(rest)} more diagnostics"), charts.grid(rest)))
            drawn += several
    if scores:
        blocks += [el("h3", "Scores"), charts.grid(scores)]
        drawn += scores
    if not drawn:
        return missing("health", TITLE, "No step was logged, so there is no curve.")
    return Part("health", TITLE, join(blocks), HOW, charts.files(drawn))


def _of_images(record: Record) -> Markup:
    """What the monitor has looked at."""
    count = max((value for _, value in curve(record.monitor, "images", "count")), default=0)
    apart = any(table_of(line, "images").get("held_out") is True for line in record.monitor)
    kind = "held-out" if apart else "training"
    words = f"Of {count:,.0f} {kind} images, the networks in eval mode. Dashed: the least and the most that a number "
    return el("p", words + "can be.", class_="how")


def _of_batches(record: Record, output: str) -> Iterator[Chart]:
    for statistic, words in STATISTICS.items():
        points = record.curve(output, statistic)
        if not points or (statistic == "dead" and not any(value for _, value in points)):
            continue  # most networks have no dead feature at any step, and a line along 0 says nothing more
        low, high = (value_of(record.log[-1], "healthy", output, statistic, end) for end in (0, 1))
        band = None if low is None or high is None else (low, high)
        yield Chart(f"{output}-{statistic}", words, [Line(output, points)], band, y_from=0.0, about=BETTER[statistic])


def _of_views(record: Record) -> list[Chart]:
    """How alike the embeddings of two views are, of one image and of two."""
    pairs = {"of one image": "agreement", "of two images": "chance"}
    lines = [Line(words, record.curve("views", key), colour) for colour, (words, key) in enumerate(pairs.items())]
    about = "the first should come to lie above the second, which is best near 0; both near 1 is a collapse"
    found = Chart("views-agreement", "cosine of two views' embeddings", lines, about=about)
    return [found] if found.drawn else []


def _of_monitor(record: Record, output: str) -> Iterator[Chart]:
    for name in names_in(record.monitor, "diagnostics", output):
        points = curve(record.monitor, "diagnostics", output, name, "value")
        if not points:
            continue
        ends = [(value_of(record.monitor[-1], "diagnostics", output, name, end), end) for end in ("floor", "ceiling")]
        values = [value for _, value in points]
        room = 2 * (max(values) - min(values)) or abs(values[0]) or 1.0
        near = [(v, w) for v, w in ends if v is not None and min(values) - room <= v <= max(values) + room]
        yield Chart(f"monitor-{output}-{name}", name, [Line(name, points)], at=near, about=told_of(name))


def _scores(record: Record) -> Iterator[Chart]:
    for name in names_in(record.monitor, "scores"):
        points = [(step, 100 * value) for step, value in curve(record.monitor, "scores", name, "value")]
        if points:
            yield score_chart(name, [Line(name, points, 2)])


def score_chart(name: str, lines: Sequence[Line]) -> Chart:
    """A score while a run or several trained."""
    return Chart(
        f"score-{name}", f"{name}, per cent", lines, about=OWN_FEATURES, least=LEAST_RANGE, within=(0.0, 100.0)
    )
