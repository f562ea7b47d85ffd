"""What `barlow duplicates` has found: plain data, the same as text of 80 columns, and as rows of a table."""

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from barlow.data.thresholds import can_tell, shares
from barlow.output_file import csv_line
from barlow.printable import printable
from barlow.wording import many, percent

WIDTH = 80
SHOWN, OF_A_GROUP = 10, 5
"""Groups, or test images, that the text shows, and images of each. JSON and CSV have all."""

COLUMNS = ("kind", "group", "path", "like", "measure", "similarity", "mirrored")


@dataclass(frozen=True)
class Measure:
    """What proposes pairs that are compared in detail.

    Args:
        name: `pixels`, or that of the encoder.
        above: pairs are proposed if they are more alike than this, by this measure.
        found: of copies that were made of the set's own images, the share that it proposes and that are then copies in
            detail, by kind.
    """

    name: str
    above: float
    found: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """How images were compared.

    Args:
        threshold: two images that are more similar in detail are copies.
        distinct: the threshold that look-alikes alone would give; None where there were too few.
        measures: what proposed pairs.
        compared: how many pairs were compared in detail.
        left: how many were not, as there were too many: those that are least alike.
    """

    threshold: float
    distinct: float | None
    measures: list[Measure]
    compared: int
    left: int

    @property
    def tells(self) -> bool:
        """Whether images in which no copies were found can be said to have none."""
        return can_tell(each.found for each in self.measures)


@dataclass(frozen=True)
class Member:
    """An image of a group.

    Args:
        path: where it is; the name as it is, for programs, and only `text` escapes what a terminal would obey.
        like: the image of the group that it is most surely a copy of.
        measure: which proposed the pair.
        similarity: of the two, in detail.
        mirrored: whether they are more similar when one is mirrored.
    """

    path: str
    like: str
    measure: str
    similarity: float
    mirrored: bool


@dataclass(frozen=True)
class Group:
    """Images that chains of copies connect.

    Args:
        members: all of them, in the order of the set.
        classes: of which they are; None without labels. Several mostly mean a wrong label.
    """

    members: list[Member]
    classes: list[str] | None


@dataclass(frozen=True)
class Leak:
    """A test image that is a copy of a training image."""

    test: str
    train: str
    measure: str
    similarity: float
    mirrored: bool


@dataclass(frozen=True)
class Duplicates:
    """Everything that was found.

    Args:
        images: what was searched, as it was named.
        searched: how many images.
        skipped: how many could not be read.
        within: how images of the set were compared.
        groups: of copies, the largest first.
        against: the test images, as they were named; None if there were none.
        compared: how many.
        across: how test images and training images were compared; None if there were no test images.
        leaks: test images that are copies of training images, the surest first.
    """

    images: str
    searched: int
    skipped: int
    within: Comparison
    groups: list[Group]
    against: str | None
    compared: int
    across: Comparison | None
    leaks: list[Leak] | None

    @property
    def copies(self) -> int:
        """How many images would be left out if one of each group stayed."""
        return sum(len(group.members) - 1 for group in self.groups)

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self) | {"copies": self.copies}

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for each image of a group and for each test image that is in the training set; `COLUMNS`."""
        for number, group in enumerate(self.groups, 1):
            for each in group.members:
                yield {"kind": "group", "group": number, **asdict(each)}
        for leak in self.leaks or []:
            row = asdict(leak)
            yield {"kind": "leak", "group": "", "path": row.pop("test"), "like": row.pop("train"), **row}

    def csv(self) -> str:
        """`rows` as comma-separated values, with a line of names."""
        shown = (
            row | {"similarity": f"{row['similarity']:.4f}", "mirrored": int(row["mirrored"])} for row in self.rows()
        )
        return csv_line(COLUMNS) + "".join(csv_line([row[name] for name in COLUMNS]) for row in shown)

    def text(self) -> str:
        """For people, 80 columns wide."""
        return "\n".join(self._lines()) + "\n"

    def _none(self) -> str:
        return "no copies" if self.within.tells else "none that is sure"

    def _lines(self) -> Iterator[str]:
        unread = f" ({self.skipped:,} cannot be read)" if self.skipped else ""
        yield from _wrapped("images", f"{self.searched:,} of {printable(self.images)}{unread}")
        yield from _compared(self.within)
        several = sum(len(group.members) for group in self.groups)
        words = (
            f"{several:,} images in {many(len(self.groups), 'group', 'groups')} of copies"
            if self.groups
            else self._none()
        )
        yield from _wrapped("copies", words)
        mixed = [group for group in self.groups if group.classes is not None and len(group.classes) > 1]
        if mixed:
            yield from _wrapped(
                "classes", f"{many(len(mixed), 'group has', 'groups have')} images of different classes: look at labels"
            )
        for number, group in enumerate(self.groups[:SHOWN], 1):
            yield ""
            of = "" if group.classes is None else f", {printable(', '.join(group.classes))}"
            yield _fitting(f"group {number}: {len(group.members):,} images{of}")
            for each in group.members[:OF_A_GROUP]:
                yield _line(each.path, each)
            if len(group.members) > OF_A_GROUP:
                yield f"  and {len(group.members) - OF_A_GROUP:,} more"
        if len(self.groups) > SHOWN:
            yield f"\nand {many(len(self.groups) - SHOWN, 'more group', 'more groups')} (--json and --csv have all)"
        if self.leaks is None or self.across is None:
            return
        yield ""
        share = percent(len(self.leaks) / max(self.compared, 1))
        told = f"{len(self.leaks):,} of {many(self.compared, 'image', 'images')} of {printable(self.against or '')}"
        are = "is a copy" if len(self.leaks) == 1 else "are copies"
        yield from _wrapped("leaks", f"{told} ({share}) {are} of images of {printable(self.images)}")
        yield from _compared(self.across)
        for leak in self.leaks[:SHOWN]:
            yield _line(leak.test, leak)
            yield _fitting(f"            {'mirrored ' if leak.mirrored else ''}copy of {printable(leak.train)}")
        if len(self.leaks) > SHOWN:
            yield f"  and {len(self.leaks) - SHOWN:,} more (--json and --csv have all)"


def _compared(by: Comparison) -> Iterator[str]:
    fewer = f" (the most alike of {by.compared + by.left:,})" if by.left else ""
    yield from _wrapped("by", f"{by.compared:,} pairs in detail{fewer}; copies are above {by.threshold:.3f}")
    for each in by.measures:
        yield from _wrapped("from", f"{each.name}; of copies made of these images it finds {shares(each.found)}")
    if not by.tells:
        yield from _wrapped("", "so copies cannot be told here, because images are too alike: there may be others")


def _line(path: str, found: Member | Leak) -> str:
    return f"  {found.similarity:8.4f}  {_fitting(printable(path), WIDTH - 12)}"


def _wrapped(word: str, words: str) -> Iterator[str]:
    yield from textwrap.wrap(
        words, WIDTH, initial_indent=f"{word:<9}", subsequent_indent=" " * 9, break_on_hyphens=False
    )


def _fitting(text: str, width: int = WIDTH) -> str:
    """A text that fits; of one that is too long the end, which tells paths apart."""
    return text if len(text) <= width else "…" + text[1 - width :]
