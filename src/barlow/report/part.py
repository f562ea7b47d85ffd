"""A part of a report: what it shows, and the sentence that says how it is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from barlow.report.markup import Markup, note


@dataclass(frozen=True)
class Part:
    """A section of the page."""

    name: str
    """Its anchor, and what the files of its figures begin with."""
    title: str
    body: Markup
    how: str = ""
    """One sentence on how it is read."""
    figures: Mapping[str, bytes] = field(default_factory=dict)
    """Its pictures as files, by their names: SVG or PNG."""


def missing(name: str, title: str, words: str) -> Part:
    """A part that a run has nothing for: one sentence says what is missing, and which command gives it."""
    return Part(name, title, note(words))
