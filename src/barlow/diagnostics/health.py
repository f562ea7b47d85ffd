"""One word on how a run is doing, from the statistics of its batches, and when that word changes."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from barlow.diagnostics.collapse import concerns

STARTING, HEALTHY, WATCH, COLLAPSED = "starting", "healthy", "watch", "collapsed"

START = 0.1
"""The share of a run that is its start: networks come out of a random state there, and look ill on the way."""

IN_A_ROW = 3
"""So many readings must show the same before it is said: one batch is one draw."""


@dataclass
class Health:
    """Reads the statistics of one batch after the other.

    Args:
        total: steps of the run.
    """

    total: int
    word: str = STARTING
    why: str | None = None
    """What is wrong, in the words of the last reading that showed it."""
    _seen: Counter[str] = field(default_factory=Counter)
    """How many readings in a row have shown each concern."""

    def __str__(self) -> str:
        return self.word + ("" if self.why is None else f": {self.why}")

    def read(
        self, step: int, statistics: Mapping[str, Mapping[str, float]], shapes: Mapping[str, tuple[int, ...]]
    ) -> bool:
        """Takes the statistics of a batch's features, and of its embeddings; returns whether the word has changed.

        Args:
            step: updates done.
            statistics: by name of the output, what `embedding_statistics` returned.
            shapes: by the same name, rows and width.
        """
        now = {
            f"{name}, {line.partition(':')[0]}": f"{name}: {line}"
            for name, found in statistics.items()
            for line in concerns(found, *shapes[name][:2])
        }
        self._seen = Counter({kind: self._seen[kind] + 1 for kind in now})
        lasting = [line for kind, line in now.items() if self._seen[kind] >= IN_A_ROW]
        before = self.word
        if step < START * self.total:
            self.word, self.why = STARTING, None
        elif not lasting:
            waits = before == STARTING and bool(now)  # it may be about to come out of its start
            self.word, self.why = (STARTING if waits else HEALTHY), None
        else:
            collapse = [line for line in lasting if ": collapse:" in line]
            self.word, self.why = (COLLAPSED, collapse[0]) if collapse else (WATCH, lasting[0])
        return self.word != before
