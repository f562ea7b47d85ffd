"""How a run begins, and how one is gone on with: one command does either, whatever state its folder is in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from barlow import checkpoints, exits, storage, tables
from barlow.checkpoints import Checkpoint
from barlow.data.folder import printable
from barlow.distributed import World
from barlow.nets import stored_size
from barlow.planning import choices
from barlow.recipe import files, schema
from barlow.recipe.changes import override
from barlow.recipe.messages import RecipeError
from barlow.recipe.request import new_recipe, resumed_recipe
from barlow.recipe.schema import Recipe
from barlow.runs.identity import Identity, check_belongs, differences, identity_of
from barlow.runs.run import BrokenRun, NoRun, Run, RunFolderError, load_recipe_text
from barlow.telling import Say


class ChangedImages(RecipeError):
    """The images are not those that a run began with."""

    exit_code = exits.DATA


@dataclass(frozen=True)
class Begun:
    """A run as a command finds it."""

    recipe: Recipe
    """Of a new run as it was asked for; of one that is gone on with, as it is resolved."""
    identity: Identity
    resumed: bool
    budget: dict[str, Any] = field(default_factory=dict)
    """What was asked for that makes it longer; see `barlow.recipe.request.Resumed`."""
    spaced: bool = False
    """Whether its log is spaced by its length, as nobody has asked for a spacing: neither a flag nor a file."""

    def differences(self, environment: Mapping[str, Any]) -> list[str]:
        """A line for each thing about the machine that changed since the last start."""
        return differences(self.identity.starts[-1], environment) if self.identity.starts else []

    def with_start(self, recipe: dict[str, Any], step: int, environment: Mapping[str, Any]) -> "Begun":
        """The same, one start later, with the recipe that it has from here on."""
        identity, steps = self.identity, recipe["train"]["steps"]
        if self.resumed and (before := identity.recipe["train"]["steps"]) != steps:
            extension = {"at_step": step, "steps_before": before, "steps": steps, "schedule": recipe["schedule"]}
            identity = replace(identity, extensions=[*identity.extensions, extension])
        return replace(self, identity=replace(identity, recipe=recipe).started(step, environment))


def of(run: Run, name: str | None, changes: Mapping[str, Any], *, resume: bool) -> Begun:
    """What a command is about: the run in a folder, or a new one.

    Args:
        run: the folder.
        name: of a recipe, if one was named.
        changes: what else was asked for, as dotted keys.
        resume: whether to go on with what is there.

    Raises:
        ValueError: the run cannot be gone on with like that, or no images are named for a new one.
    """
    if not (resume and run.exists()):
        chosen = new_recipe(name, changes)
        if not chosen.data.sources:
            why = f"there is no run in {run.path} to go on with, and no images are named to begin one" if resume else ""
            raise (NoRun if resume else RecipeError)(
                f"{why or 'no images are named'}; give a folder, or the name of a set (`barlow list datasets`)"
            )
        spaced = "train.log_steps" not in changes and (name is None or name in files.names())
        return Begun(chosen, Identity.new(chosen), resumed=False, spaced=spaced)
    run.check_lengths()
    identity = identity_of(run)
    asked = None if identity is None else identity.asked
    if identity is None:  # of the first release, or its run.json was removed
        recipe = load_recipe_text(run.path / "recipe.yaml")
        identity = Identity(asked=recipe, recipe=schema.check(recipe).as_dict())
        if (known := _id_in_checkpoints(run)) is not None:
            identity = replace(identity, run=known)
    resumed = resumed_recipe(asked, identity.recipe, name, changes)
    return Begun(identity.located(resumed.recipe), identity, resumed=True, budget=resumed.budget)


def check_unchanged(begun: Begun, run: Run, *, overwrite: bool, resume: bool) -> None:
    """Looks again, now that no other process can change the run: another one may have done so since `of` looked.

    Raises:
        RunFolderError: it has.
    """
    if not begun.resumed:
        run.check_replaceable(overwrite=overwrite, resume=resume)
    elif not run.exists() or identity_of(run) not in (None, begun.identity):
        raise RunFolderError(f"--out {run.path}: another process has just changed the run; give the command again")


def _id_in_checkpoints(run: Run) -> str | None:
    """The id that the newest checkpoint carries, if there is one and it does."""
    newest = checkpoints.whole(run.path, look=stored_size.look())
    return None if newest is None else checkpoints.state_of(newest).get("run")


def checkpoint_of(
    begun: Begun, run: Run, world: World, report: Mapping[str, Any], say: Say, given: nn.Module | None = None
) -> Checkpoint | None:
    """The state that a run is gone on from; None for a new one.

    Args:
        begun: what the command is about.
        run, world: where.
        report: what was found of the images this time.
        say: told what is damaged, and where the run goes on.
        given: the encoder, if it was given in Python.

    Raises:
        ChangedImages: the images are others.
        BrokenRun: there is no whole checkpoint, or it does not belong to the run.
    """
    if not begun.resumed:
        return None
    checkpoint, look = None, stored_size.look(given)
    if world.main:
        _check_same_data(run, report)
        # Damaged ones are set aside meanwhile, so the other processes look after the main one.
        checkpoint, notes = checkpoints.newest(run.path, look)
        for note in notes:
            say(note)
        if checkpoint is None:
            _check_fresh(run)
        else:
            check_belongs(run, begun.identity, checkpoint)
    if world.share(str(checkpoint.step) if checkpoint else "none") != "none" and not world.main:
        checkpoint, _ = checkpoints.newest(run.path, look)
    say(f"resumed at step {checkpoint.step}" if checkpoint else "no checkpoint yet; starting from step 0")
    return checkpoint


def _check_fresh(run: Run) -> None:
    """Refuses to begin at step 0 again where there is something to lose."""
    logged = [row["step"] for row in run.metrics()]
    if logged or (run.path / "encoder").is_dir():
        there = f"a log up to step {logged[-1]}" if logged else "an encoder"
        raise BrokenRun(
            f"{run.path} has {there} and no checkpoint: they were removed, so it cannot be gone on with. Put them "
            "back, use its encoder as it is, or start anew with --overwrite"
        )


_OF_IMAGES = {
    "usable": "number of usable images",
    "fingerprint": "names or sizes",
    "contents": "contents",
    "whole_contents": "contents",
    "captions": "captions",
}
"""What data.json says of the images that must stay as it is. Runs of earlier versions lack some of it. Whether files
were read whole depends on where the images were held."""


def _check_same_data(run: Run, report: Mapping[str, Any]) -> None:
    try:
        before = tables.checked(storage.read_sealed(run.path / "data.json"), run.path / "data.json")
    except FileNotFoundError as error:
        raise BrokenRun(f"{run.path} has no data.json, which says what its images were; put it back") from error
    for key, what in _OF_IMAGES.items():
        if None not in (before.get(key), report.get(key)) and before[key] != report[key]:
            raise ChangedImages(
                f"the images have changed since {run.path} began, in their {what} ({before['usable']} usable then, "
                f"{report['usable']} now); --resume needs the same images, all as readable as then. Restore them, or "
                "start a new run"
            )


def steps_of(begun: Begun, steps_per_epoch: int, seconds: Callable[[], float]) -> int | None:
    """How many steps a larger budget means; None where none was asked for.

    Minutes are those of the first start, for a run that began with minutes: twice the minutes are twice the steps.
    """
    steps, epochs, minutes = (begun.budget.get(f"train.{unit}") for unit in ("steps", "epochs", "minutes"))
    if steps is not None:
        return int(steps)
    if epochs is not None:
        return max(1, round(epochs * steps_per_epoch))
    if minutes is None:
        return None
    first = begun.identity.asked["train"].get("minutes")
    begun_with = (begun.identity.extensions or [{"steps_before": begun.identity.recipe["train"]["steps"]}])[0]
    return round(begun_with["steps_before"] * minutes / first) if first else max(1, int(60 * minutes / seconds()))


def of_length(begun: Begun, recipe: Recipe, steps: int) -> Recipe:
    """The recipe of a new run of so many steps, whose log has a line as often as that length asks for."""
    often = choices.log_steps(recipe.train.log_steps, steps) if begun.spaced else recipe.train.log_steps
    return schema.check(override(recipe.as_dict(), {"train.steps": steps, "train.log_steps": often}))


def extended(recipe: Recipe, steps: int | None, budget: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The changes of a recipe that make a run longer, and a line on what becomes of the rate.

    Raises:
        RecipeError: the run would become shorter.
    """
    before, scheduled = recipe.train.steps, budget.get("schedule.steps")
    assert before is not None
    if steps is None or steps == before:
        # The command that has stretched the schedule may be repeated: a schedule is no longer than its run.
        if scheduled is not None and min(scheduled, before) != (recipe.schedule.steps or before):
            raise RecipeError(f"schedule.steps {scheduled} goes with a larger budget, such as --steps {2 * before}")
        return {}, []
    if steps < before:
        raise RecipeError(
            f"the run has {before} steps and {steps} are asked for; --resume can make a run longer, not shorter"
        )
    length = scheduled or recipe.schedule.steps or before
    if length >= steps:
        kept, why = None, f"its schedule is stretched over all {steps} from here on"
    else:
        kept, why = (
            length,
            f"after step {length} the rate stays as the schedule ends (--schedule.steps {steps} stretches it)",
        )
    return {"train.steps": steps, "schedule.steps": kept}, [f"steps {steps}: extended from {before}; {why}"]


def check_space(run: Run) -> None:
    """Refuses a run whose checkpoints will not fit, as soon as the first of them says how large they are.

    Raises:
        CannotCreate: with how much is needed, and free. What was written of the run is removed.
    """
    size = sum(path.stat().st_size for folder in checkpoints.folders(run.path).values() for path in folder.iterdir())
    needed, free = checkpoints.KEPT * size, storage.free_bytes(run.path)
    if free is not None and free < needed:
        run.clear()
        raise storage.CannotCreate(
            f"{run.path} needs about {(needed + size) / 1e6:.0f} MB for checkpoints, and {free / 1e6:.0f} MB are free: "
            "free some space, or choose another --out"
        )


def write_recipe(run: Run, recipe: Recipe) -> None:
    """Writes recipe.yaml, unless it says the same already."""
    path = run.path / "recipe.yaml"
    what = f"{recipe.objective['kind']} on {', '.join(map(printable, recipe.data.sources))}, seed {recipe.seed}."
    header = f"# barlow pretrain -c recipe.yaml --out ANOTHER_FOLDER repeats this run. {what}\n"
    text = files.as_yaml(recipe.as_dict(), header)
    if not path.exists() or path.read_text(encoding="utf-8", errors="surrogateescape") != text:
        storage.write_text(path, text)
