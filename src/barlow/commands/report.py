"""`barlow report`: one HTML file of a run, or of several."""

import argparse
from typing import Any

from barlow import exits
from barlow.commands.terminal import add_debug, show, tell, verb_parser


def add(verbs: Any) -> None:
    """Adds the verb to the command line."""
    report = verb_parser(
        verbs,
        "report",
        help="one HTML file of a run, to look at and to send around",
        description="Writes what a run has done as one HTML file that needs no network and no other file: verdict, "
        "curves, views, neighbours, a map of the images, evaluations. Of several runs, it compares them.",
    )
    report.add_argument("runs", nargs="+", metavar="RUN", help="run folder; several are compared")
    report.add_argument("-o", "--out", metavar="FILE", help="default: RUN/report.html; needed for several")
    report.add_argument("--figures", metavar="DIR", help="write the figures as SVG and PNG files, too")
    report.add_argument("--overwrite", action="store_true", help="replace the file in --out, and figures of its names")
    report.add_argument(
        "--map",
        default="tsne",
        metavar="pca|tsne|pacmap",
        help="what the map shows first; pca takes no time; default: %(default)s",
    )
    report.add_argument("--max-images", type=int, default=5000, metavar="N", help="of the map; default: %(default)s")
    add_debug(report)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    from barlow.report import write_report
    from barlow.wording import in_flags

    path = in_flags(write_report)(
        arguments.runs,
        arguments.out,
        figures=arguments.figures,
        overwrite=arguments.overwrite,
        map=arguments.map,
        max_images=arguments.max_images,
        tell=tell,
    )
    show(f"report   {path}   ({path.stat().st_size / 1e6:.1f} MB)")
    return exits.OK
