"""Messages for two kinds of readers: who types a command reads of flags, who calls a function reads of arguments.

Messages are written once, with the flags of the command line: `use --batch-size 64`. The functions that are called from
Python raise them as `use batch_size=64`, and say so too what they tell meanwhile, and what they advise in the end. The
command line calls the same functions as `in_flags(function)`.
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar

from barlow.printable import printable_lines

_COMMAND = re.compile(
    r"(`?barlow (?:pretrain|evaluate|search|duplicates|report|check|compare|import|export|embed|list)\b[^`;]*)"
)
"""A command that a message spells out stays one."""

_VALUE = r"\d+x\d+|-?\d[\d.]*(?:e-?\d+)?|true|false|null"
_FLAG = re.compile(rf"(?<![\w/.-])--([a-z][a-z0-9_.-]*[a-z0-9_])(?: ({_VALUE})(?![\w.]))?")

_RECIPE = re.compile(r"(?<![\w/.-])-c ([\w/.-]*\w)")

_ONLY_FLAGS = frozenset({"devices", "print-recipe", "help", "debug", "version", "shm-size", "json", "table"})
"""Flags that no function has an argument for. The last is one of `docker run`."""

_SWITCHES = frozenset({"resume", "overwrite", "augment", "fast"})
"""Flags without a value."""

_PLURAL = {"protocol": "protocols", "in": "images"}
"""Flags whose argument has another name."""

_VALUES = {"true": "True", "false": "False", "null": "None"}

Function = TypeVar("Function", bound=Callable[..., Any])


def percent(share: float) -> str:
    """A share as a person reads it, of two digits.

    Example:
        >>> [percent(share) for share in (1.0, 0.998, 0.126, 0.0004)]
        ['100 %', 'over 99 %', '13 %', '0.04 %']
    """
    if 0.995 <= share < 1:
        return "over 99 %"
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.2g} %"


def many(count: int, one: str, several: str) -> str:
    """A count with what is counted, and whatever follows from how many it is.

    Example:
        >>> many(1, "image has", "images have"), many(2_000, "image has", "images have")
        ('1 image has', '2,000 images have')
    """
    return f"{count:,} {one if count == 1 else several}"


def as_arguments(message: str) -> str:
    """A message with arguments in place of flags.

    Example:
        >>> as_arguments("--rows-in-memory 2 leaves a chunk of one row: lower --batch-size, or set --train.steps 3")
        "rows_in_memory=2 leaves a chunk of one row: lower batch_size, or set overrides={'train.steps': 3}"
        >>> as_arguments("stopped. To go on: barlow pretrain --resume --out runs/photos")
        'stopped. To go on: barlow pretrain --resume --out runs/photos'
        >>> as_arguments("--image-size 16x240 fits them")
        "image_size='16x240' fits them"
        >>> as_arguments("-c small_vicreg in place of it")
        "recipe='small_vicreg' in place of it"
    """
    parts = _COMMAND.split(message)
    return "".join(
        part if i % 2 else _RECIPE.sub(r"recipe='\1'", _FLAG.sub(_as_argument, part)) for i, part in enumerate(parts)
    )


def _as_argument(found: re.Match[str]) -> str:
    name, value = found[1], found[2]
    written = repr(value) if value and "x" in value else _VALUES.get(value, value)
    after = f" {value}" if value else ""
    if name in _ONLY_FLAGS:
        return found[0]
    if "." in name:
        return f"overrides={{{name!r}: {written}}}" if value else f"{name} (in overrides)"
    argument = _PLURAL.get(name, name.replace("-", "_"))
    if name in _SWITCHES:
        return f"{argument}=True{after}"
    return f"{argument}={written}" if value else argument


def _for_callers(message: str) -> str:
    """A message for who calls a function: it speaks of arguments, and has nothing in it that a terminal would obey."""
    return printable_lines(as_arguments(message))


def in_arguments(function: Function) -> Function:
    """The function as it is called from Python: whatever it says is `_for_callers`.

    That is the text of its errors, which keep their types; the lines that its argument `tell` receives; and those of
    `advice`, if it returns a dataclass that has them.
    """

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        if (tell := kwargs.get("tell")) is not None:
            kwargs["tell"] = lambda line: tell(_for_callers(line))
        try:
            result = function(*args, **kwargs)
        except (ValueError, RuntimeError, OSError) as error:
            if len(error.args) == 1 and isinstance(error.args[0], str):
                error.args = (_for_callers(error.args[0]),)
            raise
        if dataclasses.is_dataclass(result) and hasattr(result, "advice"):
            advice = [_for_callers(line) for line in result.advice]
            return dataclasses.replace(result, advice=advice)  # type: ignore[type-var]
        return result

    return called  # type: ignore[return-value]


def in_flags(function: Function) -> Function:
    """A function that `in_arguments` has made, as the command line calls it: whose messages speak of flags."""
    inner: Function = function.__wrapped__  # type: ignore[attr-defined]
    return inner
