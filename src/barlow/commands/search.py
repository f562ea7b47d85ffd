"""`barlow search`: the images that an encoder sees most like some others."""

import argparse
import json
from typing import Any

from barlow import exits
from barlow.commands.terminal import add_debug, put, tell, until_read, verb_parser

EPILOG = """\
ENCODER is a run folder, RUN@STEP, a folder with config.json and model.safetensors, a
file of weights (with --encoder NAME), timm:NAME, packaged:NAME, random:NAME or your own
FILE.py:NAME. It may also be a file that barlow embed has written: then --encoder is the
encoder that made it (not needed for queries that are paths in the file), and --in is
where its images are.

  barlow search runs/photos holiday.jpg --in photos/ --sheet found.html
"""


def add(verbs: Any) -> None:
    """Adds the verb to the command line."""
    search = verb_parser(
        verbs,
        "search",
        help="the images that an encoder sees most like some others",
        description="Embeds the queries and the images of --in, compares all pairs by cosine, and shows\n"
        "for each query the most similar images.",
        epilog=EPILOG,
    )
    search.add_argument("named", metavar="ENCODER|FILE", help="see below")
    search.add_argument("queries", nargs="+", metavar="QUERY", help="image files, or folders of them")
    search.add_argument("-k", type=int, default=20, metavar="N", help="how many are shown; default: %(default)s")
    search.add_argument(
        "--in", nargs="+", dest="images", metavar="FOLDER", help="what is searched; default: what a run was trained on"
    )
    search.add_argument("--sheet", metavar="FILE.html", help="writes the pictures that were found as one page, too")
    search.add_argument("--overwrite", action="store_true", help="replace the file in --sheet")
    search.add_argument(
        "--encoder", metavar="NAME", help="the network of a file of weights, or what made a file of features"
    )
    search.add_argument("--image-size", metavar="PX|HxW", help="of foreign weights, in place of their own")
    search.add_argument("-b", "--batch-size", type=int, default=64, metavar="N")
    search.add_argument("--device", default="auto", metavar="cpu|cuda|mps")
    search.add_argument("--json", action="store_true", help="everything that was found, for programs")
    add_debug(search)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    return until_read(_search, arguments)


def _search(arguments: argparse.Namespace) -> int:
    from barlow.features.searching import own_images, search
    from barlow.report.contact_sheet import check_sheet, missing_pictures, write_sheet
    from barlow.seals import finite
    from barlow.wording import in_flags

    sheet = None
    if arguments.sheet is not None:
        folders = [*arguments.queries, *(arguments.images or own_images(arguments.named))]
        sheet = check_sheet(arguments.sheet, overwrite=arguments.overwrite, images=folders)
    found = in_flags(search)(
        arguments.named,
        arguments.queries,
        images=arguments.images,
        k=arguments.k,
        encoder=arguments.encoder,
        image_size=arguments.image_size,
        batch_size=arguments.batch_size,
        device=arguments.device,
        tell=tell,
    )
    if arguments.json:
        put(json.dumps(finite(found.as_dict()), indent=2))
    else:
        put(found.text(), end="")
    if sheet is not None:
        if missing := missing_pictures(found):
            tell(
                f"{len(missing)} pictures are not there, such as {missing[0]}, and are blank in --sheet: name "
                "the folder that was embedded with --in FOLDER"
            )
        tell(f"sheet    {write_sheet(found, sheet, overwrite=arguments.overwrite)}")
    return exits.OK
