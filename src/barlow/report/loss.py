"""The loss and its terms over the steps, beside what they would be for views that have nothing in common."""

from barlow.record import Record, names_in, value_of
from barlow.report import charts
from barlow.report.charts import Chart, Line, number
from barlow.report.markup import join, table
from barlow.report.part import Part, missing

COLLAPSE = (
    " A loss near the least that it can be is not good by itself: where no term forbids it, a collapse has that loss "
    "too, as two views always agree where all images are made alike. The spread of the embeddings, below, tells."
)
HOW = (
    "The loss is the sum of its terms. A dashed line is a level to compare with: what the loss is where two views have "
    "nothing in common, and the least that it can be. A loss that stays at the upper one has learned nothing. "
    "The upper level is of embeddings whose features all vary by 1 and independently. Those of an untrained network "
    "do not yet: an objective that standardises them, such as Barlow Twins, begins near that level all the same, and "
    "one that does not, such as VICReg, may begin far below it." + COLLAPSE
)
WITHOUT = (
    "The loss is the sum of its terms, each drawn on a scale of its own. What counts is that it falls, and then "
    "flattens out." + COLLAPSE
)
LEVELS = {"unrelated": "unrelated views", "floor": "the least it can be"}
"""What a line of the log may hold under `reference`, in words."""


def levels(record: Record) -> list[tuple[float, str]]:
    """Levels that the loss is compared with, by the last line that has some."""
    for line in reversed(record.log):
        found = [(value_of(line, "reference", key), words) for key, words in LEVELS.items()]
        if there := [(value, words) for value, words in found if value is not None]:
            return there
    return []


def part(record: Record) -> Part:
    """The loss, its terms, the rate and the gradient's norm."""
    loss = record.curve("loss")
    if not loss:
        return missing("loss", "Loss", "No step was logged, so there is no curve.")
    terms = {name: record.curve("terms", name) for name in names_in(record.log, "terms")}
    terms = {name: points for name, points in terms.items() if points}
    at = levels(record)
    drawn = [Chart("loss", "loss", [Line("loss", loss)], at=at)]
    if len(terms) > 1:
        drawn += [Chart(f"term-{name}", name, [Line(name, points)]) for name, points in terms.items()]
    drawn += [
        Chart("rate", "learning rate", [Line("rate", record.curve("rate"), 7)], y_from=0.0),
        Chart("gradient", "norm of the gradient", [Line("norm", record.curve("gradient_norm"), 7)]),
        Chart(
            "moved",
            "how far weights moved",
            [Line("moved", record.curve("moved"), 7)],
            about="since the line before, over their length",
        ),
    ]
    drawn = [chart for chart in drawn if chart.drawn]
    shown = {"loss": loss} | (terms if len(terms) > 1 else {})
    rows = [
        [
            name,
            number(points[0][1]),
            number(min(value for _, value in points)),
            number(points[-1][1]),
            *(number(value) if name == "loss" else "" for value, _ in at),
        ]
        for name, points in shown.items()
    ]
    first, last = (f"step {number(loss[i][0])}" for i in (0, -1))
    head = ["", first, "lowest", last, *(words for _, words in at)]
    body = [charts.grid(drawn), table(head, rows, caption="the loss and its terms")]
    return Part("loss", "Loss", join(body), HOW if at else WITHOUT, charts.files(drawn))
