"""`barlow compare`: runs beside each other."""

import argparse
import json
from typing import Any

from barlow import exits
from barlow.commands.terminal import add_debug, put, until_read, verb_parser


def add(verbs: Any) -> None:
    """Adds the verb to the command line."""
    compare = verb_parser(
        verbs,
        "compare",
        help="runs beside each other: recipes, scores, cost",
        description="Sets runs beside each other: how they stand, what differs in their recipes, the scores of their "
        "newest evaluations with intervals, and what they cost. Runs that differ in their seed alone are one column.",
    )
    compare.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    compare.add_argument("--json", action="store_true", help="everything, for programs")
    add_debug(compare)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    return until_read(_compare, arguments)


def _compare(arguments: argparse.Namespace) -> int:
    from barlow.seals import finite
    from barlow.study import compare
    from barlow.wording import in_flags

    found = in_flags(compare)(*arguments.runs)
    if arguments.json:
        put(json.dumps(finite(found.as_dict()), indent=2, default=str))
    else:
        put(found.text(), end="")
    return exits.OK
