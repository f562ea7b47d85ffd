"""The verbs of the command line, each a file of its own name.

A verb's file has `add(verbs)`, which adds its parser, and `run(arguments)`, which returns the exit code. A verb that
takes keys of the recipe, as `--optim.lr_per_256`, says so: its `run` gets them as `changes`. Whatever takes long to
import is imported inside of `run`, so that `barlow --help` comes at once.
"""

VERBS = ("check", "pretrain", "evaluate", "report", "compare", "export", "embed", "list")
"""In the order in which the help shows them."""

TAKE_KEYS = ("pretrain", "evaluate")
"""Verbs that take keys of the recipe."""
