"""Nearest neighbours of a few images drawn at random, before training and after it: what the encoder sees alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from barlow.report.markup import Markup, el, join, note
from barlow.report.part import Part, missing
from barlow.report.pictures import Atlas, atlas
from barlow.report.shown import Shown, nearest_of
from barlow.views.keys import permutation
from barlow.views.sheet import png

HOW = (
    "Each row begins with an image drawn at random. After it come the images that are most similar to it by cosine, "
    "the most similar first, once by the trained encoder and once by the network before training. Both are handed out "
    "in the same way, so that only the training is between them."
)
TITLE, NAME = "Nearest neighbours", "neighbours"
QUERIES, NEIGHBOURS = 8, 6
SIDE, QUALITY = 96, 70
"""Of the pictures, in pixels, and how well they are kept."""


@dataclass(frozen=True)
class Pictured:
    """A part, and the rules that its pictures need."""

    part: Part
    style: str = ""


def made(shown: Shown, names: Sequence[str]) -> Pictured:
    """The neighbours of some images.

    Args:
        shown: the images.
        names: of them.
    """
    if shown.pictures is None:
        return Pictured(missing(NAME, TITLE, " ".join(shown.notes) or "The images cannot be shown."))
    if len(shown) < 3:
        return Pictured(missing(NAME, TITLE, "There are fewer than three images."))
    sets = {"after training": nearest_of(shown.features, NEIGHBOURS)}
    if shown.before is not None:
        sets["before training"] = nearest_of(shown.before, NEIGHBOURS)
    queries = permutation(1, 0, len(shown))[:QUERIES]
    needed = list(dict.fromkeys([int(q) for q in queries] + [int(i) for s in sets.values() for i in s[queries].flat]))
    side = shown.pictures.side(SIDE)
    pictures = list(shown.pictures.read(needed, side))
    whole = atlas("t", pictures, len(needed), side, shown=64, quality=QUALITY)
    part_of = {row: part for part, row in enumerate(needed)}

    def picture(row: int, like: int | None = None) -> Markup:
        return _captioned(whole, part_of[row], row, like, shown, names)

    rows = [
        el(
            "div",
            el("div", picture(int(q)), class_="query"),
            el(
                "div",
                *(
                    el("div", el("span", words, class_="by"), el("div", *(picture(int(i), int(q)) for i in near[q])))
                    for words, near in sets.items()
                ),
                class_="strips",
            ),
            class_="row",
        )
        for q in queries
    ]
    was = f" {shown.before_words}" if shown.before is not None else ""
    body = [el("p", f"Among {shown.what}.{was}"), _agreement(shown, sets), el("div", *rows, class_="rows")]
    style = whole.rule + "".join(whole.place(part) for part in range(len(needed)))
    sheet = _sheet(
        [[[int(q)], *([int(i) for i in near[q]] for near in sets.values())] for q in queries], pictures, part_of
    )
    return Pictured(Part(NAME, TITLE, join(body), HOW, {"neighbours.png": sheet}), style)


def _sheet(
    rows: Sequence[Sequence[Sequence[int]]], pictures: Sequence[np.ndarray], part_of: Mapping[int, int]
) -> bytes:
    """The same as a picture of its own: in each row an image, its neighbours after training, and those before."""
    side = len(pictures[0])
    gap, wide = max(2, side // 16), side // 2
    width = sum(len(group) for group in rows[0]) * (side + gap) + len(rows[0]) * wide - wide
    sheet = np.full((len(rows) * (side + gap), width, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        left = 0
        for group in row:
            for image in group:
                sheet[i * (side + gap) : i * (side + gap) + side, left : left + side] = pictures[part_of[image]]
                left += side + gap
            left += wide
    return png(sheet)


def _captioned(whole: Atlas, part: int, row: int, like: int | None, shown: Shown, names: Sequence[str]) -> Markup:
    """A picture with its class below it; one of another class than the image it should be like says so."""
    words = shown.words(row, names)
    if shown.labels is None:
        return el("figure", whole.show(part, words, title=words))
    other = like is not None and shown.labels[row] != shown.labels[like]
    label = shown.classes[shown.labels[row]]
    caption = el("figcaption", f"≠ {label}" if other else label, class_="other" if other else None)
    return el("figure", whole.show(part, words, title=words), caption)


def agreement(labels: Int64[np.ndarray, "n"], near: Int64[np.ndarray, "n k"]) -> float:
    """The share of neighbours that have the class of the image they are neighbours of."""
    return float((labels[near] == labels[:, None]).mean())


def _agreement(shown: Shown, sets: dict[str, np.ndarray]) -> Markup | None:
    if shown.labels is None:
        return note("These images have no labels, so whether a neighbour is a good one, you see best.")
    said = [f"{100 * agreement(shown.labels, near):.1f} % {words}" for words, near in sets.items()]
    return el(
        "p",
        f"Of the {NEIGHBOURS} nearest of every image, {' and '.join(said)} have its class. Each neighbour counts by "
        "itself here, and is one of these images. kNN in the evaluation is another number, and mostly a higher one: "
        "there the 20 nearest labelled images vote on the class of an image, and the class with the most votes is "
        "enough.",
    )
