"""The command line: `barlow pretrain`, `barlow evaluate`, `barlow list`. Parses, calls, prints; nothing else."""

import argparse
import os
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from barlow import ending, exits, telling
from barlow.listing import ENTRIES
from barlow.printable import printable, printable_lines
from barlow.recipe.flags import FLAGS, meant, split_keys

GRACE_SECONDS = 2.0
"""What is wrong is mostly wrong in every process alike, or in one, and then for the rest that it is gone: whoever has
the least to say leaves the launcher time to end it first."""

EPILOG = """\
Any key of the recipe can be set by its dotted name, and wins over the file:
  --objective.slicings 1  --optim.lr_per_256 1e-3  --views.0.1.p 0
`barlow pretrain FOLDER --print-recipe` shows them all.
"""


class _Parser(argparse.ArgumentParser):
    """argparse, with errors of one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(exits.USAGE, printable(f"barlow: {message} (see {self.prog} --help)") + "\n")


def _parser() -> _Parser:
    parser = _Parser(
        prog="barlow",
        description="Self-supervised image representations: redundancy reduction, and what it is compared with.",
        epilog="Start with:  barlow pretrain FOLDER --out runs/mine",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)

    pretrain = verbs.add_parser(
        "pretrain",
        help="train an encoder on images without labels",
        description="Trains an encoder on images without labels. FOLDER: one or several folders,\n"
        "nested or flat, or the name of a set (barlow list datasets).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
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
    folder = pretrain.add_argument_group("run folder")
    folder.add_argument("--resume", action="store_true", help="go on with the run in --out, or begin it")
    folder.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    folder.add_argument("--print-recipe", action="store_true", help="print the recipe with its changes, and stop")
    _debug(pretrain)

    evaluate = verbs.add_parser(
        "evaluate",
        help="measure a run's encoder with labelled images",
        description="Embeds labelled images once and measures the encoder by kNN and linear probes, beside raw "
        "pixels and the untrained network. Labels are the names of the sub-folders.",
        allow_abbrev=False,
    )
    evaluate.add_argument("run", metavar="RUN", help="run folder, or RUN@STEP for one of its checkpoints")
    evaluate.add_argument("--train", nargs="+", metavar="FOLDER", help="labelled images to learn from")
    evaluate.add_argument("--test", nargs="+", metavar="FOLDER", help="labelled images to be measured on, used once")
    evaluate.add_argument(
        "--probes",
        nargs="+",
        metavar="KIND",
        help="default: knn knn5_euclidean logistic linear_sgd (Barlow Twins' and VICReg's 100 epochs); linear_adam is "
        "W-MSE's 500 epochs",
    )
    evaluate.add_argument(
        "--augment",
        action="store_true",
        help="linear_sgd on augmented views too, as in the papers: embeds the training images in each of its 100 "
        "epochs, so it is meant for GPUs",
    )
    evaluate.add_argument("-o", "--out", metavar="DIR", help="for results and features; default: RUN/evaluation")
    evaluate.add_argument("-b", "--batch-size", type=int, default=256, metavar="N")
    evaluate.add_argument("--device", default="auto", metavar="cpu|cuda|mps")
    evaluate.add_argument("--max-bad", type=float, default=0.01, metavar="SHARE", help="default: %(default)s")
    _debug(evaluate)

    listing = verbs.add_parser(
        "list",
        help="what there is to choose from",
        description="Lists what there is to choose from.",
        allow_abbrev=False,
    )
    listing.add_argument("what", nargs="?", choices=tuple(ENTRIES))
    listing.add_argument("pattern", nargs="?", help="encoders only: search all of timm's names, as in 'resnet*'")
    _debug(listing)
    return parser


def _debug(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _without(words: Sequence[str], flag: str) -> list[str]:
    """The words without a flag and its value."""
    kept = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == flag:
            del rest[:1]
        elif not word.startswith(f"{flag}="):
            kept.append(word)
    return kept


def _unknown(word: str, parser: argparse.ArgumentParser) -> str:
    """One line for a word that no flag takes, naming the flag or the recipe's key that was meant."""
    option = meant(word, [option for action in parser._actions for option in action.option_strings])
    if option is None and parser.prog.endswith("pretrain"):
        from barlow.recipe.request import key_called

        key = key_called(word.partition("=")[0])
        option = None if key is None else f"--{key}"
    elif option is not None and "." in option and not parser.prog.endswith("pretrain"):
        option = None
    return f"unknown flag {word!r}" + (f"; did you mean {option}?" if option else "")


def _verb(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    verb: argparse.ArgumentParser = action.choices[name]
    return verb


def _print_error(line: str) -> None:
    start = "\r\x1b[K" if sys.stderr.isatty() else ""  # takes the place of the live line, which has no end yet
    print(start + printable(line), file=sys.stderr, flush=True)


def _print(text: str, end: str = "\n") -> None:
    """A result, for stdout."""
    print(printable_lines(text), end=end)


_tell = telling.unfailing(_print_error)
_show = telling.unfailing(_print)
"""Shows a result that is also in a file."""


def _pretrain(arguments: argparse.Namespace, changes: dict[str, Any]) -> int:
    if arguments.objective is None and "objective.kind" in changes:
        arguments.objective = changes.pop("objective.kind")
    if arguments.print_recipe:
        return _until_read(_print_recipe, arguments, changes)
    if arguments.devices is not None:
        return _launch(arguments, changes)
    from pathlib import Path

    from barlow.evaluation import own_set
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
        tell=_tell,
    )
    if not _first_process():
        return exits.OK
    run = result.run_folder
    _show(f"encoder  {run / 'encoder'}   (barlow.load_encoder({str(run)!r}))")
    _show(f"views    {run / 'views.png'}   log {run / 'metrics.jsonl'}")
    _print_advice(result.advice)
    _show(f"next     barlow evaluate {run}" + ("" if own_set(run) else " --train LABELLED/train --test LABELLED/test"))
    return exits.OK


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


def _first_process() -> bool:
    """Whether this is the process that speaks, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _deserted(error: Exception) -> bool:
    """Whether it is about another process, whose own end says more."""
    from barlow.distributed import Deserted

    return isinstance(error, Deserted)


def _print_recipe(arguments: argparse.Namespace, changes: dict[str, Any]) -> int:
    from barlow.recipe.files import as_yaml
    from barlow.recipe.request import chosen_recipe

    chosen = chosen_recipe(**_asked(arguments, changes))
    _print(as_yaml(chosen.as_dict()), end="")
    return exits.OK


def _evaluate(arguments: argparse.Namespace) -> int:
    from barlow.evaluation import NotKept, evaluate
    from barlow.wording import in_flags

    try:
        evaluation = in_flags(evaluate)(
            arguments.run,
            train=arguments.train,
            test=arguments.test,
            probes=arguments.probes,
            batch_size=arguments.batch_size,
            device=arguments.device,
            max_bad=arguments.max_bad,
            augment=arguments.augment,
            out=arguments.out,
            tell=_tell,
        )
    except NotKept as error:
        _show(error.evaluation.table())
        raise
    _show(evaluation.table())
    _print_advice(evaluation.advice)
    _show(f"results  {evaluation.path}")
    return exits.OK


def _print_advice(lines: Sequence[str]) -> None:
    for line in lines:
        _show(textwrap.fill(line, 80, subsequent_indent=" " * 9, break_on_hyphens=False))


def _list(arguments: argparse.Namespace) -> int:
    if arguments.pattern and arguments.what != "encoders":
        raise ValueError(f"a pattern goes with `barlow list encoders` only; given {arguments.pattern!r}")
    if arguments.pattern:
        from barlow.nets.building import list_encoders

        found = list_encoders(arguments.pattern)
        if not found:
            raise ValueError(f"no timm encoder is called {arguments.pattern!r}; try a pattern such as 'resnet*'")
        _print("\n".join(found))
        return exits.OK
    wanted = [arguments.what] if arguments.what else list(ENTRIES)
    for what in wanted:
        if len(wanted) > 1:
            _print(f"{what}:")
        indent = "  " if len(wanted) > 1 else ""
        entries = ENTRIES[what]()
        width = max(len(name) for name in entries)
        for name, about in entries.items():
            gap = " " * (width + 2)
            _print(textwrap.fill(f"{name:{width}}  {about}", 80, initial_indent=indent, subsequent_indent=indent + gap))
        if what == "encoders":
            _print(f"{indent}... and any other timm name: barlow list encoders 'resnet*'")
    return exits.OK


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; every error is one line and an exit code that is not 0."""
    telling.open_closed_streams()
    try:
        with ending.own_process():
            return _run(argv)
    finally:
        telling.flush_or_give_up()


def _run(argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    parser, given = _parser(), _without(words, "--devices")
    try:
        words, changes = split_keys(words)
    except ValueError as error:
        parser.error(str(error))
    arguments, rest = parser.parse_known_args(words)
    arguments.words = given
    if rest:
        verb = _verb(parser, arguments.verb) if arguments.verb else parser
        verb.error(_unknown(rest[0], verb))
    if arguments.version:
        from barlow import __version__

        _print(f"barlow {__version__}")
        return exits.OK
    if arguments.verb is None:
        parser.print_help()
        return exits.OK
    try:
        if arguments.verb == "pretrain":
            return _pretrain(arguments, changes)
        if changes:
            raise ValueError(f"--{next(iter(changes))} is a recipe's key; only `barlow pretrain` takes those")
        return _evaluate(arguments) if arguments.verb == "evaluate" else _until_read(_list, arguments)
    except KeyboardInterrupt:
        _tell("barlow: stopped at once, and nothing more was saved; a checkpoint from before is kept, if there was one")
        return exits.AT_ONCE
    except Exception as error:
        if arguments.debug:
            error.args = tuple(printable_lines(part) if isinstance(part, str) else part for part in error.args)
            raise
        return _failed(error)


def _until_read(command: Callable[..., int], *given: Any) -> int:
    """What only prints is through when its reader has seen enough (`| head`)."""
    try:
        code = command(*given)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return exits.OK


def _failed(error: Exception) -> int:
    """Says in one line what ended a command, unless somebody else does, and returns its exit code."""
    code = exits.code_of(error)
    if getattr(error, "told", False) or (code == exits.STOPPED and not _first_process()):
        return code
    if "RANK" in os.environ and (not _first_process() or _deserted(error)):
        time.sleep(GRACE_SECONDS)
    text = " ".join(str(error).split()) or type(error).__name__
    foreseen = isinstance(error, ValueError | OSError | RuntimeError)
    _tell(f"barlow: {text}" + ("" if foreseen else f" [{type(error).__name__}; --debug shows where]"))
    return code


def _end(code: int) -> NoReturn:
    """Ends the process. One of several goes without the interpreter's farewell: everything is written and the others
    are released by now, and in it torch's communication threads abort a finished process once in some twenty times
    ("terminate called without an active exception")."""
    if "RANK" in os.environ:
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    _end(main())
