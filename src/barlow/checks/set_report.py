"""What is known of a set of images, and of how another one stands to it: plain data, and the same as lines of text.

A line begins with a word in a column of its own, nine columns wide. Whoever shows it wraps it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from barlow.data import oddities
from barlow.data.image_digests import words as agreeing
from barlow.data.inventory import counts
from barlow.data.near_duplicates import SIDE
from barlow.data.shift import ClassShift, Shift
from barlow.data.thresholds import can_tell, shares
from barlow.printable import printable
from barlow.wording import many

MOST_ARE = 0.25
"""Of a set's images: where so many have near-duplicates, it may be of one kind of thing in one pose, as scans are."""

MANY = 0.01
"""Of the test images in the training set too: a score can be too high by as much."""

SHOWN = 3
"""So many examples are shown of each kind. The plain data has all."""

OVERLAPS = 10
"""So many test images that are in training are shown: each is one to look at, or to leave out."""

UNEVEN = 1.1
"""The largest class is so many times the smallest where that is worth a word."""

MOSTLY = 0.9
"""The share of altered copies of a kind from which on nothing is said of what is missed."""


@dataclass(frozen=True)
class Near:
    """Near-duplicates within a set.

    Args:
        alike: similarity in detail from which on two images count as such (`barlow.data.copies`); None where none were
            compared.
        found: of copies that were made of the set's own images, the share that is found, by kind; likewise.
        images: how many images have one.
        clusters: how many groups there are of images that chains of them connect; None where only some were compared.
        largest: how many images are in the largest group; likewise.
        across_classes: in how many groups images have different labels; None without labels.
        compared: how many images were compared with all; the other numbers are of these.
        examples: where the images of the largest groups are, some of each.
    """

    alike: float | None
    found: dict[str, float] | None
    images: int
    clusters: int | None
    largest: int | None
    across_classes: int | None
    compared: int
    examples: list[list[str]]


@dataclass(frozen=True)
class SetReport:
    """What is known of one set.

    Args:
        name: as it was asked for.
        candidates: number of its images, readable or not.
        usable: number of those that can be read.
        unreadable: how many cannot, by the kind of reason, the most frequent first.
        skipped: where each of them is, and why it cannot be read.
        formats: how many files are of each format, by content.
        extensions: how many files have each ending of their names.
        modes: how many images are grey, in colour, or have another number of bands, as they are stored.
        grey: whether no image has any colour, however it is stored.
        more_than_8_bits: how many images have more than 8 bits, signs or fractions.
        value_range: of these, the numbers that become black and white.
        transparent: how many images have transparency.
        several_frames: how many files have several frames, of which the first is read.
        heights: the smallest, the median, the largest.
        widths: likewise.
        one_size: whether all images have one size.
        classes: number of images of each.
        several_labels: whether an image can be of several classes.
        empty: sub-folders without images, beside those of classes.
        splits: sub-folders that look like splits, and were taken together.
        notes: what else the folders hold.
        copies: how many images are copies of others.
        copies_certain: whether they are so byte for byte.
        near: near-duplicates.
        brightness, contrast, colour: their means over the images, 0 to 1 (`barlow.data.survey`).
    """

    name: str
    candidates: int
    usable: int
    unreadable: dict[str, int]
    skipped: list[dict[str, str]]
    formats: dict[str, int]
    extensions: dict[str, int]
    modes: dict[str, int]
    grey: bool
    more_than_8_bits: int
    value_range: list[float] | None
    transparent: int
    several_frames: int
    heights: list[int]
    widths: list[int]
    one_size: bool
    classes: dict[str, int]
    several_labels: bool
    empty: list[str]
    splits: list[str]
    notes: dict[str, Any]
    copies: int
    copies_certain: bool
    near: Near
    brightness: float
    contrast: float
    colour: float

    def lines(self) -> Iterator[str]:
        """As text, each line beginning with a word in a column of its own."""
        yield f"images   {self.usable:,} of {self.candidates:,} can be read: {', '.join(self._kinds())}"
        if self.unreadable:
            yield f"bad      {len(self.skipped):,} cannot be read: {counts(self.unreadable)}"
            yield from (f"         {each['where']}: {each['reason']}" for each in self.skipped[:SHOWN])
            if (left := len(self.skipped) - SHOWN) > 0:
                yield f"         and {left:,} more (--json lists them)"
        yield f"size     {self._size()}"
        yield from self._oddities()
        means = f"brightness {self.brightness:.2f}, contrast {self.contrast:.2f}, colour {self.colour:.2f}"
        yield f"pixels   {means} (means, of 1)"
        yield f"classes  {self._classes()}"
        if self.empty:
            yield oddities.of_empty(self.empty)
        if self.splits:
            yield (
                f"splits   {oddities.names(self.splits)} look like splits, and are taken together here: give one of "
                "them, and another by --test"
            )
        if self.copies:
            yield oddities.of_copies(self.copies, self.usable, self.copies_certain)
        yield from self._near()
        for name, value in self.notes.items():
            yield f"notes    {_note(name, value)}"

    def _kinds(self) -> Iterator[str]:
        """Formats and modes, as in `JPEG, 200 grey and 9,269 colour`."""
        if self.formats:
            yield _shares(self.formats)
        yield _shares(self.modes) + (" without any colour" if self.grey and "colour" in self.modes else "")

    def _size(self) -> str:
        if self.one_size:
            return f"{self.heights[0]}x{self.widths[0]} (height x width), all of them"
        sides = (f"{low:,} to {high:,}, median {middle:,}" for low, middle, high in (self.heights, self.widths))
        return "heights {}; widths {}".format(*sides)

    def _oddities(self) -> Iterator[str]:
        if self.more_than_8_bits:
            ends = "" if self.value_range is None else "; {:g} is black and {:g} is white".format(*self.value_range)
            yield f"depth    {many(self.more_than_8_bits, 'image has', 'images have')} more than 8 bits{ends}"
        if self.transparent:
            words = many(self.transparent, "image has transparency: it is", "images have transparency: they are")
            yield f"alpha    {words} put on mid-grey"
        if self.several_frames:
            yield f"frames   {many(self.several_frames, 'file has', 'files have')} several, and the first is read"
        mistaken = self._mistaken()
        if mistaken:
            yield f"names    {mistaken}"

    def _mistaken(self) -> str | None:
        """Endings of names that no file's content can have, where all files are of other formats."""
        usual = {"JPEG": {"jpg", "jpeg", "jpe", "jfif", "jif"}, "PNG": {"png", "apng"}, "WEBP": {"webp"}}
        if not set(self.formats) <= set(usual) or not self.formats or self.skipped:
            return None
        allowed = set().union(*(usual[name] for name in self.formats))
        wrong = {ending: count for ending, count in self.extensions.items() if ending not in allowed}
        if not wrong:
            return None
        files = many(sum(wrong.values()), "file ends", "files end")
        endings = ", ".join(f".{ending}" for ending in wrong)
        return f"{files} in {endings}, and all files are {' or '.join(self.formats)} inside"

    def _classes(self) -> str:
        if not self.classes:
            return "none: there is not one sub-folder for each class (training needs none)"
        ordered = sorted(self.classes.items(), key=lambda item: (-item[1], item[0]))
        (largest, most), (smallest, least) = ordered[0], ordered[-1]
        several = ", several of them an image" if self.several_labels else ""
        if most == least:
            return f"{len(ordered)}, {most:,} images each{several}"
        return f"{len(ordered)}: {printable(largest)} {most:,} to {printable(smallest)} {least:,}{several}" + (
            f"; the largest is {most / least:.1f} times the smallest" if least and most / least >= UNEVEN else ""
        )

    def _near(self) -> Iterator[str]:
        near = self.near
        if not near.compared:
            yield f"alike    near-duplicates were not looked for: most images have fewer than {SIDE} pixels a side"
            return
        if not near.images:
            of = "" if near.compared == self.usable else f" among {near.compared:,} that were compared with all"
            if not _told(near.found):
                yield f"alike    cannot tell near-duplicates here{of}, because images are too alike"
            else:
                yield f"alike    no near-duplicates{of}"
            yield from _missed(near.found)
            return
        share = f"{near.images / near.compared:.1%}"
        if near.clusters is None:
            of = f"{near.compared:,} images that were compared with all ({share})"
            yield f"alike    {near.images:,} of {of} have near-duplicates"
        else:
            groups = many(near.clusters, "group", "groups")
            yield (
                f"alike    {near.images:,} images ({share}) have near-duplicates: {groups}, the largest of "
                f"{near.largest:,}" + (f"; {near.across_classes:,} of different classes" if near.across_classes else "")
            )
        for places in near.examples[:SHOWN]:
            yield f"         {', '.join(places[:SHOWN])}{', …' if len(places) > SHOWN else ''}"
        if near.clusters is not None and (left := near.clusters - len(near.examples[:SHOWN])) > 0:
            yield f"         and {many(left, 'more group', 'more groups')} (barlow duplicates lists them)"
        if not _told(near.found):
            yield "         there may be more, because images are too alike to tell"
        yield from _missed(near.found)
        if near.images >= MOST_ARE * near.compared:
            yield "         so many may be alike by nature, and no copies: --sheet FILE.png shows the groups"


@dataclass(frozen=True)
class Between:
    """How the test images stand to the training images.

    Args:
        images: number of test images.
        copies: how many of them are training images too, file for file.
        copies_certain: whether they are so byte for byte.
        near: how many have a near-duplicate among the training images, copies included.
        compared: how many test images were compared; `near` is of these.
        alike: similarity in detail from which on two images count as near-duplicates; None where none were compared.
        found: of copies that were made of training images, the share that would be found, by kind; likewise.
        examples: a test image, the training image that it is like, their similarity, and whether it is mirrored.
        shifts: of every quantity that was compared, beyond chance or not.
        classes: how class shares differ; None where one of the sets has no classes.
    """

    images: int
    copies: int
    copies_certain: bool
    near: int
    compared: int
    alike: float | None
    found: dict[str, float] | None
    examples: list[dict[str, Any]]
    shifts: list[Shift]
    classes: ClassShift | None

    def lines(self) -> Iterator[str]:
        """As text."""
        if self.copies:
            yield (
                f"overlap  {self.copies:,} of {self.images:,} test images ({self.copies / self.images:.1%}) are in the "
                f"training set too: they agree {agreeing(self.copies_certain)}"
            )
        if self.near:
            yield (
                f"overlap  {self.near:,} of {self.compared:,} test images ({self.near / self.compared:.1%}) are copies "
                "or near-duplicates of training images"
                + (": what is measured on them may be memory" if self.near >= MANY * self.compared else "")
            )
            for each in self.examples[:OVERLAPS]:
                yield (
                    f"         {each['test']} and {each['train']} ({each['similarity']:.3f}"
                    + (", mirrored)" if each["mirrored"] else ")")
                )
            if (left := self.near - len(self.examples[:OVERLAPS])) > 0:
                yield f"         and {left:,} more (barlow duplicates with --against lists pairs)"
            if not _told(self.found):
                yield "         there may be more, because images are too alike to tell"
            yield from _missed(self.found)
        if not self.compared:
            yield "overlap  near-duplicates were not looked for: most images are too small" + self._no_copies()
        elif not self.near:
            if not _told(self.found):
                yield ("overlap  cannot tell near-duplicates here, because images are too alike" + self._no_copies())
            elif not self.copies:
                yield "overlap  none: no test image is a copy or a near-duplicate of a training image"
            yield from _missed(self.found)
        told = [shift for shift in self.shifts if shift.told]
        for shift in told:
            yield f"shift    {shift.words}: beyond chance (KS {shift.distance:.2f}, p {_p(shift.p)})"
        yield from self._classes()
        if not told and not (self.classes is not None and self.classes.told):
            yield "shift    none that is beyond chance and of any size"

    def _no_copies(self) -> str:
        return "" if self.copies else "; no test image is a copy of a training image"

    def _classes(self) -> Iterator[str]:
        found = self.classes
        if found is None:
            return
        if found.told:
            yield (
                f"shift    classes have other shares: {printable(found.most)} is {found.test:.1%} of the test images, "
                f"against {found.train:.1%} in training (chi-squared, p {_p(found.p)})"
            )
        for which, other in ((found.missing, "no test image"), (found.foreign, "no training image")):
            if which:
                yield f"classes  {other} is of {oddities.names(which)}"


def _told(found: Mapping[str, float] | None) -> bool:
    """Whether it can be said that there are no near-duplicates."""
    return found is None or can_tell([found])


def _missed(found: Mapping[str, float] | None) -> Iterator[str]:
    """Which copies would be found, where some kind of them mostly would not."""
    if found is not None and min(found.values()) < MOSTLY:
        yield f"         of copies made of these images it finds {shares(found)}"


def _note(name: str, value: Any) -> str:
    """What a folder holds besides, as in `3 hidden files and folders`."""
    if isinstance(value, Mapping):
        return f"{name}: {', '.join(f'{count:,} .{kind}' for kind, count in value.items())}"
    return f"{value:,} {name}" if isinstance(value, int) else f"{name}: {value}"


def _shares(found: Mapping[str, int]) -> str:
    """As in `JPEG`, if it is all that there is, or `9,000 JPEG and 12 PNG`."""
    if len(found) == 1:
        return next(iter(found))
    parts: Sequence[str] = [f"{count:,} {name}" for name, count in found.items()]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _p(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.1g}"
