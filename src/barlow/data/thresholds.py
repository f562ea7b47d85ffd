"""From which similarity in detail on two images of a set are copies of each other: calibrated on the set's own pairs.

A constant would be wrong for many sets. Photos of different things that look alike from afar have a similarity of 0.3
in detail (`barlow.data.detail`), slices of different heads one of 0.8.

**Look-alikes.** Of some images the two that are most like each, by the measure that proposes pairs, are compared in
detail. Few of these pairs are copies, and all are what a look-alike is at its worst. The share of them that is more
similar than s falls, far out, as a power of 1 − s. That power is fitted to the `TAIL` that is most similar, and
followed to where it promises `FALSE` pairs for each image.

**Copies.** Some of the set's own images are altered (`barlow.data.altered`), and compared with themselves. What nearly
all copies of a kind reach is the mark of that kind. Where even crops, which are found hardest, are more similar than
the threshold, it is moved half of the way to their mark: fewer pairs are then taken for copies that are not, and nearly
no copy is missed. Where they are not, as among the slices of a scan, crops are given up, and the next kind counts.

**A set that is full of copies** has copies among the pairs that are most alike, too. They are far from look-alikes, so
that there is a valley between them (`without_copies`), below the mark of one kind or another. What is beyond the valley
is left out. Where there is no valley, nobody can say which pairs are copies, and all count: the threshold is close to
1, and little is found.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

FALSE = 1 / 200
"""False pairs that are promised for each image, of all measures together: five of a thousand images."""

RANKS = 2
"""So many of the images that are most like each are its look-alikes."""

TAIL, LEAST = 0.05, 10
"""The share of look-alikes to which the power is fitted, and of how many at least."""

FEWEST = 20
"""Of fewer images there is nothing to be learned."""

HARDEST = 0.05
"""The share of copies of a kind that are less similar than its mark."""

VALLEY, FEW = 0.2, 2
"""So many pairs may lie in the valley between look-alikes and copies: a share of those beyond it, and a few. Where
look-alikes go on, there are many times as many in the valley as beyond it."""

TELLS = 0.5
"""The share of altered copies, of all kinds together, that has to be found so that images without copies can be told
from images that are too alike."""

CLOSEST = 1e-5
"""1 − s below which similarities are rounding."""

Similarities = Float[np.ndarray, "n"]


@dataclass(frozen=True)
class Threshold:
    """From which similarity in detail on two images are copies.

    Args:
        value: above which they are.
        distinct: what look-alikes alone would give; None where there were too few.
    """

    value: float
    distinct: float | None


def calibrated(look_alikes: Similarities, copies: Mapping[str, Similarities], measures: int = 1) -> Threshold:
    """The threshold.

    Args:
        look_alikes: the similarities of the pairs that are most alike, `RANKS` of each of some images.
        copies: those of some images and copies that were made of them, by kind.
        measures: among how many the false pairs are divided.
    """
    marks = sorted(min(float(np.quantile(each, HARDEST)), 1 - CLOSEST) for each in copies.values())
    distinct = _tail(without_copies(look_alikes, marks), FALSE / RANKS / measures)
    if distinct is None:
        return Threshold(marks[0], None)
    reached = [mark for mark in marks if mark > distinct]
    return Threshold(1 - math.sqrt((1 - distinct) * (1 - reached[0])) if reached else distinct, distinct)


def without_copies(pairs: Similarities, marks: Sequence[float]) -> Similarities:
    """Those that are no copies: below the first valley, if there is any.

    In 1 − s, a valley is from a mark to twice as far. It is none where it would reach down to similarities of 0.
    """
    for mark in marks:
        if mark <= 0.5:
            continue
        copies, beyond = pairs > mark, pairs > 1 - 2 * (1 - mark)
        if beyond.sum() - copies.sum() <= VALLEY * copies.sum() + FEW:
            return pairs[~beyond]
    return pairs


def _tail(pairs: Similarities, share: float) -> float | None:
    """The similarity above which so small a share of look-alikes is expected; None where that cannot be said."""
    if len(pairs) < RANKS * FEWEST:
        return None
    rising = np.sort(-np.log(np.maximum(1 - pairs, CLOSEST)))
    count = max(LEAST, round(TAIL * len(rising)))
    begins = float(rising[-count - 1])
    exponent = 1 / max(float((rising[-count:] - begins).mean()), 1e-9)
    return 1 - math.exp(-(begins + math.log(count / len(rising) / share) / exponent))


def can_tell(found: Iterable[Mapping[str, float]]) -> bool:
    """Whether images in which no copies were found can be said to have none.

    Args:
        found: by each measure, the share of altered copies that it finds, by kind.

    Example:
        >>> can_tell([{"smaller": 1.0, "cropped": 0.1}]), can_tell([{"smaller": 0.0, "cropped": 0.02}])
        (True, False)
    """
    return any(sum(each.values()) >= TELLS * len(each) for each in found)


def shares(found: Mapping[str, float]) -> str:
    """As in `smaller 100 %, cropped 87 %`."""
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in found.items())
