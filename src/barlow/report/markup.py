"""HTML and SVG that cannot be broken by what it shows: every text is escaped, unless it was made here.

A report shows names of files, folders and classes, and what a run's files say. All of it may be a stranger's. So there
is one way to write a tag, `el`, and whatever is put into one is a text to it, unless it is `Markup`, which only `el`,
`text` and `join` make.
"""

import html
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from barlow.printable import printable_lines
from barlow.seals import finite

VOID = frozenset({"br", "img", "meta"})
"""Tags of HTML that have no end."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Markup:
    """What is shown of a value: escaped, with control characters and marks of direction as visible escapes."""
    return value if isinstance(value, Markup) else Markup(html.escape(printable_lines(str(value))))


def join(parts: Iterable[object], between: str = "") -> Markup:
    """Several after each other; None is left out."""
    return Markup(html.escape(between).join(text(part) for part in parts if part is not None))


def el(tag: str, *children: object, **attributes: object) -> Markup:
    """A tag with its children and attributes.

    Args:
        tag: its name.
        children: texts, or Markup; None is left out.
        attributes: `class_` is written class, and `data_step` data-step. None and False leave one out, True leaves its
            value out. There is no style: the page's policy forbids it, and classes do the same.

    Example:
        >>> el("p", "a < b", el("b", 1), class_="note", title='"')
        '<p class="note" title="&quot;">a &lt; b<b>1</b></p>'
    """
    assert "style" not in attributes
    written = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{join(children)}</{tag}>")


def data(content: Any, **attributes: object) -> Markup:
    """Plain data for the page's script, which is never run: inside of a text no `<` can end the tag."""
    written = json.dumps(finite(content), separators=(",", ":"), sort_keys=True).replace("<", "\\u003c")
    return el("script", Markup(written), type="application/json", **attributes)


@dataclass(frozen=True)
class Aside:
    """A number and what is said of it, each in a column of its own, so that the numbers stand below each other."""

    number: object
    words: object


def table(
    head: Iterable[object], rows: Iterable[Iterable[object]], *, words: Collection[int] = (0,), caption: str = ""
) -> Markup:
    """A table that scrolls by itself where the page is too narrow for it.

    Args:
        head: of the columns.
        rows: the first cell of each is its heading.
        words: which columns hold words; the others hold numbers, which end below each other.
        caption: what the table is of, for those who hear it.
    """

    lines = [list(row) for row in rows]
    double = {i for line in lines for i, value in enumerate(line) if isinstance(value, Aside)}

    def cell(tag: str, column: int, value: object, scope: str | None = None) -> Markup:
        if isinstance(value, Aside):
            return join([el(tag, value.number, class_="n"), el(tag, value.words, class_="aside")])
        if column in double:
            return el(tag, value, class_="over", scope=scope, colspan=2)
        return el(tag, value, class_=None if column in words else "n", scope=scope)

    def row(cells: Sequence[object]) -> Markup:
        first = cell("th", 0, cells[0], "row")
        return el("tr", first, *(cell("td", i, value) for i, value in enumerate(cells[1:], 1)))

    heads = el("tr", *(cell("th", i, value, "col") for i, value in enumerate(head)))
    body = el("tbody", *map(row, lines))
    inner = el("table", el("caption", caption) if caption else None, el("thead", heads), body)
    return el("div", inner, class_="scroll", tabindex=0, role="region", aria_label=caption or "table")


def pairs(rows: Iterable[tuple[object, object]]) -> Markup:
    """Names and what stands for them, in two columns."""
    return el("dl", *(join((el("dt", name), el("dd", value))) for name, value in rows))


def note(*words: object) -> Markup:
    """A sentence on what is not shown, and why."""
    return el("p", *words, class_="note")
