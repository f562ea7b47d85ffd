"""`barlow duplicates`: which images of a set are copies of each other, and which test images are in the training set.

Thumbnails propose pairs, mirrored ones too, and where an encoder is named its vectors as well; which of these pairs are
copies is decided in detail (`barlow.data.copies`). Nothing is deleted, and nothing is written to the images' folders.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from barlow.data import copies
from barlow.data.altered import COPIES
from barlow.data.centre import normalized
from barlow.data.copies import Altered, Found
from barlow.data.counting import Counted, NowAndThen
from barlow.data.near_duplicates import Points
from barlow.data.sources import FoldersOrName, open_source
from barlow.data.survey import Survey, survey
from barlow.distributed import choose_device
from barlow.encoders import FoundEncoder, Named, find_encoder
from barlow.exits import UnusableData
from barlow.features.duplicate_report import Comparison, Duplicates, Group, Leak, Measure, Member
from barlow.features.vectors import vectors_of
from barlow.machine import available_cores
from barlow.probes.features import embed
from barlow.telling import unfailing
from barlow.wording import in_arguments


@in_arguments
def duplicates(
    data: FoldersOrName,
    against: FoldersOrName | None = None,
    *,
    encoder: Named | None = None,
    batch_size: int = 64,
    device: str = "auto",
    tell: Callable[[str], None] | None = None,
) -> Duplicates:
    """Finds images of a set that are copies of each other, though their files differ.

    All pairs are compared, so that the time grows with the square of the number of images.

    Args:
        data: a folder of images, several, or the name of a set.
        against: test images: which of them are copies of images of `data`?
        encoder: proposes pairs by its vectors too, as `barlow.encoders.find_encoder` takes it. A trained one proposes
            crops that thumbnails miss.
        batch_size: images per forward pass.
        device: cpu, cuda, mps or auto.
        tell: receives messages of one line.

    Returns:
        Groups, and the test images that are in `data`; `text()` for people, `as_dict()` and `rows()` for programs.

    Raises:
        NoInput: there is no such folder, set or encoder.
        UnusableData: no image can be read.
        ValueError: a value is not allowed.
    """
    say = unfailing(tell)
    if batch_size < 1:
        raise ValueError(f"--batch-size {batch_size}: give 1 or more")
    where = str(choose_device(device))
    used = None if encoder is None else find_encoder(encoder, taken="nothing", say=say)
    counted = NowAndThen(say)
    one = _read(data, used, "train", batch_size, where, counted)
    two = None if against is None else _read(against, used, "test", batch_size, where, counted)
    altered = Altered.of(one.seen)
    measures = [copies.Measure.of_thumbnails(one.seen, altered)]
    if used is not None and one.vectors is not None:
        measures.append(_by_vectors(used, one.vectors, altered, batch_size, where))
    found = copies.within(one.seen, measures, altered)
    between = None
    if two is not None:
        others = [Points.of_thumbnails(two.seen.thumbnails)]
        if one.vectors is not None and two.vectors is not None:
            others.append(Points.of_vectors(two.vectors, one.vectors.mean(0)))
        between = copies.across(one.seen, two.seen, measures, others, altered)
    return Duplicates(
        images=one.seen.inventory.name,
        searched=len(one),
        skipped=len(one.seen.source) - len(one),
        within=_told(found),
        groups=_groups(one.seen, found),
        against=None if two is None else two.seen.inventory.name,
        compared=0 if two is None else len(two),
        across=None if between is None else _told(between),
        leaks=None if two is None or between is None else _leaks(one.seen, two.seen, between),
    )


@dataclass(frozen=True)
class _Read:
    """A set, and the vectors of its images, if there is an encoder."""

    seen: Survey
    vectors: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.seen)


def _read(
    data: FoldersOrName, encoder: FoundEncoder | None, split: str, batch_size: int, device: str, counted: Counted
) -> _Read:
    channels = 3 if encoder is None else encoder.preprocessing.channels
    ends = None if encoder is None else encoder.preprocessing.value_range
    source = open_source(data, split=split, channels=channels, value_range=ends, counted=counted)
    seen = survey(source, workers=available_cores(), counted=counted)
    if encoder is None:
        return _Read(seen, None)
    ids = seen.inventory.ids
    found = vectors_of(encoder, source, ids=ids, device=device, batch_size=batch_size, counted=counted)
    if len(found) < len(ids):
        raise UnusableData(f"{len(ids) - len(found)} images of {source.name} could be read before, and now cannot be")
    return _Read(seen, found.vectors)


def _by_vectors(
    encoder: FoundEncoder, vectors: torch.Tensor, altered: Altered, batch_size: int, device: str
) -> copies.Measure:
    """The measure of an encoder."""
    centre = vectors.mean(0)
    made = {}
    for kind, alter in COPIES.items():
        centres = [encoder.preprocessing.centre(alter(image)) for image in altered.images]
        parts = (centres[start : start + batch_size] for start in range(0, len(centres), batch_size))
        batches = (normalized(np.stack(part), encoder.preprocessing) for part in parts)
        made[kind] = Points.of_vectors(embed(encoder.network, batches, device), centre)
    return copies.Measure(encoder.name, Points.of_vectors(vectors, centre), made)


# --- What is told -----------------------------------------------------------------------------------------------------


def _told(found: Found) -> Comparison:
    return Comparison(
        threshold=found.threshold.value,
        distinct=found.threshold.distinct,
        measures=[Measure(each.name, each.floor, each.found) for each in found.measures],
        compared=found.compared,
        left=found.left,
    )


def _groups(seen: Survey, found: Found) -> list[Group]:
    """Images that chains of copies connect; the largest groups first."""
    roots = found.clusters(len(seen))
    numbers, members = np.unique(roots, return_counts=True)
    order = np.lexsort((numbers, -members))
    surest: dict[int, int] = {}  # of each image that has a copy, the first of its pairs: they are in order
    for pair, both in enumerate(zip(found.one.tolist(), found.other.tolist(), strict=True)):
        for row in both:
            surest.setdefault(row, pair)
    labels, names = seen.labels, seen.source.classes
    groups = []
    for first in numbers[order][members[order] > 1].tolist():
        rows = np.flatnonzero(roots == first)
        classes = None
        if labels is not None and labels.ndim == 1 and names is not None:
            classes = sorted({names[k] for k in labels[rows]})
        groups.append(Group([_member(seen, found, row, surest[row]) for row in rows.tolist()], classes))
    return groups


def _member(seen: Survey, found: Found, row: int, pair: int) -> Member:
    """An image of a group, with the one that it is most surely a copy of."""
    like = int(found.one[pair] + found.other[pair]) - row
    return Member(
        path=seen.place(row),
        like=seen.place(like),
        measure=found.measures[found.measure[pair]].name,
        similarity=float(found.similarity[pair]),
        mirrored=bool(found.mirrored[pair]),
    )


def _leaks(one: Survey, two: Survey, found: Found) -> list[Leak]:
    """The test images that are copies of training images, the surest first, each with one of these."""
    _, firsts = np.unique(found.one, return_index=True)
    return [
        Leak(
            test=two.place(int(found.one[pair])),
            train=one.place(int(found.other[pair])),
            measure=found.measures[found.measure[pair]].name,
            similarity=float(found.similarity[pair]),
            mirrored=bool(found.mirrored[pair]),
        )
        for pair in np.sort(firsts).tolist()
    ]
