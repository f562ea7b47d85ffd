"""`barlow duplicates`: images that are copies of each other, and test images that are in the training set."""

import argparse
import json
from typing import Any

from barlow import exits
from barlow.commands.terminal import add_debug, put, tell, until_read, verb_parser


def add(verbs: Any) -> None:
    """Adds the verb to the command line."""
    duplicates = verb_parser(
        verbs,
        "duplicates",
        help="images that are copies of each other, in a set or between two",
        description="Finds copies though their files differ: made smaller, recompressed, brightened, cropped, "
        "mirrored. Thresholds are calibrated on the set itself. FOLDER: one or several folders, or the name of a set. "
        "Nothing is deleted, and nothing is written to them.",
    )
    duplicates.add_argument("data", nargs="+", metavar="FOLDER", help="images")
    duplicates.add_argument("--against", nargs="+", metavar="FOLDER", help="test images: which are in the set, too?")
    duplicates.add_argument(
        "--encoder", metavar="ENCODER", help="compare by its vectors, too: a run folder, packaged:NAME, timm:NAME, …"
    )
    duplicates.add_argument("--csv", metavar="FILE.csv", help="a row for each image of a group and each leak")
    duplicates.add_argument("--overwrite", action="store_true", help="replace the file in --csv")
    duplicates.add_argument("-b", "--batch-size", type=int, default=64, metavar="N")
    duplicates.add_argument("--device", default="auto", metavar="cpu|cuda|mps")
    duplicates.add_argument("--json", action="store_true", help="everything that was found, for programs")
    add_debug(duplicates)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    return until_read(_duplicates, arguments)


def _duplicates(arguments: argparse.Namespace) -> int:
    from barlow import storage
    from barlow.features.copy_finding import duplicates
    from barlow.output_file import checked_output
    from barlow.seals import finite
    from barlow.wording import in_flags

    path = None
    if arguments.csv is not None:
        folders = [*arguments.data, *(arguments.against or [])]
        path = checked_output(arguments.csv, "--csv", endings=[".csv"], overwrite=arguments.overwrite, images=folders)
    found = in_flags(duplicates)(
        arguments.data,
        arguments.against,
        encoder=arguments.encoder,
        batch_size=arguments.batch_size,
        device=arguments.device,
        tell=tell,
    )
    if path is not None:
        storage.write_text(path, found.csv())
    if arguments.json:
        put(json.dumps(finite(found.as_dict()), indent=2))
    else:
        put(found.text(), end="")
    if path is not None:
        tell(f"csv      {path}")
    return exits.OK
