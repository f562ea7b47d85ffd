"""`barlow embed`: the features of all images of a set, in one file."""

import argparse
import os
from typing import Any

from barlow import exits
from barlow.commands.terminal import add_debug, first_process, show, tell, verb_parser


def add(verbs: Any) -> None:
    """Adds the verb to the command line."""
    embed = verb_parser(
        verbs,
        "embed",
        help="write the features of all images of a set into one file",
        description="Embeds every image once and writes id, path, label and vector. A command that was stopped or "
        "killed goes on where it was when it is given again.",
    )
    embed.add_argument(
        "encoder", metavar="ENCODER", help="run folder, RUN@STEP, encoder folder, timm:NAME, FILE.py:NAME, …"
    )
    embed.add_argument("data", nargs="+", metavar="DATA", help="folders of images, or the name of a set")
    embed.add_argument("-o", "--out", required=True, metavar="FILE", help=".parquet, or .npy with an index beside it")
    embed.add_argument("--dtype", default="float32", metavar="float16|float32", help="default: %(default)s")
    embed.add_argument("-b", "--batch-size", type=int, default=256, metavar="N")
    embed.add_argument("--device", default="auto", metavar="cpu|cuda|mps")
    embed.add_argument("--devices", type=int, metavar="N", help="processes, a GPU each; the images are shared")
    embed.add_argument("--overwrite", action="store_true", help="replace the file in --out")
    add_debug(embed)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    if arguments.devices is not None:
        return _launch(arguments)
    from barlow.features.embedding import embed
    from barlow.wording import in_flags

    done = in_flags(embed)(
        arguments.encoder,
        arguments.data,
        arguments.out,
        dtype=arguments.dtype,
        batch_size=arguments.batch_size,
        device=arguments.device,
        overwrite=arguments.overwrite,
        tell=tell,
    )
    if done is not None and first_process():
        show(f"features {done.path}   ({done.rows:,} rows of {done.width} {arguments.dtype})")
    return exits.OK


def _launch(arguments: argparse.Namespace) -> int:
    """The same command in several processes."""
    if arguments.devices < 1:
        raise ValueError(f"--devices {arguments.devices}: at least 1")
    if "WORLD_SIZE" in os.environ:
        raise ValueError("--devices is for starting processes, and torchrun has started these already: leave it out")
    from barlow.distributed import check_processes
    from barlow.features.embedding import GO_ON
    from barlow.launching import launch
    from barlow.machine import available_cores

    check_processes(arguments.devices, arguments.device, available_cores(), None)
    return launch(arguments.devices, arguments.words, available_cores(), GO_ON)
