"""A toy without state that asks for labels: a classifier."""

from dataclasses import dataclass

from barlow.objectives._classification import Classes, Logits, cross_entropy
from barlow.types import Terms

__all__ = ["Labelled"]


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The label should be the likeliest class."""

    weight: float = 1.0

    def __call__(self, logits: Logits, *, labels: Classes) -> Terms:
        return {"cross_entropy": self.weight * cross_entropy(logits, labels, name="labels")}
