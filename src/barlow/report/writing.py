"""From run folders to a report's file."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from barlow import ownership, record, storage
from barlow.output_file import check_place, checked_output
from barlow.printable import one_line, printable
from barlow.record import Record, table_of
from barlow.report import (
    compared,
    curves,
    image_map,
    loss,
    matrix,
    mistakes,
    neighbours,
    scores,
    speed,
    summary,
    views,
)
from barlow.report.neighbours import Pictured
from barlow.report.page import BROKEN, made, page
from barlow.report.part import Part, missing
from barlow.report.shown import Shown, shown
from barlow.report.snapshots import snapshots
from barlow.telling import Say, unfailing
from barlow.wording import in_arguments

FILE = "report.html"
"""In the run's folder, unless another place is named."""

LONGEST = 80
"""Characters of a figure's name."""

MAX_IMAGES, MOST_IMAGES = 5_000, 10_000
"""Images of the map, if there are so many, and the most that may be asked for: 48-pixel pictures of more of them would
make a page that no longer goes by mail."""


@in_arguments
def write_report(
    runs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    figures: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    map: str = "tsne",
    max_images: int = MAX_IMAGES,
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Writes what a run's folder says as one HTML file that needs nothing else; several runs are compared.

    The same run gives the same bytes, on one machine. What a run has nothing for is left out, and a sentence says what
    is missing. Folders are read, and nothing in them is changed but the report.

    Args:
        runs: one run folder or several.
        out: the file; by default `report.html` in the run's folder. Several runs have no such place.
        figures: a folder for the figures as SVG and PNG files.
        overwrite: whether the file of `out`, and figures that are there, are replaced. `report.html` in the run's
            folder is the run's own, and always is.
        map: what the map of the images shows first: `tsne`, `pca`, which takes no time, or `pacmap` (extra `maps`).
        max_images: how many images the map has at most.
        tell: receives messages of one line.

    Returns:
        Where the report is.

    Raises:
        ValueError: one of the folders is no run, or a value is not allowed.
        StorageError: it cannot be written.
    """
    say = unfailing(tell)
    named = [runs] if isinstance(runs, str | os.PathLike) else list(runs)
    if not named:
        raise ValueError("no run is named; give one run folder or several")
    image_map.check_kind(map)
    if not 3 <= max_images <= MOST_IMAGES:
        raise ValueError(f"--max-images {max_images}: give 3 to {MOST_IMAGES:,}")
    if out is None and len(named) > 1:
        raise ValueError("several runs are compared in one file, and none is named for it: add --out FILE")
    found = [record.read(Path(run)) for run in named]
    path = _place(found, out, overwrite)
    if figures is not None:
        _check_figures(Path(figures), overwrite)
    parts, style = _of_one(found[0], map, max_images, say) if len(found) == 1 else _of_several(found, say)
    storage.write_text(path, page(_title(found), _subtitle(found), parts, style))
    if figures is not None:
        for name, content in _figures(parts).items():
            storage.write_bytes(Path(figures) / file_name(name), content)
    return path


def _place(runs: Sequence[Record], out: str | os.PathLike[str] | None, overwrite: bool) -> Path:
    """Where the report goes, looked at before anything is drawn."""
    own = runs[0].path / FILE
    if out is None or (len(runs) == 1 and os.path.abspath(out) == os.path.abspath(own)):
        ownership.check_real(runs[0].path)
        return own
    return checked_output(out, "--out", endings=[".html", ".htm"], overwrite=overwrite)


def _check_figures(folder: Path, overwrite: bool) -> None:
    """Refuses a folder that has pictures: some may be the user's, and have the names of figures."""
    try:
        pictures = sorted(each.name for each in folder.iterdir() if each.suffix in (".svg", ".png"))
    except FileNotFoundError:
        pictures = []
    except OSError as error:
        raise storage.CannotCreate(f"--figures {printable(folder)}: {error.strerror}; name a new folder") from error
    if pictures and not overwrite:
        raise storage.CannotCreate(
            f"--figures {printable(folder)} has {printable(pictures[0])}: use --overwrite to replace what has the name "
            "of a figure, or another folder"
        )
    check_place(folder / "figure.svg")


def file_name(name: str) -> str:
    """A figure's name as one of a file: a log may name its terms as it likes, `../../.profile` among others.

    Example:
        >>> file_name("term-../../.profile.svg")
        'term-_profile.svg'
    """
    stem, _, ending = name.rpartition(".")
    return f"{re.sub('[^A-Za-z0-9-]+', '_', stem)[:LONGEST]}.{ending}"


def _title(runs: Sequence[Record]) -> str:
    return runs[0].name if len(runs) == 1 else f"{len(runs)} runs"


def _subtitle(runs: Sequence[Record]) -> str:
    if len(runs) > 1:
        return ", ".join(compared.names_of(runs))
    run = runs[0]
    kind, encoder = table_of(run.recipe, "objective").get("kind"), table_of(run.recipe, "encoder").get("name")
    return f"{kind} on {', '.join(run.sources)}; {encoder}, seed {run.recipe.get('seed')}"


def _figures(parts: Sequence[Part]) -> Mapping[str, bytes]:
    return {name: content for part in parts for name, content in part.figures.items()}


def _of_several(runs: Sequence[Record], say: Say) -> tuple[list[Part], str]:
    names = compared.names_of(runs)
    return [
        made("verdict", "Runs", partial(compared.verdicts, runs, names), say),
        made("evaluation", "Evaluation", partial(compared.scores, runs, names), say),
        made("loss", "Curves", partial(compared.curves, runs, names), say),
        made("recipe", "Recipes", partial(compared.recipes, runs, names), say),
    ], ""


def _of_one(run: Record, kind: str, most: int, say: Say) -> tuple[list[Part], str]:
    """The parts of a report on one run, and the rules that its pictures need."""
    images, why = _images(run, most, say)
    names = [] if images is None else images.names()
    lines, not_monitored = _snapshots(run, say)
    styles: list[str] = []

    def pictured(name: str, title: str, part: Callable[[Shown], Pictured]) -> Part:
        def of_images() -> Part:
            if images is None:
                return missing(name, title, why)
            found = part(images)
            styles.append(found.style)
            return found.part

        return made(name, title, of_images, say)

    def mistaken() -> Part:
        found = mistakes.made(None if images is None else images.kept, images, names, run.evaluate)
        styles.append(found.style)
        return found.part

    parts = [
        made("verdict", "Verdict", partial(summary.verdict, run), say),
        made("evaluation", scores.TITLE, partial(scores.part, run), say),
        pictured(neighbours.NAME, neighbours.TITLE, lambda images: neighbours.made(images, names)),
        pictured(image_map.NAME, image_map.TITLE, lambda images: image_map.made(images, names, kind)),
        made(mistakes.NAME, mistakes.TITLE, mistaken, say),
        made("loss", "Loss", partial(loss.part, run), say),
        made("health", curves.TITLE, partial(curves.part, run), say),
        made(matrix.NAME, matrix.TITLE, partial(matrix.correlation, lines, not_monitored), say),
        made("spectra", "Spectra", partial(matrix.spectra, lines, not_monitored), say),
        made("views", "Views", partial(views.part, run), say),
        made("recipe", "Recipe", partial(summary.recipe, run), say),
        made("images", "Images", partial(summary.images, run), say),
        made("machine", "Machine", partial(summary.machine, run), say),
        made("time", "Time", partial(speed.part, run), say),
    ]
    return parts, "".join(styles)


def _images(run: Record, most: int, say: Say) -> tuple[Shown | None, str]:
    """The images that are shown, or why there are none."""
    try:
        found = shown(run, most, say)
    except BROKEN as error:
        return None, f"The images cannot be shown ({one_line(error)})."
    return (None, found) if isinstance(found, str) else (found, "")


def _snapshots(run: Record, say: Say) -> tuple[Sequence[Mapping[str, object]], str]:
    """Spectra and matrices over the run: as the monitor has kept them, or else made now; and why there are none."""
    alone = "The objective of this run compares no two views of an image, so there is nothing to correlate."
    if any(table_of(line, "spectrum") for line in run.monitor):
        return run.monitor, alone
    try:
        return snapshots(run, say), alone
    except BROKEN as error:
        return [], f"The run was not monitored, and its networks cannot be looked at now ({one_line(error)})."
