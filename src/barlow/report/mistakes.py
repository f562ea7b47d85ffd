"""Where the encoder is wrong: which classes are taken for which, each class by itself, and the hardest images."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int64

from barlow.probes.average_precision import average_precision
from barlow.probes.intervals import wilson
from barlow.probes.metrics import Predicted
from barlow.protocols.knn import WeightedKNN
from barlow.report.charts import asset
from barlow.report.kept import Kept
from barlow.report.markup import Markup, el, join, note, table
from barlow.report.neighbours import Pictured
from barlow.report.part import Part, missing
from barlow.report.pictures import atlas
from barlow.report.scores import interval, percent
from barlow.report.shown import Shown

HOW = (
    "By the same 20 nearest neighbours as kNN in the evaluation. In the table of confusions a row is what the images "
    "are, a column what they were taken for; a strong square off the diagonal is a pair of classes that the encoder "
    "mixes up."
)
TITLE, NAME = "Mistakes", "mistakes"
MOST_CLASSES = 40
"""Of a drawn table of confusions; of more classes the pairs that are mixed up most are listed alone."""
NUMBERED = 12
"""Up to so many classes, the squares have their numbers written on them."""
LONGEST = 18
"""Characters of a class's name beside its row."""
PAIRS, HARDEST = 10, 24
SIDE, SHOWN, QUALITY = 96, 100, 70


def made(measured: Kept | None, shown: Shown | None, names: Sequence[str], evaluate: str) -> Pictured:
    """The mistakes of the newest evaluation.

    Args:
        measured: its features.
        shown: the images that are shown.
        names: of them.
        evaluate: the command that gives an evaluation.
    """
    if measured is None:
        words = f"No evaluation has kept its features. This gives one: {evaluate}"
        return Pictured(missing(NAME, TITLE, words))
    if measured.train is None:
        words = "There are too many images to be searched for a report; the evaluation has the scores."
        return Pictured(missing(NAME, TITLE, words))
    predicted = WeightedKNN().predict(measured.train, measured.test.features)
    labels = measured.test.labels
    if predicted.classes is None:
        return Pictured(_of_labels(predicted, labels, measured.classes))
    found = predicted.predictions
    table_of = confusions(labels, found, len(measured.classes))
    svg = drawn(table_of, measured.classes) if len(measured.classes) <= MOST_CLASSES else None
    picture = el("div", svg, class_="scroll", tabindex=0, role="region", aria_label="confusions") if svg else None
    body = [
        el("h3", "Confusions"),
        el("div", picture, _pairs(table_of, measured.classes), class_="pair"),
        el("h3", "Each class"),
        _by_class(table_of, measured.classes),
    ]
    hard, style = _hardest(predicted, labels, measured.classes, shown, names)
    body += [el("h3", "Hardest images"), hard]
    figures = {}
    if svg:
        figures["confusions.svg"] = drawn(table_of, measured.classes, asset("figures.css")).encode()
    return Pictured(Part(NAME, TITLE, join(body), HOW, figures), style)


def confusions(labels: Int64[np.ndarray, "n"], found: Int64[np.ndarray, "n"], classes: int) -> Int64[np.ndarray, "k k"]:
    """How many images of each class (rows) were taken for each (columns)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, found), 1)
    return counts


def drawn(counts: Int64[np.ndarray, "k k"], classes: Sequence[str], style: str = "") -> Markup:
    """The table of confusions as a picture: each square the stronger, the larger its share of its row."""
    k, cell = len(counts), 30 if len(counts) <= NUMBERED else 18
    longest = min(max(map(len, classes), default=1), LONGEST)
    left, top = 20 + 6.5 * longest, 26 + 4.6 * longest
    width, height = round(left + k * cell + 4.6 * longest), round(top + k * cell + 8)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts: list[object] = []
    for i, name in enumerate(classes):
        short = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
        x, y = left + i * cell + cell / 2, top + i * cell + cell / 2
        parts.append(el("text", short, x=left - 8, y=y + 4, text_anchor="end"))
        parts.append(el("text", short, transform=f"translate({x + 4} {top - 8}) rotate(-45)"))
    for i, j in zip(*np.nonzero(counts), strict=True):
        x, y, share = left + j * cell, top + i * cell, shares[i, j]
        told = f"{classes[i]} taken for {classes[j]}: {counts[i, j]} ({percent(share)} %)"
        square = el(
            "rect", el("title", told), x=x, y=y, width=cell - 1, height=cell - 1, fill_opacity=f"{share**0.7:.3f}"
        )
        parts.append(el("g", square, class_="cell f0" if i == j else "cell f1"))
        if k <= NUMBERED:
            place = {"x": x + (cell - 1) / 2, "y": y + cell / 2 + 4, "text_anchor": "middle"}
            parts.append(
                el("text", counts[i, j], class_="on" if share > 0.45 else "off", pointer_events="none", **place)
            )
    parts.append(el("path", d=f"M{left} {top}h{k * cell}v{k * cell}h{-k * cell}z", class_="grid"))
    standing = {"xmlns": "http://www.w3.org/2000/svg"} if style else {}
    return el(
        "svg",
        el("style", Markup(style)) if style else None,
        *parts,
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_label=f"confusions of {k} classes; the pairs that are mixed up most are listed below",
        **standing,
    )


def _pairs(counts: np.ndarray, classes: Sequence[str]) -> Markup:
    """The pairs of classes that are mixed up most."""
    off = counts * (1 - np.eye(len(counts), dtype=np.int64))
    order = np.argsort(-off, axis=None, kind="stable")[:PAIRS]
    rows = [
        [classes[i], classes[j], f"{off[i, j]:,}", percent(off[i, j] / counts[i].sum())]
        for i, j in (divmod(int(at), len(counts)) for at in order)
        if off[i, j]
    ]
    if not rows:
        return note("No test image was taken for another class.")
    return table(["class", "taken for", "images", "% of its class"], rows, words=(0, 1), caption="pairs mixed up most")


def _by_class(counts: np.ndarray, classes: Sequence[str]) -> Markup:
    """Each class: how many of its images were found, and how many of those taken for it are of it; the worst first."""
    right, there, taken = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    order = sorted(np.flatnonzero(there), key=lambda i: (right[i] / there[i], i))
    rows = [
        [
            classes[i],
            f"{there[i]:,}",
            interval(wilson(int(right[i]), int(there[i]))),
            percent(right[i] / taken[i]) if taken[i] else "–",
        ]
        for i in map(int, order)
    ]
    whole = table(["class", "images", "found, %", "right when said, %"], rows, caption="each class")
    return (
        whole if len(rows) <= 25 else el("details", el("summary", f"all {len(rows)} classes, the worst first"), whole)
    )


def _hardest(
    predicted: Predicted, labels: np.ndarray, classes: Sequence[str], shown: Shown | None, names: Sequence[str]
) -> tuple[Markup, str]:
    """The images that were taken for another class with the most votes, among those that are shown."""
    if shown is None or shown.rows is None or shown.pictures is None:
        return note(" ".join(shown.notes) if shown and shown.notes else "The test images are not there any more."), ""
    found, votes = predicted.predictions[shown.rows], predicted.confidence[shown.rows]
    labels = labels[shown.rows]
    wrong = np.flatnonzero(found != labels)
    hardest = [int(row) for row in wrong[np.argsort(-votes[wrong], kind="stable")][:HARDEST]]
    if not hardest:
        return note("None of the images that are shown was taken for another class."), ""
    side = shown.pictures.side(SIDE)
    whole = atlas("h", shown.pictures.read(hardest, side), len(hardest), side, shown=SHOWN, quality=QUALITY)

    def picture(part: int, row: int) -> Markup:
        is_, taken = classes[int(labels[row])], classes[int(found[row])]
        caption = join([f"{is_} → {taken}", el("br"), el("small", f"votes {percent(votes[row])} %")])
        return el("figure", whole.show(part, names[row], title=names[row]), el("figcaption", caption))

    style = whole.rule + "".join(whole.place(part) for part in range(len(hardest)))
    about = el(
        "p",
        "Taken for another class by most of their neighbours: odd images, classes that look alike, or labels "
        "that are wrong. Each of an image's 20 nearest labelled images votes for its own class, a nearer one with more "
        "weight; below each picture stands the share of these votes that its wrong class got.",
    )
    return join([about, el("div", *(picture(part, row) for part, row in enumerate(hardest)), class_="hard")]), style


def _of_labels(predicted: Predicted, labels: np.ndarray, classes: Sequence[str]) -> Part:
    """Where an image may have several labels: how well each label is found."""

    def rows() -> Iterator[tuple[float, list[object]]]:
        for k, name in enumerate(classes):
            value = float(average_precision(predicted.scores[:, k], labels[:, k] > 0)[0])
            if value == value:
                yield value, [name, f"{int(labels[:, k].sum()):,}", percent(value)]

    ordered = [row for _, row in sorted(rows(), key=lambda pair: pair[0])]
    body = table(["label", "images", "average precision, %"], ordered, caption="each label")
    return Part(NAME, TITLE, body, "By 20 nearest neighbours; the label that is found worst comes first.")
