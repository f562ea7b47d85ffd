"""The run that a row of the papers' tables is read by: the same network, as long, trained with the labels."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from barlow import exits
from barlow.data.sources import FoldersOrName
from barlow.pretraining import pretrain
from barlow.printable import printable
from barlow.recipe.schema import CUSTOM
from barlow.runs.run import Run, load_recipe_text
from barlow.telling import unfailing

RECIPE, METHOD = "small_supervised", "classifier"

OF_THE_NETWORK = ("name", "stem", "zero_init_last", "options", "stages", "whiten")
"""What is taken from the run's `encoder`. Weights to start from are not: supervised training begins from scratch."""


def train_supervised(
    run: str | os.PathLike[str],
    train: FoldersOrName,
    out: str | os.PathLike[str],
    *,
    tell: Callable[[str], None] | None = None,
    progress: bool = False,
) -> Path:
    """Trains the network of a run with labels, for as many steps of as many images as the run has had.

    Views, optimizer and rate are those of the recipe `small_supervised`. A step of it has one view of each image, where
    most runs have two, so it takes about half the time. Where `out` already has this run, whole or in part, it is gone
    on with.

    Args:
        run: the run whose network and budget it gets.
        train: the images with labels, as for `pretrain`.
        out: the folder of the new run.
        tell, progress: as for `pretrain`.

    Returns:
        `out`.

    Raises:
        NoInput: `run` is no run.
        ValueError: its network cannot be built again, or the images have no labels. One line says what to do.
    """
    folder, say = Path(run), unfailing(tell)
    if not Run(folder).exists():
        raise exits.NoInput(
            f"{printable(str(folder))} is no run, so it has no network and no number of steps that supervised training "
            "could be given: name the run first"
        )
    recipe = load_recipe_text(folder / "recipe.yaml")
    section = recipe["encoder"]
    if str(section["name"]).startswith(CUSTOM):
        raise ValueError(
            f"{folder} trains a {section['name'].removeprefix(CUSTOM)} that was given in Python, which cannot be built "
            "again here: train it by barlow.pretrain(…, encoder=MODULE, recipe='small_supervised')"
        )
    if Run(Path(out)).exists() and load_recipe_text(Path(out) / "recipe.yaml").get("method", {}).get("kind") != METHOD:
        raise ValueError(
            f"{printable(str(out))} is a run of another kind: name a new folder for supervised training, or one that "
            "it has made"
        )
    data, budget = recipe["data"], recipe["train"]
    changes: dict[str, Any] = {f"encoder.{key}": section[key] for key in OF_THE_NETWORK}
    changes |= {f"data.{key}": data[key] for key in ("image_size", "centre_size", "channels", "max_bad")}
    changes |= {"train.batch_size": budget["batch_size"], "train.steps": budget["steps"], "seed": recipe["seed"]}
    say(f"supervised  {printable(str(out))}: the network of {printable(str(folder))}, {changes['train.steps']} steps")
    pretrain(train, out, recipe=RECIPE, overrides=changes, resume=True, progress=progress, tell=tell)
    return Path(out)
