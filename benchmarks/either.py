"""Finds what a program needs of the package under its name of today, or under the one it had in an older tree.

compare.py runs the programs of this checkout with the package of another one. When something that they use moves,
its new place is put before the old one here: `either("barlow.new:name", "barlow.old:name")`.
"""

import importlib
from typing import Any


def either(*places: str) -> Any:
    """The first of some places, "module:name", that exists.

    Raises:
        ImportError: none does.
    """
    for place in places:
        module, _, name = place.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ModuleNotFoundError, AttributeError):
            continue
    raise ImportError(f"none of {', '.join(places)} exists in the package that is imported here")
