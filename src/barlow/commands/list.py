"""`barlow list`: what there is to choose from."""

import argparse
import textwrap
from typing import Any

from barlow import exits
from barlow.commands.terminal import WIDTH, add_debug, put, until_read, verb_parser
from barlow.listing import ENTRIES


def add(verbs: Any) -> None:
    """Adds the verb to the command line."""
    listing = verb_parser(
        verbs,
        "list",
        help="what there is to choose from",
        description="Lists what there is to choose from.",
    )
    listing.add_argument("what", nargs="?", choices=tuple(ENTRIES), metavar="WHAT", help=", ".join(ENTRIES))
    listing.add_argument("pattern", nargs="?", help="encoders only: search all of timm's names, as in 'resnet*'")
    add_debug(listing)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    return until_read(_list, arguments)


def _list(arguments: argparse.Namespace) -> int:
    if arguments.pattern and arguments.what != "encoders":
        raise ValueError(f"a pattern goes with `barlow list encoders` only; given {arguments.pattern!r}")
    if arguments.pattern:
        from barlow.nets.building import list_encoders

        found = list_encoders(arguments.pattern)
        if not found:
            raise ValueError(f"no timm encoder is called {arguments.pattern!r}; try a pattern such as 'resnet*'")
        put("\n".join(found))
        return exits.OK
    wanted = [arguments.what] if arguments.what else list(ENTRIES)
    for what in wanted:
        if len(wanted) > 1:
            put(f"{what}:")
        indent = "  " if len(wanted) > 1 else ""
        entries = ENTRIES[what]()
        width = max(len(name) for name in entries)
        for name, about in entries.items():
            gap = " " * (width + 2)
            put(textwrap.fill(f"{name:{width}}  {about}", WIDTH, initial_indent=indent, subsequent_indent=indent + gap))
        if what == "encoders":
            put(f"{indent}... and any other timm name: barlow list encoders 'resnet*'")
    return exits.OK
