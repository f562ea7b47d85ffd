"""What a search found: how well the training images are ordered by their likeness to each test image."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from barlow.probes.average_precision import by_chance
from barlow.probes.intervals import Difference, Score, bootstrap, paired, wilson

DEPTHS = (1, 5, 10)
"""Recall is reported among so many images that were found."""


@dataclass(frozen=True)
class Ranked:
    """How well the search of each test image went, for whatever class it may be of.

    The labels of the test images were not known when it was made; they only say which column counts.

    Args:
        precision: for each test image and class, the average precision of its search, if the images of that class are
            what it should find.
        first: for each test image and class, the place, from 1, of the first image of the class.
        classes: the class number of each column, ascending, or None where an image may have several labels.
        notes: for the record.
        right: of the images that are searched, how many have each class. None in what an earlier version kept.
        searched: how many those are; of a label, how many of them are judged. None likewise.
    """

    precision: Float64[np.ndarray, "n k"]
    first: Int64[np.ndarray, "n k"]
    classes: Int64[np.ndarray, "k"] | None
    notes: Mapping[str, Any] = field(default_factory=dict)
    right: Int64[np.ndarray, "k"] | None = None
    searched: Int64[np.ndarray, "k"] | None = None

    def chance(self, labels: np.ndarray) -> float | None:
        """`map` of an encoder that knows nothing: that of a search in random order, exactly (`by_chance`). Queries of
        frequent classes find much by chance.

        Example: of very many images nine in ten have the label "street", one in ten has "boat". Of ten queries nine are
        for "street" and find 0.9 by chance; so chance is 0.82, though the mean share is 0.5.
        """
        if self.right is None or self.searched is None:
            return None
        of_classes = [by_chance(int(right), int(n)) for right, n in zip(self.right, self.searched, strict=True)]
        random = replace(self, precision=np.broadcast_to(np.array(of_classes), self.precision.shape))
        return float(random._of_each(labels)["map"].mean())

    def measured(self, labels: np.ndarray) -> dict[str, Score]:
        """`map` with a bootstrap interval over the test images, and `recall_at_1`, `_5` and `_10` with Wilson's."""
        values = self._of_each(labels)
        found = {"map": _mean(values.pop("map"))}
        if self.classes is None:
            return found | {name: _mean(each) for name, each in values.items()}
        return found | {name: wilson(int(each.sum()), len(each)) for name, each in values.items()}

    def compared(self, other: "Ranked", labels: np.ndarray) -> dict[str, Difference]:
        """The differences, paired image by image."""
        mine, theirs = self._of_each(labels), other._of_each(labels)
        found = {}
        for name, values in mine.items():
            if name == "map" or self.classes is None:
                gain = _mean(values - theirs[name])
                found[name] = Difference(gain.value, gain.low, gain.high, gain.n)
            else:
                found[name] = paired(values > 0, theirs[name] > 0)
        return found

    def _of_each(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Every metric of each test image that has a label, (m,).

        An image of several labels counts with the mean over its labels. A class that the training set lacks cannot be
        found: 0.
        """
        if self.classes is not None:
            columns = np.searchsorted(self.classes, labels).clip(max=len(self.classes) - 1)
            known, rows = self.classes[columns] == labels, np.arange(len(labels))
            precision = np.where(known, self.precision[rows, columns], 0.0)
            first = np.where(known, self.first[rows, columns], np.iinfo(np.int64).max)
            return {"map": precision} | {f"recall_at_{k}": (first <= k).astype(np.float64) for k in DEPTHS}
        wanted = labels == 1
        some = wanted.any(axis=1)
        if not some.any():
            raise ValueError("no test image has any label, so there is nothing to find; check the test labels")
        share = wanted[some] / wanted[some].sum(axis=1, keepdims=True)
        found = {"map": (self.precision[some] * share).sum(axis=1)}
        return found | {f"recall_at_{k}": ((self.first[some] <= k) * share).sum(axis=1) for k in DEPTHS}


def _mean(values: np.ndarray) -> Score:
    value = float(values.mean())
    low, high = bootstrap(lambda counts: counts @ values / len(values), len(values))
    return Score(value, min(low, value), max(high, value), len(values))
