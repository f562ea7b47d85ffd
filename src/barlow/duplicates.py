"""`barlow duplicates`: which images of a set are copies of each other, and which test images are in the training set.

Images are compared as thumbnails, mirrored ones too (`barlow.data.near_duplicates`), and where an encoder is named by
its vectors as well; what either takes for copies is told. Thresholds are calibrated on the set itself
(`barlow.data.thresholds`). Nothing is deleted, and nothing is written to the images' folders.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64

from barlow.data import near_duplicates, thresholds
from barlow.data.altered import COPIES
from barlow.data.centre import normalized
from barlow.data.counting import Counted, NowAndThen
from barlow.data.decoding import Array, UnreadableImage
from barlow.data.near_duplicates import Points, clusters_of, join, most_alike_of
from barlow.data.sources import FoldersOrName, open_source
from barlow.data.survey import Survey, survey
from barlow.data.thresholds import Copies, Threshold
from barlow.distributed import choose_device
from barlow.duplicate_report import PIXELS, Duplicates, Group, Leak, Measure, Member
from barlow.encoders import Encoder, Named, find_encoder
from barlow.exits import UnusableData
from barlow.machine import available_cores
from barlow.probes.features import embed
from barlow.telling import unfailing
from barlow.vectors import vectors_of
from barlow.views.keys import permutation
from barlow.wording import in_arguments

ALTERED = 100
"""Images of which copies are made."""

LARGEST = 2_000
"""Members of a group that are compared with all others of it, to say which each is most like."""


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
        encoder: compares images by its vectors too, as `barlow.encoders.find_encoder` takes it. A trained one finds
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
    used = None if encoder is None else find_encoder(encoder, say=say)
    counted = NowAndThen(say)
    one = _read(data, used, "train", batch_size, where, counted)
    two = None if against is None else _read(against, used, "test", batch_size, where, counted)
    measures = _measures(one, used, batch_size, where)
    limits = [thresholds.within(each.points, each.copies, len(measures)) for each in measures]
    groups = _groups(one, measures, limits)
    across: list[Threshold] = []
    leaks: list[Leak] | None = None
    if two is not None:
        others = [Points.of_thumbnails(two.seen.thumbnails)]
        if two.vectors is not None:
            assert one.vectors is not None
            others.append(Points.of_vectors(two.vectors, one.vectors.mean(0)))
        across = [
            thresholds.across(theirs, each.points, each.copies, len(measures))
            for theirs, each in zip(others, measures, strict=True)
        ]
        leaks = _leaks(one, two, measures, others, across)
    return Duplicates(
        images=one.seen.inventory.name,
        searched=len(one),
        skipped=len(one.seen.source) - len(one),
        within=_told(measures, limits),
        groups=groups,
        against=None if two is None else two.seen.inventory.name,
        compared=0 if two is None else len(two),
        across=_told(measures, across),
        leaks=leaks,
    )


@dataclass(frozen=True)
class _Read:
    """A set, and the vectors of its images, if there is an encoder."""

    seen: Survey
    vectors: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.seen)


def _read(
    data: FoldersOrName, encoder: Encoder | None, split: str, batch_size: int, device: str, counted: Counted
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


# --- Measures ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Measure:
    """A way to compare images: those of the set as points, and copies that were made of some of them."""

    name: str
    points: Points
    copies: Copies


def _measures(one: _Read, encoder: Encoder | None, batch_size: int, device: str) -> list[_Measure]:
    """Thumbnails, and the encoder's vectors."""
    rows, images = _some_images(one.seen)
    points = Points.of_thumbnails(one.seen.thumbnails)

    def by_thumbnails() -> Iterator[tuple[str, Points]]:
        for name, altered in COPIES.items():
            made = np.stack([near_duplicates.thumbnail(altered(image)) for image in images])
            yield name, Points.of_thumbnails(made)

    found = [_Measure(PIXELS, points, thresholds.measured(by_thumbnails(), points.take(rows)))]
    if encoder is None or one.vectors is None:
        return found
    used, vectors = encoder, one.vectors
    centre = vectors.mean(0)
    points = Points.of_vectors(vectors, centre)

    def by_vectors() -> Iterator[tuple[str, Points]]:
        for name, altered in COPIES.items():
            centres = [used.preprocessing.centre(altered(image)) for image in images]
            parts = (centres[start : start + batch_size] for start in range(0, len(centres), batch_size))
            batches = (normalized(np.stack(part), used.preprocessing) for part in parts)
            yield name, Points.of_vectors(embed(used.network, batches, device), centre)

    return [*found, _Measure(used.name, points, thresholds.measured(by_vectors(), points.take(rows)))]


def _some_images(seen: Survey) -> tuple[Int64[np.ndarray, "n"], list[Array]]:
    """Some images, drawn at random, of which copies are made."""
    rows, images = [], []
    for row in permutation(0, 1, len(seen))[:ALTERED].tolist():
        try:
            images.append(seen.source.read(int(seen.inventory.ids[row])))
        except UnreadableImage:  # it could be read a while ago
            continue
        rows.append(row)
    if not rows:
        raise UnusableData(f"no image of {seen.inventory.name} can be read any more")
    return np.array(rows, np.int64), images


def _told(measures: list[_Measure], found: list[Threshold]) -> list[Measure]:
    return [
        Measure(each.name, limit.value, limit.found, limit.distinct)
        for each, limit in zip(measures, found, strict=False)
    ]


# --- Groups -----------------------------------------------------------------------------------------------------------


def _groups(one: _Read, measures: list[_Measure], limits: list[Threshold]) -> list[Group]:
    """Images that chains of copies connect, by any of the measures; the largest groups first."""
    roots = near_duplicates.clusters(one.seen.thumbnails, limits[0].value)
    for measure, limit in list(zip(measures, limits, strict=True))[1:]:
        firsts = clusters_of(measure.points, limit.value)
        join(roots, np.arange(len(roots)), firsts)
    numbers, members = np.unique(roots, return_counts=True)
    order = np.lexsort((numbers, -members))
    labels, names = one.seen.labels, one.seen.source.classes
    found = []
    for first in numbers[order][members[order] > 1].tolist():
        rows = np.flatnonzero(roots == first)
        classes = None
        if labels is not None and labels.ndim == 1 and names is not None:
            classes = sorted({names[k] for k in labels[rows]})
        found.append(Group(_members(one, rows, measures, limits), classes))
    return found


def _members(
    one: _Read, rows: Int64[np.ndarray, "m"], measures: list[_Measure], limits: list[Threshold]
) -> list[Member]:
    """The images of a group, each with the one of the group that it is most surely a copy of."""
    among = rows[:LARGEST]
    own = np.where(np.arange(len(rows)) < len(among), np.arange(len(rows)), -1)
    near = [most_alike_of(each.points.take(rows), each.points.take(among), 1, leave_out=own) for each in measures]
    found = []
    for at, row in enumerate(rows.tolist()):
        # How far a similarity is beyond its threshold, as a share of what is left to 1, compares the measures.
        surer = [
            (1 - float(each.similarity[at, 0])) / max(1 - limit.value, 1e-9)
            for each, limit in zip(near, limits, strict=True)
        ]
        best = int(np.argmin(surer))
        alike = near[best]
        found.append(
            Member(
                path=one.seen.place(row),
                like=one.seen.place(int(among[alike.positions[at, 0]])),
                measure=measures[best].name,
                similarity=float(alike.similarity[at, 0]),
                mirrored=bool(alike.mirrored[at, 0]),
            )
        )
    return found


def _leaks(
    one: _Read, two: _Read, measures: list[_Measure], others: list[Points], limits: list[Threshold]
) -> list[Leak]:
    """The test images that are copies of training images, the surest first."""
    found: dict[int, tuple[float, Leak]] = {}
    for measure, theirs, limit in zip(measures, others, limits, strict=True):
        near = most_alike_of(theirs, measure.points)
        for row in np.flatnonzero(near.similarity[:, 0] > limit.value).tolist():
            similarity = float(near.similarity[row, 0])
            sure = (1 - similarity) / max(1 - limit.value, 1e-9)
            leak = Leak(
                test=two.seen.place(row),
                train=one.seen.place(int(near.positions[row, 0])),
                measure=measure.name,
                similarity=similarity,
                mirrored=bool(near.mirrored[row, 0]),
            )
            if row not in found or sure < found[row][0]:
                found[row] = sure, leak
    return [leak for _, leak in sorted(found.values(), key=lambda each: each[0])]
