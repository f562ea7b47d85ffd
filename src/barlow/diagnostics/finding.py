"""What the doctor is told of a run beside its log, and what it says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Line = Mapping[str, Any]
"""Of metrics.jsonl."""

SPREAD, DIRECTIONS = "spread", "directions"
"""What a term of an objective keeps of embeddings: images apart, or more than a few directions in use."""


@dataclass(frozen=True)
class About:
    """What the doctor knows of a run beside its log."""

    total: int
    """Steps of the run."""
    peak: float = 0.0
    """The highest rate of its schedule."""
    images: int | None = None
    width: int | None = None
    """Of the embeddings."""
    epochs: float | None = None
    copies: float | None = None
    """Share of the images that are copies of others."""
    spreads_by: str | None = None
    """How its objective keeps embeddings in many directions (`barlow.objectives.spreads_by`); None: it need not."""
    unweighted: tuple[tuple[str, str, float], ...] = ()
    """The settings of its objective that are 0 and by default are not: each with what it keeps, `SPREAD` or
    `DIRECTIONS`, and its default (`barlow.objectives.unweighted`)."""
    moving_target: bool = False
    """Whether its loss may rise while the encoder gets better."""
    from_weights: bool = False
    """Whether the encoder was trained before."""
    past_start: bool = False
    """Whether it is known to be past its start, by lines of its log that are not at hand any more."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    name: str
    evidence: str
    advice: str
    """The one setting to change."""

    def __str__(self) -> str:
        return f"{self.name}: {self.evidence}" + (f"; {self.advice}" if self.advice else "")

    @classmethod
    def of(cls, text: str) -> "Finding":
        """What a log has in words: the reverse of `str`.

        Example:
            >>> Finding.of("head-only collapse: all alike; a lower rate")
            Finding(name='head-only collapse', evidence='all alike', advice='a lower rate')
        """
        name, _, rest = text.partition(": ")
        evidence, _, advice = rest.partition("; ")
        return cls(name, evidence, advice)
