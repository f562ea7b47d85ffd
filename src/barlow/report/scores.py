"""How good the encoder is: each probe's score with its interval, beside what costs nothing, and the gain over it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from barlow.probes.intervals import Difference, Score, end_of_difference
from barlow.probes.remarks import remarks
from barlow.probes.report import BASELINES, Row, called, held_out_of, results_of, rows_of
from barlow.probes.results import Results
from barlow.record import Record, table_of, value_of
from barlow.report.markup import Aside, Markup, el, join, note, pairs, table
from barlow.report.part import Part

HOW = (
    "Per cent of test images that are right, with the 95 % interval over the choice of test images; of protocols "
    "that draw training images (few-shot, a part of the labels) over the draws. The gain is over the best baseline on "
    "the same images; where its interval holds 0, the two are not told apart. Of a detection "
    "(detect:…) the numbers are average precisions, means over seeds, and the intervals are over these."
)
TITLE = "Evaluation"
HELD_OUT = el("span", "held out", class_="under")
"""The heading of what a protocol chose by: it stands below a row, and belongs to it."""

_SETS = {
    "pixels": "no network: the pixels of the image are its features, at the side that the name has",
    "start": "the weights that the run started from, made into an encoder as the trained one is",
    "untrained": "the same network as it is built, before its first step",
}
_TREATED = {
    "plain": "the network's own features alone",
    "recalibrated": "its batch norm measured on the labelled images, as training would have done",
    "handed out": (
        "its batch norm measured on the labelled images, its stages and whitening as those of the trained encoder, so "
        "that only the training is between them"
    ),
    "whitened": "whitened as the encoder's features are",
}


def part(record: Record) -> Part:
    """The newest evaluation in full, and the others beside it."""
    report = record.results
    if report is None:
        words = note("The encoder has not been measured. This measures it: ", el("code", record.evaluate))
        return Part("evaluation", TITLE, join([*_while_training(record), words]))
    results, rows = results_of(report), rows_of(report)
    families = [family for family in BASELINES if any(family in row.baselines for row in rows)]
    head = ["", "encoder", *(BASELINES[family].lower() for family in families), *(["gain"] if families else [])]
    body: list[object] = [
        el("p", *_about(report)),
        table(head, _table_rows(results, rows, families), caption="scores of the encoder and of its baselines"),
        *_explained(rows, families),
        *map(note, remarks(results)),
    ]
    if not families:
        body.append(note("No baselines were measured, so these numbers say little by themselves."))
    body += _while_training(record)
    body += [note(f"Beware: {line}") for line in report.get("warnings", [])]
    if len(record.evaluations) > 1:
        body += [el("h3", "All evaluations"), _beside(record.evaluations)]
    return Part("evaluation", TITLE, join(body), HOW)


def _while_training(record: Record) -> Iterator[object]:
    """What the monitor has measured last, on images that were held out of labelled training images."""
    lines = [line for line in record.monitor if table_of(line, "scores")]
    for name, score in table_of(lines[-1], "scores").items() if lines else ():
        value, low, high, n = (value_of(score, key) for key in ("value", "low", "high", "n"))
        if value is None or low is None or high is None or n is None:
            continue
        yield el(
            "p",
            f"While it trained, at step {lines[-1]['step']:,}: {name} {percent(value)} ({percent(low)} to "
            f"{percent(high)}) on {n:,.0f} images that were held out of labelled ones, of the network's own features.",
        )


def _about(report: Mapping[str, Any]) -> Iterator[object]:
    learn, test = (table_of(report, "images", name) for name in ("train", "test"))
    step = value_of(report, "asked", "step")
    yield f"{learn.get('count'):,} labelled images of {learn.get('source')} to learn from, "
    yield f"{test.get('count'):,} of {test.get('source')} to be measured on, {len(report['classes'])} classes"
    yield f", the encoder as it was at step {step:,.0f}" if step is not None else ""
    times = value_of(report, "times_measured")
    yield f"; these test images were looked at {times:.0f} times." if times is not None and times > 1 else "."


def _table_rows(results: Results, rows: Sequence[Row], families: list[str]) -> Iterator[list[object]]:
    """A row for each metric. Below the first of a protocol that chose something stands what it chose by: far above the
    test's, the test images are of another kind."""
    told: set[str] = set()
    for row in rows:
        yield list(_cells(row, families))
        if row.probe not in told and (held_out := held_out_of(results, row, families)):
            cells = ["–" if value is None else Aside(percent(value), "") for value in held_out]
            yield [HELD_OUT, *cells, *([""] if families else [])]
        told.add(row.probe)


def _explained(rows: Sequence[Row], families: list[str]) -> Iterator[Markup]:
    """What each baseline is whose name stands in the table."""
    names = {row.baselines[family][0] for family in families for row in rows if family in row.baselines}
    shown = [
        (name.replace("_", " "), f"{_SETS[family]}{_treated(name)}")
        for family in families
        for name in sorted(names)
        if name.partition("_")[0] == family
    ]
    if shown:
        yield note("Of each kind of baseline the table has the best. Those are:")
        yield pairs(shown)


def _treated(name: str) -> str:
    words = name.replace("_", " ")
    return "".join(f"; {said}" for end, said in _TREATED.items() if words.endswith(end))


def _cells(row: Row, families: list[str]) -> Iterator[object]:
    yield called(row)
    yield interval(row.encoder)
    for family in families:
        if family not in row.baselines:
            yield "–"
            continue
        name, score = row.baselines[family]
        yield Aside(percent(score.value), name.replace("_", " "))
    if families:
        yield interval(row.gain)


def interval(found: Score | Difference | None) -> object:
    """A number with its 95 % interval, in per cent."""
    if found is None:
        return "–"
    if isinstance(found, Difference):
        ends = [end_of_difference(each).replace("-", "−") for each in (found.low, found.high)]
        return Aside("+" * (found.value >= 0) + percent(found.value), " to ".join(ends))
    return Aside(percent(found.value), f"{percent(found.low)} to {percent(found.high)}")


def percent(value: float) -> str:
    """A share in per cent, with a true minus."""
    return f"{100 * value:.1f}".replace("-", "−")


def _beside(evaluations: list[dict[str, Any]]) -> object:
    """All evaluations of the run, a column each."""
    found = [{(row.probe, row.metric): row for row in rows_of(each)} for each in evaluations]
    keys = dict.fromkeys(key for rows in found for key in rows)
    heads = [join([table_of(each, "images", "test").get("source"), el("br"), _which(each)]) for each in evaluations]
    rows = [[called(next(r[key] for r in found if key in r)), *(_score(r.get(key)) for r in found)] for key in keys]
    return table(["test images", *heads], rows, caption="scores of the encoder in each evaluation")


def _which(report: Mapping[str, Any]) -> object:
    step = value_of(report, "asked", "step")
    return el(
        "small",
        f"{table_of(report, 'images', 'test').get('count')} images"
        + (f", step {step:.0f}" if step is not None else ""),
    )


def _score(row: Row | None) -> object:
    return "–" if row is None else interval(row.encoder)
