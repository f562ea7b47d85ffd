"""How large a checkpoint may be, from what it says of itself: asked before a file of gigabytes is read.

A stranger's checkpoint may be a sparse file: three gigabytes that take no space on a disk, and seconds and memory to
read. Its header says how long it is, and the recipe in its state.json says which network it is of.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from barlow import checkpoints, limits, objectives, storage
from barlow.exits import UnusableData
from barlow.nets.bounded import items_of
from barlow.nets.building import parameters_of
from barlow.printable import one_line

CUSTOM = "custom:"
"""What the names of networks and objectives that were given in Python begin with."""


def look(module: nn.Module | None = None) -> Callable[[Path], str | None]:
    """What `storage.damage_in` asks of the large files of a checkpoint.

    Args:
        module: the encoder, where it was given in Python. Nobody else knows how large it is: without it such a file is
            taken to be as large as it says.
    """

    def looked(file: Path) -> str | None:
        try:
            there = limits.tensors_in(file)
        except limits.TooLarge:
            raise
        except ValueError:
            return f"{file.name} is not as long as its header says"
        state = storage.read_json(file.with_name(checkpoints.STATE))
        recipe = state.get("recipe") if isinstance(state, dict) else {}
        if recipe is None:  # of the first release
            recipe = limits.read_yaml(file.parents[2] / "recipe.yaml")
        try:
            known, has_state = _known(recipe) if module is None else items_of(module), _has_state(recipe)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise UnusableData(
                f"{file.parent} is large, and names no network or objective that is known here ({one_line(error)})"
            ) from error
        if known is not None:
            own = {name: entry for name, entry in there.items() if not (has_state and _of_objective(name))}
            limits.check_items(file, own, known, "the network that its recipe names")
        return None

    return looked


def _known(recipe: Any) -> int | None:
    """How many numbers the encoder of a recipe has; None where nobody knows."""
    section, data = recipe["encoder"], recipe["data"]
    if section["name"].startswith(CUSTOM):
        return None
    return parameters_of(section["name"], len(data["mean"]), data["image_size"], section["options"])


def _of_objective(name: str) -> bool:
    """Whether a tensor is an objective's, or the optimizer's of one."""
    return name.startswith(("objective/", "optimizer/objective."))


def _has_state(recipe: Any) -> bool:
    """Whether the recipe's objective may have tables of its own, of any number of rows."""
    kind = str(recipe["objective"]["kind"])
    return kind.startswith(CUSTOM) or objectives.has_state(objectives.load(kind))
