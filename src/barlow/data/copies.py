"""Which images of a set are copies of each other, and which test images are copies of training images.

In two stages, as one measure cannot have both: it is quick enough for all pairs, or it can tell a crop of a photo from
another photo of the same kind.

1. All pairs are compared by thumbnails (`barlow.data.near_duplicates`), or by an encoder's vectors. An image and each
   of the `NEAREST` that are most like it are candidates, if they are more alike than the hardest of the set's own
   altered copies are (`barlow.data.altered`).
2. Candidates are compared in detail (`barlow.data.detail`), where look-alikes have little in common. The threshold is
   calibrated on the set's look-alikes and on its altered copies (`barlow.data.thresholds`).

A candidate takes half a millisecond of a processor. There are at most as many as images, or `PAIRS` in a small set; of
more, those count that are most alike, and how many were left out is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from barlow.data import near_duplicates, thresholds
from barlow.data.altered import COPIES
from barlow.data.detailed import Altered, Details, Rows
from barlow.data.near_duplicates import Alike, Points, flat, join, most_alike_of
from barlow.data.survey import Survey
from barlow.data.thresholds import RANKS, Threshold
from barlow.views.keys import permutation

PIXELS = "pixels"

SAMPLE = 1_000
"""Images whose look-alikes are compared in detail."""

NEAREST = 3
"""So many of the images that are most like one are candidates."""

PAIRS = 5_000
"""So many candidates are compared in any case."""

LOWEST = 0.01
"""The share of altered copies that may be less alike than candidates have to be."""


@dataclass(frozen=True)
class Measure:
    """What proposes candidates.

    Args:
        name: `PIXELS`, or that of an encoder.
        points: of each image of the set, the training images where there are two.
        altered: of the copies, by kind, in the order of `Altered.rows`.
    """

    name: str
    points: Points
    altered: Mapping[str, Points]

    def similar(self, made: Points, originals: Rows) -> Float32[np.ndarray, "n"]:
        """How alike copies and their originals are."""
        own = self.points.take(originals)
        both = (made.even * own.even).sum(1) + (made.odd * own.odd).sum(1).abs()
        return np.asarray(both.numpy(), np.float32)

    @classmethod
    def of_thumbnails(cls, seen: Survey, altered: Altered) -> "Measure":
        """That of thumbnails."""
        made = {
            kind: Points.of_thumbnails(np.stack([near_duplicates.thumbnail(alter(image)) for image in altered.images]))
            for kind, alter in COPIES.items()
        }
        return cls(PIXELS, Points.of_thumbnails(seen.thumbnails), made)


@dataclass(frozen=True)
class Proposed:
    """What one measure did.

    Args:
        name: of the measure.
        floor: candidates are more alike than this, by this measure.
        found: the share of altered copies that are candidates of it and are copies in detail, by kind.
    """

    name: str
    floor: float
    found: dict[str, float]


@dataclass(frozen=True)
class Found:
    """Pairs of images that are copies of each other, the surest first.

    Args:
        one, other: their rows; of two sets that of the test image, and that of the training image.
        measure: which proposed the pair, as a position in `measures`; the first, if several did.
        similarity: in detail.
        mirrored: whether they are more similar when one is mirrored.
        threshold: above which similarity pairs are copies.
        measures: what each measure did.
        compared: how many candidates were compared in detail.
        left: how many were not, as there were too many.
    """

    one: Rows
    other: Rows
    measure: Rows
    similarity: Float32[np.ndarray, "n"]
    mirrored: Bool[np.ndarray, "n"]
    threshold: Threshold
    measures: list[Proposed]
    compared: int
    left: int

    def clusters(self, count: int) -> Rows:
        """Of each of so many images the first one that a chain of copies leads to: its own, where it has no copy."""
        roots = np.arange(count)
        join(roots, self.one, self.other)
        return roots


def within(seen: Survey, measures: Sequence[Measure], altered: Altered, rows: Rows | None = None) -> Found:
    """Copies within a set.

    Args:
        seen: the set.
        measures: what proposes candidates; the first is that of thumbnails.
        altered: images of the set.
        rows: those that are compared with all; all, if not given.
    """
    # Of equal thumbnails the first is compared with others, and the others with it. A film that stands still, or a file
    # that lies there a thousand times, would have nothing but itself among those that are most like it.
    first = _first_of_equal(seen.thumbnails)
    among = np.flatnonzero((first == np.arange(len(first))) & ~flat(seen.thumbnails))
    asked = among if rows is None else np.intersect1d(rows, among)
    own = np.searchsorted(among, asked)
    candidates = [
        _candidates(
            number,
            each,
            asked,
            among,
            most_alike_of(each.points.take(asked), each.points.take(among), NEAREST, leave_out=own),
            first[altered.rows],
        )
        for number, each in enumerate(measures)
    ]
    again = np.flatnonzero((first != np.arange(len(first))) & ~flat(seen.thumbnails))
    again = again if rows is None else np.intersect1d(rows, again)
    equal = _Pairs(first[again], again, np.ones(len(again), np.float32), np.zeros_like(again))
    pairs = _Pairs.joined([equal, *(each.pairs for each in candidates)], same=True)
    return _decided(seen, seen, pairs, candidates, altered)


def across(
    train: Survey,
    test: Survey,
    measures: Sequence[Measure],
    others: Sequence[Points],
    altered: Altered,
    rows: Rows | None = None,
) -> Found:
    """Copies of training images among test images.

    Args:
        train, test: the sets.
        measures: what proposes candidates, with the training images.
        others: the test images, as each measure sees them.
        altered: images of the training set.
        rows: of the test images that are compared; all, if not given.
    """
    first = _first_of_equal(train.thumbnails)
    among = np.flatnonzero((first == np.arange(len(first))) & ~flat(train.thumbnails))
    asked = np.flatnonzero(~flat(test.thumbnails))
    asked = asked if rows is None else np.intersect1d(rows, asked)
    candidates = [
        _candidates(
            number,
            each,
            asked,
            among,
            most_alike_of(theirs.take(asked), each.points.take(among), NEAREST),
            first[altered.rows],
        )
        for number, (each, theirs) in enumerate(zip(measures, others, strict=True))
    ]
    pairs = _Pairs.joined([each.pairs for each in candidates], same=False)
    return _decided(test, train, pairs, candidates, altered)


# --- Candidates -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pairs:
    """Pairs of rows, how alike they are by the measure that proposes them, and which it is."""

    one: Rows
    other: Rows
    similarity: Float32[np.ndarray, "n"]
    measure: Rows

    @classmethod
    def joined(cls, parts: Sequence["_Pairs"], *, same: bool) -> "_Pairs":
        """All pairs, each once, the most alike first. Of the same set, the order in a pair does not count."""
        one, other, similarity, measure = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("one", "other", "similarity", "measure")
        )
        if same:
            one, other = np.minimum(one, other), np.maximum(one, other)
        _, once = np.unique(np.stack([one, other], axis=1), axis=0, return_index=True)
        return cls(one, other, similarity, measure).take(once[np.argsort(-similarity[once], kind="stable")])

    def take(self, places: Rows) -> "_Pairs":
        return _Pairs(self.one[places], self.other[places], self.similarity[places], self.measure[places])


@dataclass(frozen=True)
class _Candidates:
    """What one measure proposes.

    Args:
        name: of the measure.
        floor: how alike candidates are at least.
        pairs: the candidates.
        look_alikes: pairs of some images and the `RANKS` that are most like each, whether they are candidates or not.
        proposed: by kind of altered copy, which of them would be candidates.
    """

    name: str
    floor: float
    pairs: _Pairs
    look_alikes: tuple[Rows, Rows]
    proposed: dict[str, Bool[np.ndarray, "n"]]


def _candidates(number: int, measure: Measure, asked: Rows, among: Rows, alike: Alike, originals: Rows) -> _Candidates:
    """What a measure proposes.

    Args:
        number: of the measure.
        measure: it.
        asked: rows that are compared.
        among: rows that they are compared with.
        alike: the images that are most like each, as positions in `among`.
        originals: of each image that was altered the row in `among` that stands for it.
    """
    own = {kind: measure.similar(made, originals) for kind, made in measure.altered.items()}
    floor = max(float(np.quantile(np.concatenate(list(own.values())), LOWEST)), 0.0)
    one, other = np.repeat(asked[:, None], alike.positions.shape[1], axis=1), among[alike.positions]
    near = alike.similarity > floor
    some = permutation(0, 0, len(asked))[:SAMPLE] if len(asked) else slice(None)
    searched = measure.points.take(among)
    proposed = {}
    for kind, made in measure.altered.items():
        places = most_alike_of(made, searched, NEAREST).positions
        proposed[kind] = (among[places] == originals[:, None]).any(axis=1) & (own[kind] > floor)
    return _Candidates(
        name=measure.name,
        floor=floor,
        pairs=_Pairs(one[near], other[near], alike.similarity[near], np.full(int(near.sum()), number)),
        look_alikes=(one[some, :RANKS].ravel(), other[some, :RANKS].ravel()),
        proposed=proposed,
    )


def _first_of_equal(thumbnails: UInt8[np.ndarray, "n side side"]) -> Rows:
    """Of each image the first that has the same thumbnail."""
    rows = thumbnails.reshape(len(thumbnails), -1)
    _, first, same = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return np.asarray(first[same.reshape(-1)], np.int64)


# --- In detail --------------------------------------------------------------------------------------------------------


def _decided(one: Survey, other: Survey, pairs: _Pairs, candidates: Sequence[_Candidates], altered: Altered) -> Found:
    """Which candidates are copies."""
    kept = pairs.take(np.arange(min(len(pairs.one), max(PAIRS, len(one)))))
    looks, likes = (np.concatenate([each.look_alikes[k] for each in candidates]) for k in (0, 1))
    details = Details.of(
        one, np.concatenate([kept.one, looks]), other, np.concatenate([kept.other, likes, altered.rows])
    )
    copies = details.of_copies(altered)
    threshold = thresholds.calibrated(details.compared(looks, likes)[0], copies, len(candidates))
    similarity, mirrored = details.compared(kept.one, kept.other)
    sure = np.argsort(-similarity, kind="stable")[: int((similarity > threshold.value).sum())]
    found = kept.take(sure)
    return Found(
        one=found.one,
        other=found.other,
        measure=found.measure,
        similarity=similarity[sure],
        mirrored=mirrored[sure],
        threshold=threshold,
        measures=[
            Proposed(
                each.name,
                each.floor,
                {kind: float((own & (copies[kind] > threshold.value)).mean()) for kind, own in each.proposed.items()},
            )
            for each in candidates
        ],
        compared=len(kept.one),
        left=len(pairs.one) - len(kept.one),
    )
