"""A report as one HTML file: whole in itself, and allowed by its own policy to fetch nothing."""

import base64
import hashlib
from collections.abc import Callable, Sequence

from barlow import __version__
from barlow.printable import one_line
from barlow.report.charts import asset
from barlow.report.markup import Markup, el, join
from barlow.report.part import Part, missing

BROKEN = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What a part may fail with, on files that are not what they should be."""


def made(name: str, title: str, part: Callable[[], Part], say: Callable[[str], None]) -> Part:
    """A part; where it cannot be made, one that says why. A report of a damaged run still shows the rest."""
    try:
        return part()
    except BROKEN as error:
        why = f"This part could not be made ({one_line(error)})."
        say(f"{title}: {why}")
        return missing(name, title, why)


def page(
    title: str, subtitle: object, parts: Sequence[Part], style: str = "", made_from: str = "the run's folder"
) -> str:
    """The whole file.

    Args:
        title: of the page.
        subtitle: a line below it.
        parts: in their order.
        style: further rules: the thumbnails, whose places are known only now.
        made_from: what it shows, for its last line.
    """
    rules, script = asset("figures.css") + asset("page.css") + style, asset("page.js")
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(rules)}'; script-src '{_hash(script)}'"
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=Markup(policy)),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{title} – barlow"),
        el("style", Markup(rules)),
    )
    links = el("nav", *(el("a", part.title, href=f"#{part.name}") for part in parts), aria_label="parts")
    body = el(
        "body",
        el("header", el("h1", title), el("p", subtitle)),
        links,
        el("main", *map(_section, parts)),
        el("footer", f"Made by barlow {__version__} from {made_from}. It needs no network, and no other file."),
        el("div", id="tip", hidden=True, role="status"),
        el("script", Markup(script)),
    )
    return f"<!doctype html>\n{el('html', head, body, lang='en')}\n"


def _section(part: Part) -> Markup:
    how = el("p", part.how, class_="how") if part.how else None
    return el("section", join([el("h2", part.title), how, part.body]), id=part.name)


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
