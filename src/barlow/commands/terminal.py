"""What all commands have in common: how they print, and what their parsers say."""

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NoReturn

from barlow import exits, telling
from barlow.printable import printable, printable_lines

WIDTH = 80
"""Columns that everything printed fits into."""


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(exits.USAGE, printable(f"barlow: {message} (see {self.prog} --help)") + "\n")


class Help(argparse.HelpFormatter):
    """Help of `WIDTH` columns: paragraphs are filled, and lines that begin with a space, as commands do, are kept."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=WIDTH)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        for kept, group in groupby(text.splitlines(), key=lambda line: not line or line[0] == " "):
            given = list(group)
            lines += given if kept else textwrap.wrap(" ".join(given), width, break_on_hyphens=False)
        return "\n".join(indent + line for line in lines)


def verb_parser(verbs: Any, name: str, **words: Any) -> argparse.ArgumentParser:
    """A verb's parser, with the flag that all of them have.

    Args:
        verbs: what argparse's `add_subparsers` returned.
        name: of the verb.
        words: of argparse's `add_parser`.
    """
    parser: argparse.ArgumentParser = verbs.add_parser(name, allow_abbrev=False, formatter_class=Help, **words)
    return parser


def add_debug(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that every verb has, as its last."""
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def first_process() -> bool:
    """Whether this is the process that speaks, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _print_error(line: str) -> None:
    start = "\r\x1b[K" if sys.stderr.isatty() else ""  # takes the place of the live line, which has no end yet
    print(start + printable(line), file=sys.stderr, flush=True)


def put(text: str, end: str = "\n") -> None:
    """Prints what a command is for. If that cannot be done, the command has failed."""
    print(printable_lines(text), end=end)


tell = telling.unfailing(_print_error)
"""Says a line on standard error; that may fail."""

show = telling.unfailing(put)
"""Shows a result that is also in a file, on standard output; that may fail."""


def show_advice(lines: Sequence[str]) -> None:
    """Shows lines that begin with a word in a column of its own."""
    for line in lines:
        show(textwrap.fill(line, WIDTH, subsequent_indent=" " * 9, break_on_hyphens=False))


def until_read(command: Callable[..., int], *given: Any) -> int:
    """What only prints is through when its reader has seen enough (`| head`)."""
    try:
        code = command(*given)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return exits.OK
