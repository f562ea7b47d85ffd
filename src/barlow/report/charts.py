"""Curves as SVG: small, all of one width, so that they stand side by side on a desk and below each other on a phone."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import pairwise

from barlow.record import Point
from barlow.report.markup import Markup, data, el, join, text

WIDTH, HEIGHT = 340, 198
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 26, 32
MOST_POINTS = 300
"""Of a curve, in the page; a longer one keeps the lowest and the highest of each stretch."""
COLOURS = 10
LOOKED_AT = 9
"""Places along the words of a level at which they may lie on a curve."""
LOGARITHMIC = 60.0
"""A curve that spans more than this ratio, and is positive, is drawn on a logarithmic scale."""


@dataclass(frozen=True)
class Line:
    """A curve."""

    name: str
    points: Sequence[Point]
    colour: int = 0


@dataclass(frozen=True)
class Chart:
    """Curves over the same steps.

    Args:
        name: of the chart's file; also its place among others.
        title: above it.
        lines: one or more.
        band: a range that is called healthy.
        at: levels that a curve is compared with, each with its words.
        x: what is counted along it.
        log_x: whether by ratio (a spectrum).
    """

    name: str
    title: str
    lines: Sequence[Line]
    band: tuple[float, float] | None = None
    at: Sequence[tuple[float, str]] = ()
    x: str = "step"
    log_x: bool = False
    y_from: float | None = None
    """A level that is always shown, such as 0."""
    about: str = ""
    """What the number is, below the chart."""
    least: float = 0.0
    """What its height spans at least, so that a change that means nothing does not fill it."""
    within: tuple[float, float] = (-math.inf, math.inf)
    """What a number can be: the height is not widened beyond it."""

    @property
    def drawn(self) -> list[Line]:
        return [line for line in self.lines if line.points]


@dataclass(frozen=True)
class Scale:
    """Numbers along an axis, to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, v = (math.log(x) if self.log else x for x in (self.low, self.high, max(value, self._least)))
        return round(self.start + (v - low) / ((high - low) or 1.0) * (self.end - self.start), 1)

    @property
    def _least(self) -> float:
        return self.low if self.log else -math.inf

    def ticks(self, about: int) -> list[float]:
        """Round numbers within."""
        if self.log:
            return _log_ticks(self.low, self.high, about)
        return _round_ticks(self.low, self.high, about)


def number(value: float | None, digits: int = 3) -> str:
    """A number as a person reads it: three digits, or so many; or all of a large whole one.

    Example:
        >>> [number(x) for x in (12345.6, 0.5, 2.0, 1.23456, 0.000012, None)]
        ['12,346', '0.5', '2', '1.23', '1.2e-5', '–']
    """
    if value is None or value != value:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e7 else _exponent(f"{value:.2g}")
    return _exponent(f"{value:.{digits}g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.{digits - 1}g}")


def numbers(values: Sequence[float]) -> list[str]:
    """Numbers along an axis: of as many digits as tell them apart.

    Example:
        >>> numbers([1.29, 1.295, 1.3])
        ['1.29', '1.295', '1.3']
    """
    found = [number(value) for value in values]
    for digits in range(4, 13):
        if len(set(found)) == len(set(values)):
            break
        found = [number(value, digits) for value in values]
    return found


def _exponent(written: str) -> str:
    mantissa, e, power = written.partition("e")
    return f"{mantissa}e{int(power)}" if e else written


def svg(chart: Chart, style: str = "") -> Markup:
    """A chart as a picture of its own; with a style it stands alone in a file."""
    lines = [Line(line.name, thinned(line.points), line.colour) for line in chart.drawn]
    x, y = _scales(chart, lines)
    parts = [el("text", chart.title, x=LEFT, y=14, class_="name")]
    levels, steps = y.ticks(4), x.ticks(5)
    for value, words in zip(levels, numbers(levels), strict=True):
        parts += [
            el("path", d=f"M{LEFT} {y(value)}H{WIDTH - RIGHT}", class_="grid"),
            el("text", words, x=LEFT - 6, y=y(value) + 4, text_anchor="end"),
        ]
    for value, words in zip(steps, numbers(steps), strict=True):
        parts.append(el("text", words, x=x(value), y=HEIGHT - BOTTOM + 14, text_anchor="middle"))
    parts.append(el("text", chart.x, x=WIDTH - RIGHT, y=HEIGHT - 1, text_anchor="end"))
    if chart.band is not None:
        low, high = (max(y.low, chart.band[0]), min(y.high, chart.band[1]))
        if high > low:
            shape = f"M{LEFT} {y(high)}H{WIDTH - RIGHT}V{y(low)}H{LEFT}Z"
            parts.append(el("path", d=shape, class_="band"))
    for value, _ in chart.at:
        if y.low <= value <= y.high:
            parts.append(el("path", d=f"M{LEFT} {y(value)}H{WIDTH - RIGHT}", class_="at"))
    for line in lines:
        path = "M" + "L".join(f"{x(a)} {y(b)}" for a, b in line.points)
        if len(line.points) == 1:
            a, b = line.points[0]
            path = f"M{x(a) - 3} {y(b)}H{x(a) + 3}"
        parts.append(el("path", d=path, class_=f"line s{line.colour % COLOURS}"))
    parts += _labels(chart, lines, x, y)
    standing = {"xmlns": "http://www.w3.org/2000/svg", "width": WIDTH, "height": HEIGHT} if style else {}
    return el(
        "svg",
        el("style", Markup(style)) if style else None,
        *parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=spoken(chart),
        **standing,
    )


def _labels(chart: Chart, lines: Sequence[Line], x: Scale, y: Scale) -> Iterator[Markup]:
    """The words of the levels, each where it hides least of the curves and of the words before it."""
    taken: list[tuple[float, float, float]] = []
    curves = [[(x(a), y(b)) for a, b in line.points] for line in lines]
    for i, (value, words) in enumerate(chart.at):
        if not y.low <= value <= y.high:
            continue
        wide, level = 5.8 * len(words), y(value)
        above = [level - 4, level + 12] if level > TOP + 14 else [level + 12]
        ends = [LEFT + 4, WIDTH - RIGHT - 2 - wide][:: 1 if i % 2 else -1]
        places = [(left, base) for base in above if base < HEIGHT - BOTTOM for left in ends] or [(ends[0], above[0])]

        def hidden(place: tuple[float, float], wide: float = wide) -> int:
            left, base = place
            of_curves = sum(_crosses(curve, left, left + wide, base - 10, base + 3) for curve in curves)
            others = sum(abs(b - base) < 13 and start < left + wide and left < end for start, end, b in taken)
            return of_curves + 100 * others

        left, base = min(places, key=hidden)
        taken.append((left, left + wide, base))
        ended = left != LEFT + 4
        yield el(
            "text",
            words,
            x=WIDTH - RIGHT - 2 if ended else left,
            y=round(base, 1),
            text_anchor="end" if ended else "start",
            class_="level",
        )


def _crosses(curve: Sequence[Point], left: float, right: float, top: float, bottom: float) -> int:
    """At how many of some places along a box a curve is in it."""
    found = 0
    for k in range(LOOKED_AT):
        at = left + (right - left) * k / (LOOKED_AT - 1)
        for (a, before), (b, after) in pairwise(curve):
            if a <= at <= b:
                height = before + (after - before) * ((at - a) / (b - a) if b > a else 0.0)
                found += top <= height <= bottom
                break
    return found


def figure(chart: Chart) -> Markup:
    """A chart on the page, with a legend where there are several curves, and the data that a cursor reads."""
    lines = [Line(line.name, thinned(line.points), line.colour) for line in chart.drawn]
    x, y = _scales(chart, lines)
    content = {
        "x": [x.low, x.high, x.start, x.end, x.log],
        "y": [y.low, y.high, y.start, y.end, y.log],
        "name": chart.x,
        "lines": [
            {"name": line.name, "points": [[round(a, 6), float(f"{b:.5g}")] for a, b in line.points]} for line in lines
        ],
    }
    legend = [key(line.name, line.colour) for line in lines] if len(lines) > 1 else []
    legend += [el("span", chart.about)] if chart.about else []
    caption = el("figcaption", *legend, class_="legend") if legend else None
    return el("figure", svg(chart), caption, data(content), class_="chart", tabindex=0)


def key(name: str, colour: int) -> Markup:
    """A name beside its colour."""
    swatch = el("rect", width=10, height=10, class_=f"f{colour % COLOURS}")
    return el("span", el("svg", swatch, width=10, height=10, aria_hidden="true"), text(f" {name}"), class_="key")


def grid(charts: Iterable[Chart]) -> Markup:
    """Charts side by side, as many as fit."""
    return el("div", join(figure(chart) for chart in charts if chart.drawn), class_="charts")


def spoken(chart: Chart) -> str:
    """What a chart shows, in words."""
    ends = [
        f"{line.name} from {number(line.points[0][1])} at {chart.x} {number(line.points[0][0])} "
        f"to {number(line.points[-1][1])} at {chart.x} {number(line.points[-1][0])}"
        for line in chart.drawn
    ]
    return f"{chart.title}: {'; '.join(ends)}"


def thinned(points: Sequence[Point]) -> list[Point]:
    """A curve of at most `MOST_POINTS`: of each stretch its first, lowest, highest and last point."""
    if len(points) <= MOST_POINTS:
        return list(points)
    stretches, kept = MOST_POINTS // 4, []
    for i in range(stretches):
        part = points[i * len(points) // stretches : (i + 1) * len(points) // stretches]
        if part:
            ends = {part[0], part[-1], min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}
            kept += sorted(ends)
    return kept


def _scales(chart: Chart, lines: Sequence[Line]) -> tuple[Scale, Scale]:
    xs = [a for line in lines for a, _ in line.points]
    ys = [b for line in lines for _, b in line.points] + [value for value, _ in chart.at]
    ys += [] if chart.y_from is None else [chart.y_from]
    if chart.band is not None:  # a curve that leaves it is shown beside it
        low, high = chart.band
        ys += [1.15 * low] if min(ys) < low else []
        ys += [high] if max(ys) > high else []
    log = min(ys) > 0 and max(ys) > LOGARITHMIC * min(ys)
    low, high = min(ys), max(ys)
    if not log and high - low < chart.least:
        low, high = _widened(low, high, chart.least, chart.within)
    elif low == high:
        low, high = (low, low + 1) if low == chart.y_from else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
    if log:
        low, high = low / 1.1, high * 1.1
    else:
        room = 0.05 * (high - low)
        low = low if low == chart.y_from or low == 0 else max(low - room, chart.within[0])
        high = min(high + room, chart.within[1])
    x = Scale(min(xs), max(xs), LEFT, WIDTH - RIGHT, chart.log_x and min(xs) > 0)
    return x, Scale(low, high, HEIGHT - BOTTOM, TOP, log)


def _widened(low: float, high: float, least: float, within: tuple[float, float]) -> tuple[float, float]:
    """A range of at least this length around another, moved so that it is within what can be."""
    start = (low + high - least) / 2
    start = max(min(start, within[1] - least), within[0])
    return start, start + least


def _round_ticks(low: float, high: float, about: int) -> list[float]:
    raw = (high - low) / about
    if not raw > 0 or not math.isfinite(raw):
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(s - raw))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, first + 12) if i * step <= high + 1e-9 * step]


def _log_ticks(low: float, high: float, about: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = max(1, len(powers) // about)
    found = [10.0**p for p in powers[::every] if low <= 10.0**p <= high]
    if len(found) >= 2:
        return found
    return [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]


def files(drawn: Iterable[Chart]) -> dict[str, bytes]:
    """Charts as SVG files of their own, in the colours of paper."""
    style = asset("figures.css")
    return {f"{chart.name}.svg": svg(chart, style).encode() for chart in drawn if chart.drawn}


@cache
def asset(name: str) -> str:
    """A file that comes with the package."""
    return resources.files("barlow.report").joinpath(name).read_text(encoding="utf-8")
