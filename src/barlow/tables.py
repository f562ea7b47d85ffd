"""Of which kind each value of a stored table is, for those that are read again.

A seal says that a table is the one that was written, and anyone can seal another. So what is read of one is checked in
this one place, by the name of its file. An error names the file, the key, what is there and what belongs there.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barlow.exits import UnusableData
from barlow.printable import printable


@dataclass(frozen=True)
class Kind:
    """A kind of value: what a message calls it, and whether a value is one."""

    words: str
    holds: Callable[[Any], bool]

    def or_null(self) -> "Kind":
        return Kind(f"{self.words} or null", lambda value: value is None or self.holds(value))


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 10**15


def _two(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_whole, value))


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _list_of(kind: Kind, words: str) -> Kind:
    return Kind(f"a list of {words}", lambda value: isinstance(value, list) and all(map(kind.holds, value)))


TEXT = Kind("text", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
WHOLE = Kind("a whole number from 0 on", _whole)
POSITIVE = Kind("a whole number from 1 on", lambda value: _whole(value) and value > 0)
INTEGER = Kind("a whole number", lambda value: type(value) is int)
NUMBER = Kind("a number", _number)
TABLE = Kind("a table", lambda value: isinstance(value, dict))
TEXTS, NUMBERS, TABLES = _list_of(TEXT, "text"), _list_of(NUMBER, "numbers"), _list_of(TABLE, "tables")
PLACES = Kind("a table of text", lambda value: isinstance(value, dict) and all(map(TEXT.holds, value.values())))
NAMED_NUMBERS = Kind("a table of numbers", lambda value: isinstance(value, dict) and all(map(_number, value.values())))
SIZE = Kind("a size: one whole number or two", lambda value: _whole(value) or _two(value))
KINDS = Kind("timm or custom", lambda value: value in ("timm", "custom"))


Schema = Mapping[str, "Kind | Schema | list[Schema]"]
"""Kinds by key; of a key that ends in a question mark, the value may be missing."""

RECIPE: Schema = {
    "encoder": {"name": TEXT, "options": TABLE, "stem": TEXT, "zero_init_last": FLAG},
    "data": {"mean": NUMBERS, "std": NUMBERS},
}

SCHEMAS: Mapping[str, Schema] = {
    "run.json": {
        "asked": {"train": TABLE},
        "recipe": {"train": {"steps": POSITIVE}},
        "run?": TEXT,
        "folders?": PLACES,
        "starts?": TABLES,
        "extensions?": [{"steps_before": POSITIVE}],
    },
    "state.json": {
        "step": WHOLE,
        "run?": TEXT,
        "recipe?": RECIPE,
        "optimizer?": {"class": TEXT, "groups": TABLES},
        "terms?": NAMED_NUMBERS,
    },
    "config.json": {
        "kind": KINDS,
        "name": TEXT,
        "in_channels": POSITIVE,
        "image_size": SIZE,
        "stem": TEXT,
        "zero_init_last": FLAG,
        "options": TABLE,
        "seed": INTEGER,
        "num_features": POSITIVE,
        "model_sha256?": TEXT,
        "preprocessing": {
            "size": SIZE,
            "crop_ratio": NUMBER,
            "interpolation": TEXT,
            "mean": NUMBERS,
            "std": NUMBERS,
            "channels": POSITIVE,
            "value_range?": NUMBERS.or_null(),
        },
    },
    "data.json": {
        "usable": WHOLE,
        "candidates": WHOLE,
        "skipped": [{"id": WHOLE}],
        "fingerprint?": TEXT,
        "contents?": TEXT,
    },
    "recipe.yaml": {"data": {"sources": TEXTS}},
}
"""By the names of files, what is read of each. Other keys may be there."""


def checked(content: Any, path: Path, formats: int | None = None) -> dict[str, Any]:
    """A table as it was read, if its values are of the kinds that they should be.

    Args:
        content: what the file held.
        path: the file. Its name says what should be in it.
        formats: the newest format that is known. Of a later one nothing is checked: the caller refuses it.

    Raises:
        UnusableData: one of them is not.
    """
    if not isinstance(content, dict):
        raise UnusableData(f"{path} is incomplete or damaged: it is not a table")
    form = content.get("format")
    if formats is not None and type(form) is int and form > formats:
        return content
    if wrong := next(_wrong(content, SCHEMAS[path.name], ""), None):
        raise UnusableData(f"{path} is incomplete or damaged: {wrong}")
    return content


def _wrong(content: Mapping[str, Any], schema: Schema, above: str) -> Iterator[str]:
    for name, kind in schema.items():
        key = name.removesuffix("?")
        where = f"{above}{key}"
        value: Any = content.get(key)
        if key not in content:
            if key == name:
                yield f"{where!r} is missing"
        elif isinstance(kind, Kind):
            if not kind.holds(value):
                yield _is(where, value, kind)
        elif isinstance(kind, list):
            if not TABLES.holds(value):
                yield _is(where, value, TABLES)
            else:
                for number, each in enumerate(value):
                    yield from _wrong(each, kind[0], f"{where}.{number}.")
        elif not isinstance(value, dict):
            yield _is(where, value, TABLE)
        else:
            yield from _wrong(value, kind, f"{where}.")


def _is(where: str, value: Any, kind: Kind) -> str:
    shown = printable(repr(value))
    return f"{where} is {shown[:60]}{'…' if len(shown) > 60 else ''}, and should be {kind.words}"
