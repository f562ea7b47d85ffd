"""`barlow pretrain`: trains an encoder on images without labels."""

import argparse
import os
from typing import TYPE_CHECKING, Any

from barlow import exits
from barlow.commands.terminal import add_debug, first_process, put, show, show_advice, tell, until_read, verb_parser
from barlow.recipe.flags import FLAGS

EPILOG = """\
Any key of the recipe can be set by its dotted name, and wins over the file:
  --objective.slicings 1  --optim.lr_per_256 1e-3  --views.0.1.p 0
`barlow pretrain FOLDER --print-recipe` shows them all.
"""

if TYPE_CHECKING:
    from pathlib import Path


def add(verbs: Any) -> None:
    """Adds the verb to the command line."""
    pretrain = verb_parser(
        verbs,
        "pretrain",
        help="train an encoder on images without labels",
        description="Trains an encoder on images without labels. FOLDER: one or several folders,\n"
        "nested or flat, or the name of a set (barlow list datasets).",
        epilog=EPILOG,
    )
    pretrain.add_argument("data", nargs="*", metavar="FOLDER", help="images; not needed with --resume")
    pretrain.add_argument(
        "-c", "--recipe", metavar="NAME|FILE", help="default: small_w_mse, or that of --objective or --init"
    )
    pretrain.add_argument("-o", "--out", metavar="DIR", help="run folder; default: runs/DATA-OBJECTIVE")
    groups = {
        "budget": pretrain.add_argument_group("budget (one of these; default: the recipe's)"),
        "common": pretrain.add_argument_group("common"),
    }
    for flag in FLAGS:
        options = [*([flag.short] if flag.short else []), flag.option]
        groups[flag.group].add_argument(
            *options, dest=flag.name, type=flag.type, metavar=flag.metavar, choices=flag.choices, help=flag.help
        )
    groups["common"].add_argument("--devices", type=int, metavar="N", help="processes, a GPU each; the batch is shared")
    groups["common"].add_argument(
        "--probe-with",
        nargs="+",
        metavar="FOLDER",
        help="labelled images, none of the test's: kNN on a part of them now and then",
    )
    folder = pretrain.add_argument_group("run folder")
    folder.add_argument("--resume", action="store_true", help="go on with the run in --out, or begin it")
    folder.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    folder.add_argument("--print-recipe", action="store_true", help="print the recipe with its changes, and stop")
    add_debug(pretrain)


def run(arguments: argparse.Namespace, changes: dict[str, Any]) -> int:
    """Runs the command, with the recipe's keys that were given; returns the exit code."""
    if arguments.objective is None and "objective.kind" in changes:
        arguments.objective = changes.pop("objective.kind")
    if arguments.print_recipe:
        return until_read(_print_recipe, arguments, changes)
    if arguments.devices is not None:
        return _launch(arguments, changes)
    from pathlib import Path

    from barlow.evaluated_images import own_set
    from barlow.pretraining import pretrain
    from barlow.recipe.request import chosen_recipe
    from barlow.wording import in_flags

    out = arguments.out
    if out is None:
        if arguments.resume and not arguments.data:
            raise ValueError("--resume needs --out, the run folder to go on with")
        chosen = chosen_recipe(**_asked(arguments, changes))
        sources = chosen.data.sources
        if not sources:
            raise ValueError("no images are named; give a folder, or the name of a set (barlow list datasets)")
        images = Path(sources[0]).resolve().name if len(sources) == 1 else "images"
        name = arguments.objective or Path(arguments.recipe or chosen.objective["kind"]).stem.removeprefix("small_")
        continued = "-continued" if chosen.encoder.init is not None and arguments.recipe is None else ""
        out = Path("runs") / f"{images}-{name}{continued}"
    result = in_flags(pretrain)(
        out=out,
        **_asked(arguments, changes),
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        probe_with=arguments.probe_with,
        tell=tell,
    )
    if not first_process():
        return exits.OK
    run = result.run_folder
    show(f"encoder  {run / 'encoder'}   (barlow.load_encoder({str(run)!r}))")
    show(f"views    {run / 'views.png'}   log {run / 'metrics.jsonl'}")
    show_advice(result.advice)
    show(f"next     {_evaluation(run, own_set(run) is not None)}")
    return exits.OK


def _evaluation(run: "Path", own: bool) -> str:
    """The command that measures a run.

    Args:
        run: its folder.
        own: whether the set that it was trained on has test images of its own.
    """
    from barlow.text_branch import HOME

    if (run / HOME).is_dir():
        return f"barlow evaluate {run} --protocol captions" + ("" if own else " --test CAPTIONS.csv")
    return f"barlow evaluate {run}" + ("" if own else " --train LABELLED/train --test LABELLED/test")


def _asked(arguments: argparse.Namespace, changes: dict[str, Any]) -> dict[str, Any]:
    """What the command says about the recipe, as arguments of `pretrain` and `chosen_recipe`."""
    flags = {flag.name: getattr(arguments, flag.name) for flag in FLAGS}
    return {"data": arguments.data or None, "recipe": arguments.recipe, "overrides": changes, **flags}


def _launch(arguments: argparse.Namespace, changes: dict[str, Any]) -> int:
    """The same command in several processes; whatever the recipe alone tells to be wrong is told before they start."""
    if arguments.devices < 1:
        raise ValueError(f"--devices {arguments.devices}: at least 1")
    if "WORLD_SIZE" in os.environ:
        raise ValueError("--devices is for starting processes, and torchrun has started these already: leave it out")
    from barlow.distributed import check_processes
    from barlow.launching import launch
    from barlow.machine import available_cores
    from barlow.recipe.request import chosen_recipe

    if not arguments.resume:
        train = chosen_recipe(**_asked(arguments, changes)).train
        batch = None if train.batch_size == "auto" else train.batch_size
        check_processes(arguments.devices, train.device, available_cores(), batch)
    return launch(arguments.devices, arguments.words, available_cores())


def _print_recipe(arguments: argparse.Namespace, changes: dict[str, Any]) -> int:
    from barlow.recipe.files import as_yaml
    from barlow.recipe.request import chosen_recipe

    chosen = chosen_recipe(**_asked(arguments, changes))
    put(as_yaml(chosen.as_dict()), end="")
    return exits.OK
