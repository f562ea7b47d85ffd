"""`barlow check`: whether images are fit for training, before anything is trained."""

import argparse
import json
from typing import Any

from barlow import exits
from barlow.commands.terminal import add_debug, put, tell, until_read, verb_parser


def add(verbs: Any) -> None:
    """Adds the verb to the command line."""
    check = verb_parser(
        verbs,
        "check",
        help="whether images are fit for training, and what to expect",
        description="Reads all images once and tells what there is: counts, sizes, classes, unreadable files and why, "
        "copies and near-duplicates; with --test, overlap and differences too; and how long an epoch takes here. "
        "FOLDER: one or several folders, or the name of a set (barlow list datasets). Nothing is written to them.",
    )
    check.add_argument("data", nargs="+", metavar="FOLDER", help="images")
    check.add_argument("--test", nargs="+", metavar="FOLDER", help="images to measure on: are they new, and alike?")
    check.add_argument("-c", "--recipe", metavar="NAME|FILE", help="whose steps are timed; default: small_w_mse")
    check.add_argument("--fast", action="store_true", help="leave the time of a step out")
    check.add_argument("--sheet", metavar="FILE.png", help="a picture of samples and of near-duplicates")
    check.add_argument("--overwrite", action="store_true", help="replace the file in --sheet")
    check.add_argument("--device", default="auto", metavar="cpu|cuda|mps")
    check.add_argument("--json", action="store_true", help="everything that was found, for programs")
    add_debug(check)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    return until_read(_check, arguments)


def _check(arguments: argparse.Namespace) -> int:
    from barlow.checks.checking import check
    from barlow.seals import finite
    from barlow.wording import in_flags

    found = in_flags(check)(
        arguments.data,
        arguments.test,
        recipe=arguments.recipe,
        fast=arguments.fast,
        sheet=arguments.sheet,
        overwrite=arguments.overwrite,
        device=arguments.device,
        tell=tell,
    )
    if arguments.json:
        put(json.dumps(finite(found.as_dict()), indent=2, default=str))
    else:
        put(found.text(), end="")
    if arguments.sheet:
        tell(f"sheet    {arguments.sheet}")
    return exits.OK
