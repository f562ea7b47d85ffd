"""Near-duplicates within a set and between two sets, as `barlow check` tells them: found by `barlow.data.copies`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from barlow.checks.set_report import Near
from barlow.data import copies, image_digests
from barlow.data.copies import Found, Measure
from barlow.data.detailed import Altered
from barlow.data.near_duplicates import SIDE, Points
from barlow.data.survey import Survey
from barlow.printable import printable
from barlow.views.keys import permutation

MOST_PAIRS = 10**10
"""So many pairs of images are compared: all of 100,000 images. Of larger sets as many images as that allows, drawn at
random, are compared with all others."""

EXAMPLES = 20
"""Groups of near-duplicates, or test images in training, that the plain data shows; and `OF_A_GROUP` of each."""

OF_A_GROUP = 8


@dataclass(frozen=True)
class Alike:
    """Near-duplicates of a set: which images were compared with all, and what was found.

    Args:
        rows: all of most sets; some of one that is too large, and none where images are too small.
        found: the pairs; None where no image was compared.
        firsts: the clusters; None where not all were compared.
    """

    rows: NDArray[np.int64]
    found: Found | None
    firsts: NDArray[np.int64] | None

    @classmethod
    def of(cls, seen: Survey) -> "Alike":
        compared = _compared(seen)
        rows = np.sort(np.asarray(permutation(0, 0, len(seen))[:compared], np.int64))
        if not compared:
            return cls(rows, None, None)
        altered = Altered.of(seen)
        found = copies.within(seen, [Measure.of_thumbnails(seen, altered)], altered, rows)
        return cls(rows, found, found.clusters(len(seen)) if compared == len(seen) else None)


def _compared(seen: Survey) -> int:
    """How many images of a set are compared with all of it: none where most have fewer pixels than a thumbnail."""
    if np.median(seen.sizes.min(axis=1)) < SIDE:
        return 0
    return min(len(seen), max(1, MOST_PAIRS // len(seen)))


def finds(found: Found | None) -> dict[str, float] | None:
    """The share of altered copies that is found by thumbnails, by kind; None where no image was compared."""
    return None if found is None else found.measures[0].found


def near(seen: Survey, alike: Alike) -> Near:
    """What is told of a set."""
    return _near_in_sample(seen, alike) if alike.firsts is None else _near_in_all(seen, alike, alike.firsts)


def _near_in_all(seen: Survey, alike: Alike, firsts: NDArray[np.int64]) -> Near:
    numbers, members = np.unique(firsts, return_counts=True)
    order = np.lexsort((numbers, -members))  # the largest first
    several = [int(numbers[k]) for k in order if members[k] > 1]
    across = None
    if seen.labels is not None and seen.labels.ndim == 1:
        pairs = np.unique(np.stack([firsts, seen.labels], axis=1), axis=0)
        across = int((np.unique(pairs[:, 0], return_counts=True)[1] > 1).sum())
    return Near(
        alike=None if alike.found is None else alike.found.threshold.value,
        found=finds(alike.found),
        images=int(members[members > 1].sum()),
        clusters=len(several),
        largest=int(members.max()),
        across_classes=across,
        compared=len(seen),
        examples=[
            [printable(seen.place(int(row))) for row in np.flatnonzero(firsts == first)[:OF_A_GROUP]]
            for first in several[:EXAMPLES]
        ],
    )


def _near_in_sample(seen: Survey, alike: Alike) -> Near:
    """Of a set too large for all pairs: how many of some images have a near-duplicate among all. Of images that are too
    small none are compared."""
    found = alike.found
    # In one pair or another, once; and in each pair of examples the image that was compared with all comes first.
    pairs = [] if found is None else [*zip(found.one.tolist(), found.other.tolist(), strict=True)]
    compared = set(alike.rows.tolist())
    like: dict[int, int] = {}
    for one, other in pairs:
        for row, twin in ((one, other), (other, one)):
            if row in compared:
                like.setdefault(row, twin)
    return Near(
        alike=None if found is None else found.threshold.value,
        found=finds(found),
        images=len(like),
        clusters=None,
        largest=None,
        across_classes=None,
        compared=len(alike.rows),
        examples=[[printable(seen.place(row)) for row in pair] for pair in sorted(like.items())[:EXAMPLES]],
    )


@dataclass(frozen=True)
class Overlap:
    """Of the test images.

    Args:
        compared: how many were compared with the training images.
        near: how many of these are copies or near-duplicates of training images.
        found: the pairs, the most similar first; None where no image was compared.
    """

    compared: int
    near: int
    found: Found | None

    @classmethod
    def of(cls, train: Survey, test: Survey) -> "Overlap":
        compared = min(len(test), max(1, MOST_PAIRS // len(train))) if _compared(train) and _compared(test) else 0
        rows = np.sort(np.asarray(permutation(0, 0, len(test))[:compared], np.int64))
        whole = test.inventory.digests[rows, 1]
        near = rows[(whole != image_digests.UNKNOWN) & np.isin(whole, train.inventory.digests[:, 1])]
        if not compared:
            return cls(0, 0, None)
        altered = Altered.of(train)
        measures, others = [Measure.of_thumbnails(train, altered)], [Points.of_thumbnails(test.thumbnails)]
        found = copies.across(train, test, measures, others, altered, rows)
        return cls(compared, len(np.union1d(near, found.one)), found)

    @property
    def pairs(self) -> list[tuple[int, int, int]]:
        """Of each near-duplicate the place of its surest pair in `found`, and the rows of the test image and of the
        training image. (Copies without contrast are in no pair.)"""
        if self.found is None:
            return []
        surest = np.sort(np.unique(self.found.one, return_index=True)[1]).tolist()
        return [(place, int(self.found.one[place]), int(self.found.other[place])) for place in surest]
