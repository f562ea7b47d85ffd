"""`barlow import`: writes weights of others as an encoder that everything here reads."""

import argparse
from typing import Any

from barlow import exits
from barlow.commands.terminal import add_debug, show, show_advice, tell, verb_parser

EPILOG = """\
FILE is what another project has saved: safetensors, .pth, .pt, .ckpt, .pth.tar; or a
folder of timm's, as on the Hugging Face hub, whose config.json says all of it. Nothing
in it is run. The layouts of Barlow Twins, VICReg, MoCo, SimSiam, SwAV, DINO, solo-learn,
lightly, VISSL, mmselfsup, timm and torchvision are known (docs/weights.md).

The network is seen in the shapes of the tensors. Where they do not show it, describe it
as in a recipe:
  --encoder resnet18 --encoder.stem small \\
  --encoder.options '{layers: [1, 1, 1, 1]}'
"""


def add(verbs: Any) -> None:
    """Adds the verb to the command line."""
    importing = verb_parser(
        verbs,
        "import",
        help="write weights of others as an encoder",
        description="Reads a file of weights and writes an encoder's folder: network, weights and what\n"
        "they expect of an image. Every tensor is used, or dropped by a rule that is named, or\n"
        "it is an error.",
        epilog=EPILOG,
    )
    importing.add_argument("file", metavar="FILE", help="see below; or timm:NAME, packaged:NAME")
    importing.add_argument("-o", "--out", required=True, metavar="DIR", help="a new folder, for the encoder")
    importing.add_argument(
        "--encoder", metavar="NAME", help="the network, as timm calls it, or auto (as the shapes show it)"
    )
    importing.add_argument("--image-size", metavar="PX|HxW", help="of its images, in place of the usual one")
    for name, what in (("--mean", "means"), ("--std", "standard deviations")):
        importing.add_argument(
            name, nargs="+", type=float, metavar="X", help=f"{what} of the channels, of pixels in [0, 1]"
        )
    add_debug(importing)


def run(arguments: argparse.Namespace, changes: dict[str, Any]) -> int:
    """Runs the command, with the recipe's keys that were given; returns the exit code."""
    from barlow.importing import import_weights
    from barlow.wording import in_flags

    found = in_flags(import_weights)(
        arguments.file,
        arguments.out,
        encoder=arguments.encoder,
        overrides=changes,
        image_size=arguments.image_size,
        mean=arguments.mean,
        std=arguments.std,
        tell=tell,
    )
    show_advice(found.advice)
    show(f"encoder  {found.folder}   (barlow.load_encoder({str(found.folder)!r}))")
    return exits.OK
