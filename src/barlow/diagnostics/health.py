"""One word on how a run is doing, from what the doctor finds in its log, and when that word changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from barlow.diagnostics.doctor import EARLY, OPENING, POOLED, examine, started
from barlow.diagnostics.finding import About, Finding

STARTING, HEALTHY, WATCH, COLLAPSED = "starting", "healthy", "watch", "collapsed"

DIVERGED = "diverged"
"""The word in the last line of a run that ended because its numbers were none any more."""

WORDS = (STARTING, HEALTHY, WATCH, COLLAPSED, DIVERGED)


@dataclass
class Health:
    """Reads one line of a log after the other.

    Args:
        about: the run. What the doctor says of its facts alone is no matter of health.
    """

    about: About
    word: str = STARTING
    why: str | None = None
    """What is wrong."""
    lines: int = 0
    """How many lines in a row have had this word."""
    _lines: list[Mapping[str, Any]] = field(default_factory=list)
    """The first and the newest ones, and those that told of a part without gradient."""

    def __str__(self) -> str:
        return self.word + ("" if self.why is None else f": {self.why}")

    def read(self, line: Mapping[str, Any]) -> bool:
        """Takes a line of metrics.jsonl; returns whether the word has changed."""
        if line.get(OPENING):
            return False
        self._lines.append(line)
        if len(self._lines) > EARLY + POOLED + 1 and not self._lines[EARLY].get("without_gradient"):
            del self._lines[EARLY]
        self.about = replace(self.about, past_start=started(self._lines, self.about))
        found, before = examine(self._lines, self.about), self.word
        if found:
            self.word, self.why = word_of(found[0]), str(found[0])
        else:
            self.word, self.why = (HEALTHY if self.about.past_start else STARTING), None
        self.lines = self.lines + 1 if self.word == before else 1
        return self.word != before

    def recall(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Takes the lines that a run had before it was gone on with, so that it is judged as if it had not stopped.

        Of a long log those are read by which anything is told: its first and its newest ones, and those that told of a
        part without gradient.
        """
        lines = [line for line in lines if not line.get(OPENING)]
        self.about = replace(self.about, past_start=started(lines, self.about))
        newest = max(len(lines) - 2 * POOLED, EARLY)
        for number, line in enumerate(lines):
            if number < EARLY or number >= newest or line.get("without_gradient"):
                self.read(line)


def word_of(finding: Finding) -> str:
    """The word on a run that has this."""
    return COLLAPSED if finding.name.endswith("collapse") else WATCH
