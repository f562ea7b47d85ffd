"""Which images can be read, found out before training starts."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from barlow.data import image_digests
from barlow.data.counting import Counted, not_shown, over
from barlow.data.decoded import colourless
from barlow.data.decoding import Array, Header, UnreadableImage
from barlow.data.folder import FolderSource
from barlow.data.last_words import kept_from_the_screen
from barlow.data.sources import ImageSource
from barlow.exits import UnusableData
from barlow.printable import printable
from barlow.seals import sha256
from barlow.views.keys import permutation
from barlow.wording import percent

SAMPLE = 1_000
"""How many images of a large set are decoded in full. If one image in 330 is bad, such a sample has at least one of the
bad ones with a probability of 95 %."""


class TooManyUnreadable(UnusableData):
    """More images cannot be read than a user allows; `report` has the list of them, for a file."""

    def __init__(self, message: str, report: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.report = dict(report)


def kind_of(reason: str) -> str:
    """What reasons of one kind have in common: no numbers, and nothing that comes behind the first words."""
    return re.sub(r"\d[\d,.]*", "…", re.split(r"[:;(]", reason)[0]).strip()


def counts(reasons: Mapping[str, int]) -> str:
    """The most frequent kinds of reasons in a few words."""
    few = [f"{count} {kind}" for kind, count in list(reasons.items())[:3]]
    left = len(reasons) - len(few)
    return ", ".join(few) + (f", {left} other kinds" if left else "")


@dataclass(frozen=True)
class Inventory:
    """The images of a source that can be read, and the list of those that cannot.

    Args:
        name: of the source.
        candidates: number of its images, readable or not.
        ids: the readable images. An id is a position in the source, so it stays the same when another file is skipped.
        skipped: id, place and reason of each image that cannot be read.
        sizes: height and width of the images that were looked at: of a folder all, of other sources a sample.
        decoded: how many images were decoded in full.
        bad_fraction: the share of images that cannot be read; estimated if only a sample was decoded.
        multiframe: how many images have several frames, of which only the first is used.
        grey: whether no image that was decoded has any colour.
        fingerprint: changes when their names or sizes do.
        digests: of the readable images (`barlow.data.image_digests`); 0 of one that was not read, as of a set without
            files of which only a sample was.
        extensions: number of files by the ending of their names.
        classes: number of readable images by the name of their class.
        notes: anything else that is odd about the source.
        transparent: how many images have an alpha channel or a transparent colour, and are composited.
        deep: how many images have more than 8 bits, signs or fractions.
    """

    name: str
    candidates: int
    ids: NDArray[np.int64]
    skipped: list[tuple[int, str, str]]
    sizes: NDArray[np.int64]
    decoded: int
    bad_fraction: float
    multiframe: int
    grey: bool
    fingerprint: str
    digests: image_digests.Digests = field(default_factory=lambda: image_digests.none_yet(0))
    extensions: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)
    transparent: int = 0
    deep: int = 0

    @property
    def median_size(self) -> tuple[int, int]:
        """The median of the heights and the median of the widths."""
        height, width = np.median(self.sizes, axis=0) if len(self.sizes) else (0, 0)
        return int(height), int(width)

    @property
    def reasons(self) -> dict[str, int]:
        """How many images cannot be read by the kind of reason, the most frequent first."""
        return dict(Counter(kind_of(reason) for _, _, reason in self.skipped).most_common())

    def check(self, max_bad: float) -> None:
        """Stops a run that would train on fewer images than the user thinks.

        Raises:
            TooManyUnreadable: a larger share than `max_bad` cannot be read, or no image can.
        """
        if len(self.ids) and self.bad_fraction <= max_bad:
            return
        examples = "; ".join(f"{printable(where)}: {reason}" for _, where, reason in self.skipped[:1])
        found = f"{len(self.skipped)} of {self.candidates} images of {self.name} cannot be read"
        if not len(self.ids):
            raise TooManyUnreadable(f"{found} ({examples}): give a folder with readable images", self.as_dict())
        estimate = "" if self.decoded >= self.candidates else f", estimated from {self.decoded} decoded in full"
        raise TooManyUnreadable(
            f"{found} ({percent(self.bad_fraction)}{estimate}; --max-bad {max_bad:g} allows {100 * max_bad:g} %): "
            f"{counts(self.reasons)}, such as {examples}; remove them, or skip them with --max-bad "
            f"{_above(self.bad_fraction):g}",
            self.as_dict(),
        )

    def as_dict(self) -> dict[str, Any]:
        """The content of data.json: plain types, and no string that UTF-8 cannot hold."""
        return {
            "name": self.name,
            "candidates": self.candidates,
            "usable": len(self.ids),
            "skipped_by_reason": self.reasons,
            "skipped": [
                {"id": i, "where": printable(where), "reason": printable(reason)} for i, where, reason in self.skipped
            ],
            "first_frame_only": self.multiframe,
            "transparent": self.transparent,
            "more_than_8_bits": self.deep,
            "decoded_before_training": self.decoded,
            "grey": self.grey,
            "median_height": self.median_size[0],
            "median_width": self.median_size[1],
            "extensions": self.extensions,
            "classes": {printable(name): count for name, count in self.classes.items()},
            "fingerprint": self.fingerprint,
            "contents": sha256(np.ascontiguousarray(self.digests[:, 0]).tobytes()),
            "whole_contents": sha256(self.digests.tobytes()) if image_digests.all_whole(self.digests) else None,
            "notes": self.notes,
        }


def scan(
    source: ImageSource,
    *,
    sample: int | None = SAMPLE,
    max_bad: float | None = None,
    workers: int = 2,
    seed: int = 0,
    counted: Counted = not_shown,
) -> Inventory:
    """Takes the inventory of a set that is streamed: reads the header of every file, and decodes a sample in full.

    A set that is held in memory does not need it: `memory.hold` decodes every image anyway.

    Args:
        source: what to look at. If its images are not files, only the sample is read.
        sample: how many images to decode in full; None for all.
        max_bad: if given, `Inventory.check` is called with it.
        workers: threads that decode.
        seed: chooses the sample.
        counted: told how many headers, and then images, have been read.

    Raises:
        TooManyUnreadable: from `Inventory.check`.
    """
    with kept_from_the_screen():
        inventory = _scan(source, sample, workers, seed, counted)
    if max_bad is not None:
        inventory.check(max_bad)
    return inventory


def _scan(source: ImageSource, sample: int | None, workers: int, seed: int, counted: Counted) -> Inventory:
    take = Taking(source)
    count = len(source)
    if isinstance(source, FolderSource):
        headers = in_threads(_attempt(source.header), range(count), workers)
        for index, header, reason in over(headers, "headers read", count, counted):
            if header is None:
                take.bad(index, reason)
            else:
                take.header(index, header)
    bad_headers = len(take.skipped)
    chosen = np.arange(count) if sample is None or sample >= count else np.sort(permutation(seed, 0, count)[:sample])
    seen = set(take.skipped)
    decoded = [int(index) for index in chosen if int(index) not in seen]

    def look(index: int) -> bool:  # in the thread that has the image, so that no images wait for another thread
        image = source.read(index)
        if not isinstance(source, FolderSource):
            take.sizes[index] = image.shape[:2]
            take.digests[index] = image_digests.of_pixels(image)
        return colourless(image)

    looks = in_threads(_attempt(look), decoded, workers)
    for index, grey, reason in over(looks, "images read", len(decoded), counted):
        if grey is None:
            take.bad(index, reason)
        else:
            take.grey = take.grey and grey
    # All headers have been read, but only a sample of the pixels: the share of bad ones in it stands for the rest.
    fraction = min(1.0, bad_headers / count + (len(take.skipped) - bad_headers) / max(len(decoded), 1))
    return take.inventory(len(decoded) + (bad_headers if len(decoded) + bad_headers == count else 0), fraction)


Use = Callable[[int, Array, Header | None], Array]
"""Gets an image that was just read, by its id, and its header where it is a file; in the thread that has read it.
Returns the pixels by which its colour is judged: the same, or what was made of them."""


def read_all(
    source: ImageSource, use: Use, *, min_side: int = 0, workers: int = 2, counted: Counted = not_shown
) -> Inventory:
    """Takes the inventory of a whole set, reading every file once, and hands each image on.

    (What decoders write to the screen is the caller's to catch: `last_words.kept_from_the_screen`.)

    Args:
        source: what to read.
        use: gets each image that can be read.
        min_side: if positive, JPEGs may come at a fraction of their size; see `ImageSource.read`.
        workers: threads that decode.
        counted: told how many images have been read.
    """
    taking = Taking(source)

    def look(index: int) -> tuple[Header | None, bool]:
        if isinstance(source, FolderSource):
            image, header = source.read_with_header(index, min_side)
        else:
            image, header = source.read(index, 0), None
            taking.sizes[index] = image.shape[:2]
            taking.digests[index] = image_digests.of_pixels(image)
        return header, colourless(use(index, image, header))

    count = len(source)
    looks = in_threads(_attempt(look), range(count), workers)
    for index, found, reason in over(looks, "images read", count, counted):
        if found is None:
            taking.bad(index, reason)
            continue
        header, grey = found
        if header is not None:
            taking.header(index, header)
        taking.grey = taking.grey and grey
    return taking.inventory(count, len(taking.skipped) / count)


class Taking:
    """An inventory while it is being taken, in one thread."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source
        self.skipped: dict[int, str] = {}
        self.sizes = np.zeros((len(source), 2), np.int64)
        self.digests = source.digests if isinstance(source, FolderSource) else image_digests.none_yet(len(source))
        self.multiframe: set[int] = set()
        self.transparent: set[int] = set()
        self.deep: set[int] = set()
        self.grey = True

    def bad(self, index: int, reason: str) -> None:
        self.skipped[index] = reason

    def header(self, index: int, header: Header) -> None:
        self.sizes[index] = header.height, header.width
        if header.multiframe:
            self.multiframe.add(index)
        if header.alpha:
            self.transparent.add(index)
        if header.deep:
            self.deep.add(index)

    def inventory(self, decoded: int, bad_fraction: float) -> Inventory:
        source, count = self.source, len(self.source)
        usable = np.ones(count, bool)
        usable[list(self.skipped)] = False
        extensions: Counter[str] = Counter()
        notes: dict[str, object] = {}
        if isinstance(source, FolderSource):
            extensions.update(source.extension(index) for index in range(count))
            notes = dict(source.notes)
            fingerprint = source.fingerprint()
        else:
            fingerprint = hashlib.sha256(f"{source.name}\n{count}".encode("utf-8", "backslashreplace")).hexdigest()
        classes: dict[str, int] = {}
        if source.labels is not None and source.classes is not None:
            labels = np.asarray(source.labels)[usable]
            counts = (
                np.bincount(labels, minlength=len(source.classes)) if labels.ndim == 1 else (labels == 1).sum(axis=0)
            )
            classes = {name: int(k) for name, k in zip(source.classes, counts, strict=True)}
        return Inventory(
            name=source.name,
            candidates=count,
            ids=np.flatnonzero(usable),
            skipped=[(index, source.locate(index), self.skipped[index]) for index in sorted(self.skipped)],
            sizes=self.sizes[usable & (self.sizes[:, 0] > 0)],
            decoded=decoded,
            bad_fraction=bad_fraction,
            multiframe=len(self.multiframe - self.skipped.keys()),
            grey=self.grey,
            fingerprint=fingerprint,
            digests=self.digests[usable],
            extensions=dict(extensions.most_common()),
            classes=classes,
            notes=notes,
            transparent=len(self.transparent - self.skipped.keys()) if getattr(source, "channels", 3) in (1, 3) else 0,
            deep=len(self.deep - self.skipped.keys()),
        )


T = TypeVar("T")
R = TypeVar("R")


def in_threads(function: Callable[[T], R], items: Iterable[T], workers: int) -> Generator[R, None, None]:
    """`map` in several threads, with the results in order. It helps because the decoders release Python's global lock.

    Only a few results are computed ahead of the one that is asked for, so that memory stays small.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    rest = iter(items)
    chunks = iter(lambda: list(islice(rest, 16)), [])
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting = [pool.submit(lambda c: [function(i) for i in c], chunk) for chunk in islice(chunks, 2 * workers)]
        try:
            while waiting:
                done = waiting.pop(0).result()
                for chunk in islice(chunks, 1):
                    waiting.append(pool.submit(lambda c: [function(i) for i in c], chunk))
                yield from done
        finally:
            for future in waiting:
                future.cancel()


def _attempt(read: Callable[[int], R]) -> Callable[[int], tuple[int, R | None, str]]:
    def attempt(index: int) -> tuple[int, R | None, str]:
        try:
            return index, read(index), ""
        except UnreadableImage as error:
            return index, None, error.reason or "unreadable"

    return attempt


def _above(fraction: float) -> float:
    return min(1.0, float(np.ceil(fraction * 100 + 1e-9)) / 100)
