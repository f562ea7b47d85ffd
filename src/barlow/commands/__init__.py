"""The verbs of the command line, each a file of its own name. (`import` is a word of Python's: its file is
`importing.py`.)

A verb's file has `add(verbs)`, which adds its parser, and `run(arguments)`, which returns the exit code. A verb that
takes keys of the recipe, as `--optim.lr_per_256`, says so: its `run` gets them as `changes`. Whatever takes long to
import is imported inside of `run`, so that `barlow --help` comes at once.
"""

VERBS = (
    "check",
    "pretrain",
    "evaluate",
    "embed",
    "search",
    "duplicates",
    "report",
    "compare",
    "import",
    "export",
    "list",
)
"""In the order in which the help shows them."""

TAKE_KEYS = ("pretrain", "evaluate", "import")
"""Verbs that take keys of the recipe."""

_FILES = {"import": "importing"}
"""Verbs whose file has another name."""


def file_of(verb: str) -> str:
    """The module of this folder that a verb is in."""
    return _FILES.get(verb, verb)
