"""The table of an evaluation as a file: a page, JSON, CSV, or a table for LaTeX. The ending of its name says which.

Names of encoders, folders and classes may be a stranger's. In each form they are texts that nothing obeys.
"""

import csv
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from barlow import storage
from barlow.output_file import checked_output
from barlow.printable import printable
from barlow.probes.intervals import Difference, end_of_difference
from barlow.report.markup import Markup, el, join, pairs, table
from barlow.report.page import page
from barlow.report.part import Part
from barlow.report.scores import HELD_OUT
from barlow.scores.columns import Cell, difference_cell
from barlow.scores.score_table import GAIN, Column, Line, ScoreTable, Section, published_words


def check_table_path(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """The file that a table is to be written to: known before hours of work, and not after.

    Raises:
        ValueError: its ending is not known, or it is a folder.
        CannotCreate: a file is there and `overwrite` is off, or nothing can be written there.
    """
    return checked_output(path, "--table", endings=list(FORMS), overwrite=overwrite)


def write_table(scores: ScoreTable, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Writes a table in the form that the ending of a file's name says: .html, .json, .csv or .tex.

    Raises:
        ValueError: the ending is none of these.
        CannotCreate: a file is there and `overwrite` is off.
        StorageError: it cannot be written.
    """
    file = check_table_path(path, overwrite=overwrite)
    storage.write_text(file, FORMS[file.suffix](scores))


# --- JSON and CSV -----------------------------------------------------------------------------------------------------


def _json(scores: ScoreTable) -> str:
    return storage.json_bytes(scores.as_dict()).decode()


HEAD = (
    *("images", "protocol", "metric", "column", "encoders", "value", "low", "high", "spread", "seeds", "held_out"),
    *("difference", "difference_low", "difference_high", "gain", "gain_low", "gain_high"),
)
"""The columns of a CSV file. Numbers are shares from 0 to 1, as they were measured."""


def _csv(scores: ScoreTable) -> str:
    """A row for each number. Papers' numbers are rows too, whose column is `papers`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEAD)
    for section in scores.sections:
        for line in section.lines:
            for i, column in enumerate(scores.columns):
                if (cell := line.cells[i]) is not None:
                    writer.writerow(_csv_row(section, line, column, cell, i))
        for each in section.published:
            for name, value in each.values.items():
                words = f"{name} ({each.network}; {each.source})"
                where = _inert(section.images), each.protocol, each.metric, "papers", words
                writer.writerow([*where, f"{value / 100:.6g}", *[""] * (len(HEAD) - 6)])
    return text.getvalue()


def _csv_row(section: Section, line: Line, column: Column, cell: Cell, i: int) -> list[object]:
    held_out = line.held_out[i] if line.held_out is not None else None
    gain = line.gained[i] if line.gained else None
    numbers = [cell.value, cell.low, cell.high, cell.spread, cell.runs, None if held_out is None else held_out.value]
    for each in (line.differences[i], gain):
        numbers += [None] * 3 if each is None else [each.value, each.low, each.high]
    names = [_inert(section.images), line.protocol, line.metric, column.title, _inert("; ".join(column.names))]
    return [*names, *("" if number is None else number for number in numbers)]


def _inert(text: str) -> str:
    """A text that a spreadsheet takes for a text: one that begins like a formula gets an apostrophe first."""
    shown = printable(text)
    return f"'{shown}" if shown[:1] in ("=", "+", "-", "@") else shown


# --- A page -----------------------------------------------------------------------------------------------------------


def _html(scores: ScoreTable) -> str:
    legend = pairs(
        (column.title, ", ".join(column.names) + (f" ({len(column.names)} seeds)" if len(column.names) > 1 else ""))
        for column in scores.columns
        if column.family is None
    )
    parts = [Part("encoders", "Encoders", join([legend, *(el("p", words, class_="note") for words in scores.notes)]))]
    parts += [Part(f"scores-{i}", "Scores", _section(scores, section)) for i, section in enumerate(scores.sections)]
    return page("Evaluation", "encoders beside each other", parts)


def _section(scores: ScoreTable, section: Section) -> Markup:
    titles = [column.title for column in scores.columns]
    rows: list[list[object]] = []
    for line in section.lines:
        rows.append([line.label, *("–" if cell is None else cell.text() for cell in line.cells)])
        if line.held_out is not None:
            rows.append([HELD_OUT, *("–" if cell is None else cell.text() for cell in line.held_out)])
    compared = [
        [line.label, *("" if each is None else _difference(each) for each in line.differences[1:])]
        for line in section.lines
        if any(line.differences)
    ]
    gained = [
        [line.label, *("" if each is None else _difference(each) for each in line.gained)]
        for line in section.lines
        if line.gained
    ]
    return join(
        [
            el("p", section.images),
            table(["", *titles], rows, caption="scores"),
            el("h3", f"Difference to {titles[0]}") if compared else None,
            table(["", *titles[1:]], compared, caption="differences") if compared else None,
            el("h3", GAIN.capitalize()) if gained else None,
            table(["", *titles], gained, caption="gains") if gained else None,
            *(el("p", f"Papers: {published_words(each)}", class_="note") for each in section.published),
        ]
    )


def _difference(found: Difference) -> str:
    return difference_cell(found).text(signed=True)


# --- LaTeX ------------------------------------------------------------------------------------------------------------

_LATEX = {
    "\\": r"\textbackslash{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def _tex_text(text: str) -> str:
    """A text in which nothing is a command of LaTeX's."""
    return "".join(_LATEX.get(mark, mark) for mark in printable(text))


def _tex(scores: ScoreTable) -> str:
    return "\n".join([*_tex_lines(scores), ""])


def _tex_lines(scores: ScoreTable) -> Iterator[str]:
    for column in scores.columns:
        if column.family is None:
            yield f"% {printable(column.title)}: {printable('; '.join(column.names))}"
    yield from (f"% {printable(note)}" for note in scores.notes)
    yield rf"\begin{{tabular}}{{l{'r' * len(scores.columns)}}}"
    yield r"\hline"
    yield _tex_row("", [_tex_text(column.title) for column in scores.columns])
    for section in scores.sections:
        yield r"\hline"
        yield rf"\multicolumn{{{len(scores.columns) + 1}}}{{l}}{{{_tex_text(section.images)}}} \\"
        for line in section.lines:
            yield _tex_row(line.label, list(map(_tex_cell, line.cells)))
            if line.held_out is not None:
                yield _tex_row("held out", list(map(_tex_cell, line.held_out)))
        for heading, compared in (
            (f"difference to {scores.columns[0].title}", [(line.label, line.differences) for line in section.lines]),
            (GAIN, [(line.label, line.gained) for line in section.lines]),
        ):
            if any(any(found) for _, found in compared):
                yield rf"\multicolumn{{{len(scores.columns) + 1}}}{{l}}{{{heading}}} \\"
            for label, found in compared:
                if any(found):
                    numbers = ["" if each is None else _tex_number(difference_cell(each), "+") for each in found]
                    yield _tex_row(label, numbers)
        for each in section.published:
            yield f"% papers: {printable(published_words(each))}"
    yield r"\hline"
    yield r"\end{tabular}"


def _tex_row(label: str, cells: list[str]) -> str:
    return " & ".join([_tex_text(label), *cells]) + r" \\"


def _tex_cell(cell: Cell | None) -> str:
    return "--" if cell is None else _tex_number(cell)


def _tex_number(cell: Cell, sign: str = "") -> str:
    """In per cent, as in `$63.3$ [$61.8$, $64.7$]`: between dollars a minus is one."""
    value, low, high, spread = (
        None if each is None else f"{100 * each:{sign}.1f}" for each in (cell.value, cell.low, cell.high, cell.spread)
    )
    if sign and cell.low is not None and cell.high is not None:  # of a difference
        low, high = (sign * (text[0] not in "-<>") + text for text in map(end_of_difference, (cell.low, cell.high)))
    if spread is not None:
        return rf"${value} \pm {spread.lstrip('+')}$"
    return f"${value}$" if low is None else f"${value}$ [${low}$, ${high}$]"


FORMS: dict[str, Callable[[ScoreTable], str]] = {".html": _html, ".json": _json, ".csv": _csv, ".tex": _tex}
"""How a table is written, by the ending of the file's name."""
