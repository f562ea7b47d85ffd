"""`barlow export`: an encoder in the form of another library, with proof."""

import argparse
from typing import Any

from barlow import exits, exports
from barlow.commands.terminal import add_debug, show, tell, verb_parser


def add(verbs: Any) -> None:
    """Adds the verb to the command line."""
    export = verb_parser(
        verbs,
        "export",
        help="write an encoder as timm, torchvision, transformers, ONNX and others read it",
        description="Writes an encoder as a folder that another library reads, with its preprocessing and a "
        "model card. That library reads it in a fresh process first, and must make the same features; else nothing is "
        "written.",
    )
    export.add_argument(
        "encoder", metavar="ENCODER", help="run folder, RUN@STEP, encoder folder, timm:NAME, FILE.py:NAME, …"
    )
    export.add_argument("--to", required=True, metavar="FORM", help=", ".join(exports.names()))
    export.add_argument("-o", "--out", required=True, metavar="DIR", help="a folder that does not exist yet")
    export.add_argument("--license", metavar="NAME", help="for the card, as apache-2.0; default: it says none is known")
    export.add_argument("--images", nargs="+", metavar="FOLDER", help="to compare on; default: the run's own")
    add_debug(export)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    from barlow.exporting import export
    from barlow.wording import in_flags

    done = in_flags(export)(
        arguments.encoder,
        arguments.to,
        arguments.out,
        license=arguments.license,
        images=arguments.images,
        tell=tell,
    )
    show(f"export   {done.folder}   ({', '.join(done.files)})")
    show(f"card     {done.folder / 'README.md'}")
    return exits.OK
