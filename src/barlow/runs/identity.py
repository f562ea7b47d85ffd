"""Who a run is: an id, what was asked for, its recipe, and each of its starts. All of it is in run.json, sealed.

Every checkpoint carries the id and the recipe too. So another run's checkpoints, a recipe that was edited by hand and a
flipped bit are told from the run itself, and the key that differs is named.
"""

import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from barlow import storage, tables
from barlow.checkpoints import Checkpoint
from barlow.data.sources import named_set
from barlow.exits import UnusableData
from barlow.recipe.changes import flat, override
from barlow.recipe.request import FREE_ON_RESUME
from barlow.recipe.schema import Recipe, check
from barlow.runs.run import BrokenRun, Run, load_recipe_text

FILE = "run.json"
FORMAT = 1

NOT_FIXED = (*FREE_ON_RESUME, "train.steps", "schedule.steps")
"""Keys of the recipe that a run may change while it stays the same run: it can be made longer."""


@dataclass(frozen=True)
class Identity:
    """What run.json holds."""

    asked: dict[str, Any]
    """The recipe as it was asked for, before its `auto` was resolved."""
    recipe: dict[str, Any]
    """The resolved recipe, as in recipe.yaml."""
    folders: dict[str, str] = field(default_factory=dict)
    """Folders of images as the recipe names them, and their whole paths: a run is gone on with from anywhere."""
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    starts: list[dict[str, Any]] = field(default_factory=list)
    """Of each start the step that it began with, and what `barlow.machine.environment` says."""
    extensions: list[dict[str, Any]] = field(default_factory=list)
    """Each time that the run was made longer: the steps before and after."""

    @property
    def mark(self) -> dict[str, Any]:
        """What every checkpoint carries."""
        return {"run": self.run, "recipe": self.recipe}

    @classmethod
    def new(cls, asked: Recipe) -> "Identity":
        """Of a run that begins."""
        folders = {source: os.path.abspath(source) for source in asked.data.sources if not named_set(source)}
        return cls(asked=asked.as_dict(), recipe={}, folders=folders)

    def located(self, recipe: Recipe) -> Recipe:
        """The recipe with its folders where they are, whatever the current folder is."""
        found = [self._place(source) for source in recipe.data.sources]
        return check(override(recipe.as_dict(), {"data.sources": found}))

    def _place(self, source: str) -> str:
        whole = self.folders.get(source)
        return source if whole is None or os.path.abspath(source) == whole or not os.path.isdir(whole) else whole

    def started(self, step: int, environment: Mapping[str, Any]) -> "Identity":
        """The same with another start."""
        return replace(self, starts=[*self.starts, {"step": step, **environment}])

    def write(self, run: Run) -> None:
        """Writes run.json."""
        storage.write_sealed(run.path / FILE, {"format": FORMAT, **asdict(self)})


def identity_of(run: Run) -> Identity | None:
    """What run.json says; None where there is none, as in runs of the first release.

    Raises:
        BrokenRun: it was changed, or recipe.yaml differs from it.
    """
    path = run.path / FILE
    try:
        content = tables.checked(storage.read_sealed(path), path, FORMAT)
    except FileNotFoundError:
        return None
    except UnusableData as error:
        raise BrokenRun(
            f"{error}. Restore it, or delete it: the run then goes on by its recipe.yaml and its checkpoints"
        ) from error
    form = content.pop("format", None)
    if not isinstance(form, int) or form > FORMAT:
        raise storage.Newer(f"{path} has format {form}, and this barlow reads up to {FORMAT}: upgrade it")
    try:
        identity = Identity(**content)
    except TypeError as error:
        raise BrokenRun(f"{path} is incomplete: {error}") from error
    _check_recipe_file(run, identity)
    return identity


def _check_recipe_file(run: Run, identity: Identity) -> None:
    """Refuses a recipe.yaml that was changed by hand, and names the key."""
    path = run.path / "recipe.yaml"
    for key, before, now in _differences(identity.recipe, load_recipe_text(path)):
        raise BrokenRun(
            f"{path} was changed after the run began: {key} is {now} there, and the run has {before}. Undo that to "
            f"go on, or start another run with it: barlow pretrain -c {path} --out ANOTHER_FOLDER"
        )


def check_belongs(run: Run, identity: Identity | None, checkpoint: Checkpoint) -> None:
    """Refuses a checkpoint of another run, or of another recipe.

    Raises:
        BrokenRun: with both ids, or the key that differs.
    """
    state, place = checkpoint.state, f"{run.path} at step {checkpoint.step}"
    if identity is not None and state.get("run") not in (None, identity.run):
        raise BrokenRun(
            f"the checkpoint in {place} is of another run ({str(state['run'])[:8]}, and this one is "
            f"{identity.run[:8]}): put the run's own back, or start anew with --overwrite"
        )
    recipe = load_recipe_text(run.path / "recipe.yaml") if identity is None else identity.recipe
    for key, before, now in _differences(state.get("recipe") or recipe, recipe):
        raise BrokenRun(
            f"the checkpoint in {place} was made with {key} {before}, and the run's recipe has {now}: put that "
            "back, or start another run"
        )


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Keys of which a run has one value for ever, where two recipes have different ones, with both as text."""
    first, second = flat(one), flat(other)
    for key in {**first, **second}:
        if key not in NOT_FIXED and first.get(key) != second.get(key):
            yield key, *_shown(first.get(key), second.get(key))


SHOWN = 80
"""Characters of a value that are shown where two of them differ."""


def _shown(one: Any, other: Any) -> tuple[str, str]:
    """Two values that differ, as text; of long ones the part where they do."""
    texts = repr(one), repr(other)
    if max(map(len, texts)) <= SHOWN:
        return texts
    alike = next((i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), 0)
    start = max(0, alike - SHOWN // 2)
    first, second = (
        "…" * (start > 0) + text[start : start + SHOWN] + "…" * (start + SHOWN < len(text)) for text in texts
    )
    return first, second


TOLD = ("versions", "device", "processes", "hardware")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each thing about the machine that is not as it was when the run was last started."""
    first, second = (flat({key: start.get(key) for key in TOLD}) for start in (before, now))
    return [
        f"machine  {key.removeprefix('versions.').removeprefix('hardware.')}: {first[key]} before, {second[key]} now; "
        "the run goes on, and its last digits may differ from those of an undisturbed one"
        for key in first
        if key in second and first[key] != second[key]
    ]
