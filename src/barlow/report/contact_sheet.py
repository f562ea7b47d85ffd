"""What a search has found, as one HTML file to look at: each query, and beside it the images most like it."""

import os
from collections.abc import Iterable
from pathlib import Path

from barlow import storage
from barlow.data.files import FilesSource
from barlow.features.searching import Found
from barlow.features.vectors import Vectors
from barlow.nets.preprocessing import Preprocessing
from barlow.output_file import checked_output
from barlow.printable import printable
from barlow.report.markup import Markup, el, join, note
from barlow.report.page import page
from barlow.report.part import Part
from barlow.report.pictures import Atlas, Pictures, atlas

HOW = (
    "Each row begins with an image that others were looked for. After it come the images that the encoder sees most "
    "like it, the most similar first; below each is the cosine of their vectors. Point at one to read where it is."
)
SIDE, SHOWN, QUALITY = 96, 64, 70
"""Of the pictures: pixels that are kept, pixels on the page, and how well they are kept."""

MOST_PICTURES = 2_000
"""On one page. The text and `--json` have all queries."""


def check_sheet(
    out: str | os.PathLike[str], *, overwrite: bool = False, images: Iterable[str | os.PathLike[str]] = ()
) -> Path:
    """The file that a sheet is written to. It is looked at before the search, which may take long.

    Args:
        out: its name.
        overwrite: whether a file that is there is replaced.
        images: folders in which it may not be.

    Raises:
        ValueError, CannotCreate: as `barlow.output_file.checked_output` has them.
    """
    return checked_output(out, "--sheet", endings=[".html", ".htm"], overwrite=overwrite, images=images)


def write_sheet(found: Found, out: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Writes the file. It needs no network and no other file, and everything in it that was a name is escaped.

    Args:
        found: by `barlow.features.searching.search`.
        out: where to.
        overwrite: whether a file that is there is replaced.

    Raises:
        ValueError: there is a folder of that name, or it does not end in `.html`.
        CannotCreate: a file is there.
        StorageError: it cannot be written.
    """
    path = check_sheet(out, overwrite=overwrite)
    storage.write_text(path, _sheet(found))
    return path


def missing_pictures(found: Found) -> list[str]:
    """The images that were found in a file of features, and whose files are not there to be shown."""
    source = found.among.source
    if not isinstance(source, FilesSource):
        return []
    rows = dict.fromkeys(found.positions.flatten().tolist())
    return [found.among.place(row) for row in rows if not os.path.isfile(source.file(int(found.among.ids[row])))]


def _sheet(found: Found) -> str:
    preprocessing = found.preprocessing
    k = found.positions.shape[1]
    queries = range(min(len(found.asked), max(1, MOST_PICTURES // (k + 1))))
    asked = _pictures("q", found.asked, list(queries), preprocessing)
    rows = list(dict.fromkeys(row for query in queries for row in found.positions[query].tolist()))
    hits = _pictures("t", found.among, rows, preprocessing)
    part_of = {row: part for part, row in enumerate(rows)}

    def row(query: int) -> Markup:
        places = zip(found.hits(query), found.positions[query].tolist(), strict=True)
        shown = (_captioned(hits, part_of[at], place, f"{value:.3f}") for (value, place), at in places)
        place = found.asked.place(query)
        first = el("div", _captioned(asked, query, place, os.path.basename(place)), class_="query")
        return el("div", first, el("div", *shown, class_="found"), class_="row")

    left = len(found.asked) - len(queries)
    body = [
        note(f"{left:,} more queries are not shown; the text and --json have all of them.") if left else None,
        el("div", *map(row, queries), class_="rows"),
    ]
    searched = f"{len(found.among):,} images of {printable(found.among.source.name)}"
    parts = [Part("found", "Found", join(body), HOW)]
    places = [each.place(part) for each, count in ((asked, len(queries)), (hits, len(rows))) for part in range(count)]
    return page(
        "Search", f"{searched}, by {found.encoder}", parts, asked.rule + hits.rule + "".join(places), "a search"
    )


def _pictures(name: str, images: Vectors, rows: list[int], preprocessing: Preprocessing) -> Atlas:
    pictures = Pictures(images.source, images.ids[rows], preprocessing)
    side = pictures.side(SIDE)
    return atlas(name, pictures.read(range(len(rows)), side), len(rows), side, shown=SHOWN, quality=QUALITY)


def _captioned(whole: Atlas, part: int, place: str, words: str) -> Markup:
    return el("figure", whole.show(part, place, title=place), el("figcaption", words))
