"""How long it took: images a second, and how much of the time went into waiting for them."""

from barlow.record import Record
from barlow.report import charts
from barlow.report.charts import Chart, Line, number
from barlow.report.markup import join, pairs
from barlow.report.part import Part, missing

HOW = "Where the share of waiting is large, images are read more slowly than the network can use them."


def part(record: Record) -> Part:
    """Images a second over the steps, and the sums."""
    speeds = record.curve("images_per_second")
    if not speeds:
        return missing("time", "Time", "No step was logged.")
    waits = [(step, 100 * share) for step, share in record.curve("data_wait")]
    drawn = [
        Chart("speed", "images a second", [Line("images a second", speeds)], y_from=0.0),
        Chart("waiting", "waiting for images, per cent", [Line("waiting", waits, 1)], y_from=0.0),
    ]
    rows: list[tuple[object, object]] = [
        ("training", f"{_clock(record.seconds or 0.0)} in all"),
        ("speed", f"{number(sum(v for _, v in speeds) / len(speeds))} images a second on average"),
    ]
    if waits:
        rows.append(("waiting", f"{sum(v for _, v in waits) / len(waits):.1f} % of the time, for images"))
    if replaced := sum(value for _, value in record.curve("replaced")):
        rows.append(("replaced", f"{replaced:.0f} images that could not be read any more, by others"))
    return Part("time", "Time", join([pairs(rows), charts.grid(drawn)]), HOW, charts.files(drawn))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
