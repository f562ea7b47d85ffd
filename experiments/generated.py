"""Puts what was measured into a page: the shared end of the programs that write tables from lines of results."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def write_or_check(
    about: str, page: Path, logs: Sequence[Path], page_with: Callable[[str, Sequence[dict[str, Any]]], str]
) -> int:
    """Writes the page anew from the logs' lines, or with `--check` returns 1 if that would change it."""
    parser = argparse.ArgumentParser(description=about.split("\n")[0])
    parser.add_argument("--check", action="store_true", help=f"exit with 1 if {page.name} is not up to date")
    arguments = parser.parse_args(sys.argv[1:])
    text = page.read_text(encoding="utf-8")
    lines = [json.loads(line) for log in logs for line in log.read_text(encoding="utf-8").splitlines() if line]
    wanted = page_with(text, lines)
    if arguments.check:
        return int(wanted != text)
    page.write_text(wanted, encoding="utf-8")
    return 0


def put_between(text: str, begin: str, end: str, written: str) -> str:
    """A page's text with what was written in place of what stood between two markers.

    Raises:
        ValueError: a marker is missing, or they are the wrong way round.
    """
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found and found_end):
        raise ValueError(f"the page has no {begin} followed by {end}")
    return f"{before}{begin}\n{written}\n{end}{after}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, or that nothing was measured."""
    made = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
    return "\n".join(made) if len(made) > 2 else "*not measured*"
