"""The short flags: each stands for a key of the recipe, and is written down here alone.

The command line makes its options from this table, and `pretrain(**flags)` and `chosen_recipe(**flags)` take the same
names. A new flag is a new row. (Nothing here imports torch or pydantic: `barlow --help` reads it.)
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Flag:
    """One short flag.

    Args:
        name: as a keyword in Python; on the command line `_` becomes `-`.
        key: the recipe's key that it sets.
        help: what `barlow pretrain --help` says.
        type: of the value; turns a word of the command line into it.
        metavar: how the help calls the value.
        short: a second option of one letter.
        choices: the words that are allowed, where they are few.
        group: the heading in the help: budget or common.
    """

    name: str
    key: str
    help: str
    type: Callable[[str], Any] = str
    metavar: str | None = "N"
    short: str | None = None
    choices: tuple[str, ...] | None = None
    group: str = "common"

    @property
    def option(self) -> str:
        return "--" + self.name.replace("_", "-")


FLAGS = (
    Flag("epochs", "train.epochs", "passes over the images", float, group="budget"),
    Flag("steps", "train.steps", "updates of the weights", int, group="budget"),
    Flag("minutes", "train.minutes", "turned into steps before the first one", float, group="budget"),
    Flag("objective", "objective.kind", "a kind (barlow list objectives); takes its small recipe", metavar="KIND"),
    Flag("encoder", "encoder.name", "any timm name (barlow list encoders)", metavar="NAME"),
    Flag("init", "encoder.init", "start from packaged:NAME, timm:NAME, a run, or a file of weights", metavar="FROM"),
    Flag("batch_size", "train.batch_size", "images a step, of all processes together", int, short="-b"),
    Flag("image_size", "data.image_size", "of the views: a side, or height x width (32x128)", metavar="PX|HxW"),
    Flag("seed", "seed", "of the weights, the order of the images and every random draw", int),
    Flag("workers", "data.workers", "does not change the result", int, short="-j"),
    Flag("device", "train.device", "where to train", metavar="cpu|cuda|mps"),
    Flag(
        "rows_in_memory",
        "train.rows_in_memory",
        "a large batch in the memory of K images: the loss is exact, batch norm sees K",
        int,
        "K",
    ),
    Flag("precision", "train.precision", "of the networks", metavar=None, choices=("bf16", "float32", "auto")),
    Flag("max_bad", "data.max_bad", "unreadable images allowed (recipe: 0.01)", float, "SHARE"),
)

BUDGETS = tuple(flag.name for flag in FLAGS if flag.group == "budget")


CALLED_ELSEWHERE = {
    "arch": "--encoder",
    "backbone": "--encoder",
    "bs": "--batch-size",
    "config": "--recipe",
    "gpus": "--devices",
    "lambd": "--objective.redundancy",
    "lambda": "--objective.redundancy",
    "learning-rate": "--optim.lr_per_256",
    "loss": "--objective",
    "lr": "--optim.lr_per_256",
    "method": "--objective",
    "model": "--encoder",
    "num-workers": "--workers",
    "optimizer": "--optim.kind",
    "output-dir": "--out",
    "pretrained": "--init",
    "wd": "--optim.weight_decay",
}
"""What other programs call the flags and keys that there are here."""


def meant(word: str, options: Iterable[str]) -> str | None:
    """The flag, or the recipe's key as a flag, that somebody meant by a flag that there is not; None if none is near.

    Args:
        word: what was given, as `--lr`.
        options: the flags that there are.
    """
    name = word.partition("=")[0].lstrip("-").replace("_", "-").lower()
    by_name = {option.lstrip("-"): option for option in options if option.startswith("--") and option != "--help"}
    if name in by_name:
        return by_name[name]
    if (known := CALLED_ELSEWHERE.get(name)) is not None and ("." in known or known in by_name.values()):
        return known
    # A part of a word is meant more often than a word that looks alike: --batch is --batch-size.
    near = difflib.get_close_matches(name, by_name, n=1, cutoff=0.75) or [
        n for n in by_name if n.startswith(f"{name}-")
    ]
    return by_name[near[0]] if near else None


def as_keys(given: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given (not None) as keys of the recipe.

    Raises:
        TypeError: a name that is no flag.
        ValueError: two budgets.
    """
    keys = {flag.name: flag.key for flag in FLAGS}
    if unknown := given.keys() - keys.keys():
        raise TypeError(f"unknown argument {min(unknown)!r}; allowed: {', '.join(keys)}")
    chosen = {name: value for name, value in given.items() if value is not None}
    budgets = [f"--{name}" for name in BUDGETS if name in chosen]
    if len(budgets) > 1:
        raise ValueError(f"{' and '.join(budgets)} are given; keep one")
    return {keys[name]: value for name, value in chosen.items()}


def split_keys(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The words for argparse, and the recipe's dotted keys: `--a.b value`, `--a.b=value` or `a.b=value`, in YAML."""
    import yaml

    plain: list[str] = []
    changes: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        key = name.removeprefix("--")
        dotted = "." in key and key.replace(".", "").replace("_", "").replace("-", "").isalnum()
        if not (dotted and (equals or name.startswith("--"))):
            plain.append(word)
            continue
        if not equals:
            if not rest:
                raise ValueError(f"{name} needs a value")
            value = rest.pop(0)
        try:
            changes[key.replace("-", "_")] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"{name}: {value!r} is not a value in YAML's notation") from error
    return plain, changes
