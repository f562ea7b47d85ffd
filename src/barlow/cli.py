"""The command line: finds the verb (commands/), runs it, and turns an error into a line and an exit code."""

import argparse
import importlib
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from barlow import ending, exits, telling
from barlow.commands import TAKE_KEYS, VERBS, file_of
from barlow.commands.terminal import Parser, first_process, put, tell
from barlow.printable import printable_lines
from barlow.recipe.flags import meant, split_keys

GRACE_SECONDS = 2.0
"""What is wrong is mostly wrong in every process alike, or in one, and then for the rest that it is gone: whoever has
the least to say leaves the launcher time to end it first."""


def _parser() -> Parser:
    parser = Parser(
        prog="barlow",
        description="Self-supervised image representations: redundancy reduction, and what it is compared with.",
        epilog="Start with:  barlow pretrain FOLDER --out runs/mine",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)

    for verb in VERBS:
        _module(verb).add(verbs)
    return parser


def _module(verb: str) -> Any:
    return importlib.import_module(f"barlow.commands.{file_of(verb)}")


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


def _not_taken(key: str, verb: str) -> str:
    """One line for a recipe's key that was given to a verb that takes none."""
    if key not in ("encoder.stem", "encoder.options"):
        return f"--{key} is a recipe's key; only `barlow pretrain` takes those"
    return (
        f"--{key} describes a file of weights, and `barlow {verb}` does not take it: `barlow import FILE --{key} … "
        "--out DIR` first, and DIR in its place"
    )


def _verb(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    verb: argparse.ArgumentParser = action.choices[name]
    return verb


def _deserted(error: Exception) -> bool:
    """Whether it is about another process, whose own end says more."""
    from barlow.distributed import Deserted

    return isinstance(error, Deserted)


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

        put(f"barlow {__version__}")
        return exits.OK
    if arguments.verb is None:
        parser.print_help()
        return exits.OK
    try:
        if arguments.verb in TAKE_KEYS:
            return int(_module(arguments.verb).run(arguments, changes))
        if changes:
            raise ValueError(_not_taken(next(iter(changes)), arguments.verb))
        return int(_module(arguments.verb).run(arguments))
    except KeyboardInterrupt:
        tell("barlow: stopped at once, and nothing more was saved; a checkpoint from before is kept, if there was one")
        return exits.AT_ONCE
    except Exception as error:
        if arguments.debug:
            error.args = tuple(printable_lines(part) if isinstance(part, str) else part for part in error.args)
            raise
        return _failed(error, arguments)


def _failed(error: Exception, arguments: argparse.Namespace) -> int:
    """Says in one line what ended a command, unless somebody else does, and returns its exit code."""
    code = exits.code_of(error)
    if getattr(error, "told", False) or (code == exits.STOPPED and not first_process()):
        return code
    if "RANK" in os.environ and (not first_process() or _deserted(error)):
        time.sleep(GRACE_SECONDS)
    text = " ".join(str(error).split()) or type(error).__name__
    foreseen = isinstance(error, ValueError | OSError | RuntimeError | MemoryError)
    if code == exits.MEMORY and not hasattr(error, "exit_code"):  # those that have one say what to lower
        text = _without_memory(text, arguments)
    tell(f"barlow: {text}" + ("" if foreseen else f" [{type(error).__name__}; --debug shows where]"))
    return code


def _without_memory(text: str, arguments: argparse.Namespace) -> str:
    """What torch or NumPy said where memory ran out, in a line that says what to do."""
    found = re.search(r"(?:[Tt]ried to allocate|[Uu]nable to allocate) ([\d.]+) ?(bytes|[KMGT]i?B)", text)
    asked = ""
    if found is not None:
        size = f"{int(found[1]) / 1e9:.3g} GB" if found[2] == "bytes" else f"{found[1]} {found[2]}"
        asked = f" ({size} more were asked for)"
    batch = getattr(arguments, "batch_size", None)
    detects = str(getattr(arguments, "protocols", "")).startswith("detect")  # with batches of its own
    if arguments.verb == "pretrain" or detects or not isinstance(batch, int):
        return f"out of memory{asked}: end what else takes memory on this machine, or take one that has more"
    return f"out of memory{asked}: lower --batch-size, which was {batch}"


def _end(code: int) -> NoReturn:
    """Ends the process. One of several goes without the interpreter's farewell: everything is written and the others
    are released by now, and in it torch's communication threads abort a finished process once in some twenty times
    ("terminate called without an active exception")."""
    if "RANK" in os.environ:
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    _end(main())
