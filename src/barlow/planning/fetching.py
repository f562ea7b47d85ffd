"""What a run would have to fetch from the network, and whether a user has asked for that.

A name on the command line, an argument in Python and a recipe that ships ask for what they name. A file does not: a
stranger's recipe or run could name anything. Nor does a run that is gone on with, or evaluated, ask for what it once
used.
"""

from collections.abc import Mapping
from typing import Any

from barlow.data.sources import missing_set
from barlow.nets.origin import missing_weights
from barlow.recipe.schema import Recipe


def check_asked(chosen: Recipe, changes: Mapping[str, Any], *, shipped: bool, start_kept: bool) -> None:
    """Refuses a run that would fetch what only a file names.

    Args:
        chosen: the recipe, its changes included.
        changes: what was asked for, as dotted keys.
        shipped: whether the recipe is one of those that ship.
        start_kept: whether a run that is gone on with has kept the weights that it started from.

    Raises:
        ValueError: one line says what is missing, and how to ask for it.
    """
    if shipped:
        return
    for source in [] if "data.sources" in changes else chosen.data.sources:
        if (name := missing_set(source)) is not None:
            raise ValueError(
                f"the recipe names {name}, which is not here and would be downloaded, and a file does not decide that: "
                f"name it yourself to ask for it (barlow pretrain {name} with the rest of the command; in Python "
                f"data={name!r})"
            )
    init = chosen.encoder.init
    if init is not None and "encoder.init" not in changes and not start_kept and missing_weights(init):
        raise ValueError(
            f"the recipe starts from {init}, which is not here and would be downloaded, and a file does not decide "
            f"that: name it yourself to ask for it (--init {init})"
        )
