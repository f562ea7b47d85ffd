"""Things that are found by the name of their file: objectives, methods.

A folder holds one file for each; the file's name is the `kind` in a recipe, and the one class that the file lists in
``__all__`` is the thing. Files whose name begins with an underscore are private. Nothing is registered anywhere: a new
file is a new kind. Listing the kinds imports none of the files.
"""

import dataclasses
import difflib
import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any


def kinds(folder: Sequence[str]) -> list[str]:
    """The kinds in a package's folder (its ``__path__``), in alphabetical order."""
    return sorted(m.name for m in pkgutil.iter_modules(folder) if not m.ispkg and not m.name.startswith("_"))


def load(package: str, folder: Sequence[str], kind: str) -> type[Any]:
    """The class of a kind.

    Args:
        package: the package's name, `barlow.objectives`. Its last word names the thing in messages.
        folder: its ``__path__``.
        kind: the name of the file.

    Raises:
        ValueError: there is no such file; the message names the nearest kind and all of them. Or the file does not name
            one dataclass.
    """
    known, folder_name = kinds(folder), package.rpartition(".")[2]
    if kind not in known:
        near = difflib.get_close_matches(kind, known, n=1)
        suggestion = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no {folder_name.removesuffix('s')} {kind!r}: {suggestion}There are {', '.join(known)}")
    module = importlib.import_module(f"{package}.{kind}")
    names = getattr(module, "__all__", [])
    found: Any = getattr(module, names[0], None) if len(names) == 1 else None
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise ValueError(
            f"{folder_name}/{kind}.py has __all__ = {list(names)}: let it name one class of the file, a frozen "
            "dataclass (CONTRIBUTING.md has an example)"
        )
    return found
