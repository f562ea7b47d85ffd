"""The cross-correlation of two views' embeddings, and the spectra of features and embeddings: over the run."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, fmean
from typing import Any

import numpy as np
from PIL import Image

from barlow.record import table_of, value_of
from barlow.report import charts
from barlow.report.charts import Chart, Line, number
from barlow.report.markup import Markup, el, join, note
from barlow.report.part import Part

HOW = (
    "Rows and columns are the embedding's dimensions, of one view and of the other. Redundancy reduction wants a "
    "strong diagonal, as the views agree, and nothing beside it, as no two dimensions say the same."
)
SPECTRUM = (
    "The strength of each direction, the strongest first, as a share of the strongest. A curve that stays high uses "
    "many directions; one that drops early has collapsed into a few."
)
NAME, TITLE = "matrix", "Cross-correlation"
NEGATIVE, ZERO, POSITIVE = np.array([38, 84, 160]), np.array([250, 250, 248]), np.array([178, 58, 20])
SHOWN = 256


def chosen(snapshots: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first, the middle and the last."""
    several = list(snapshots)
    places = dict.fromkeys((0, (len(several) - 1) // 2, len(several) - 1)) if several else {}
    return [several[i] for i in places]


def correlation(snapshots: Sequence[Mapping[str, Any]], why: str) -> Part:
    """The matrices at the start, in the middle and at the end.

    Args:
        snapshots: lines of the monitor, or their like.
        why: said where there is no matrix.
    """
    having = [each for each in snapshots if table_of(each, "cross_correlation")]
    shown = []
    figures: dict[str, bytes] = {}
    for each in chosen(having):
        values, d = values_of(each["cross_correlation"])
        content = picture(values)
        figures[f"cross-correlation-{each['step']:06d}.png"] = content
        shown.append(_matrix(values, d, each, content))
    if not shown:
        return Part(NAME, TITLE, note(why))
    legend = el("p", "Orange is a correlation towards 1, white none, blue towards −1.", class_="note")
    return Part(NAME, TITLE, join([el("div", *shown, class_="matrices"), legend]), HOW, figures)


def values_of(content: Mapping[str, Any]) -> tuple[np.ndarray, int]:
    """The kept matrix, and how many dimensions it is of.

    Raises:
        ValueError: it is none.
    """
    side, d = int(content["side"]), int(content["d"])
    values = np.array(content["values"], np.float64)
    if not 1 <= side <= 512 or values.shape != (side * side,):
        raise ValueError(f"a matrix of {values.shape} numbers and side {side}")
    return np.nan_to_num(values).clip(-1, 1).reshape(side, side), d


def picture(values: np.ndarray) -> bytes:
    """A matrix of numbers from -1 to 1 as a PNG, a pixel each."""
    weight = np.abs(values)[..., None] ** 0.7  # so that weak correlations are seen, too
    colour = np.where(values[..., None] < 0, NEGATIVE, POSITIVE)
    pixels = np.rint(ZERO + weight * (colour - ZERO)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def by_chance(count: float, side: int, d: int) -> float:
    """How large the strongest of a block's correlations is on average where nothing is correlated.

    A correlation over n images is then about normal, with variance 1/n, and of m independent ones the strongest is
    below x with probability P(|z| < x)ᵐ. The mean is taken over five quantiles of that.

    Args:
        count: images.
        side: blocks along a side.
        d: dimensions along a side.
    """
    m, normal = (d / side) ** 2, NormalDist()
    quantiles = [normal.inv_cdf((1 + u ** (1 / m)) / 2) for u in (0.1, 0.3, 0.5, 0.7, 0.9)]
    return fmean(quantiles) / math.sqrt(count)


def _matrix(values: np.ndarray, d: int, line: Mapping[str, Any], content: bytes) -> Markup:
    side, step, count = len(values), line["step"], value_of(line, "images", "count")
    diagonal = values.diagonal().mean()
    off = np.abs(values[~np.eye(side, dtype=bool)]).mean() if side > 1 else 0.0
    block = (
        "" if side == d else f"; each square the strongest of a block of about {round(d / side)} × {round(d / side)}"
    )
    chance = f", where chance alone gives {by_chance(count, side, d):.2f}" if count else ""
    words = f"{d} × {d}{block}; diagonal {diagonal:.2f}, beside it {off:.2f} in the mean{chance}"
    address = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    img = el("img", src=address, width=SHOWN, height=SHOWN, alt=f"cross-correlation at step {step}: {words}")
    return el("figure", img, el("figcaption", el("b", f"step {number(float(step))}"), el("br"), words))


def spectra(snapshots: Sequence[Mapping[str, Any]], why: str) -> Part:
    """The singular values of features and embeddings, at the start, in the middle and at the end."""
    drawn = []
    for output in ("features", "embeddings"):
        having = [each for each in snapshots if table_of(each, "spectrum").get(output)]
        shown = chosen(having)
        colours = {1: (0,), 2: (7, 0)}.get(len(shown), (7, 4, 0))
        lines = [
            Line(f"step {number(float(each['step']))}", _falling(each["spectrum"][output]), colour)
            for colour, each in zip(colours, shown, strict=False)
        ]
        if lines := [line for line in lines if line.points]:
            drawn.append(Chart(f"spectrum-{output}", output, lines, x="direction", log_x=True))
    if not drawn:
        return Part("spectra", "Spectra", note(why))
    return Part("spectra", "Spectra", charts.grid(drawn), SPECTRUM, charts.files(drawn))


def _falling(values: Sequence[float]) -> list[tuple[float, float]]:
    """A spectrum as shares of its largest; what is less than a millionth is left out."""
    numbers = [float(v) for v in values if isinstance(v, int | float) and v == v]
    largest = max(numbers, default=0.0)
    return [(float(i), v / largest) for i, v in enumerate(numbers, 1) if largest > 0 and v > 1e-6 * largest]
