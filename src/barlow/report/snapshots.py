"""What the monitor would have kept, of a run that was not monitored: from its checkpoint and its first weights."""

from itertools import pairwise
from typing import Any

import torch

from barlow import checkpoints
from barlow.checkpoints import Checkpoint
from barlow.data.fixed_views import FixedViews
from barlow.data.held_out import divided
from barlow.distributed import World
from barlow.exits import NoInput, UnusableData
from barlow.machine import available_cores
from barlow.nets import stored_size
from barlow.objectives.barlow_twins import BarlowTwins
from barlow.planning.plan import Plan
from barlow.recipe import schema
from barlow.recipe.changes import override
from barlow.recipe.schema import Recipe
from barlow.record import Record
from barlow.runs import finishing
from barlow.runs.identity import identity_of
from barlow.runs.run import Run
from barlow.telling import Say
from barlow.training.assembly import Given, build_learner
from barlow.training.monitor import DRAWS, Monitor
from barlow.training.step_log import StepLog
from barlow.views.pipeline import ViewPipeline

IMAGES = 500
BATCH = 100


def snapshots(run: Record, say: Say) -> list[dict[str, Any]]:
    """Lines as the monitor writes them: before the first step, and at the newest checkpoint.

    Raises:
        ValueError, OSError: there is no checkpoint, the images cannot be read, or the network was given in Python.
    """
    if (folder := checkpoints.whole(run.path, look=stored_size.look())) is None:
        raise NoInput("the run has no checkpoint")
    checkpoint = checkpoints.read(folder)
    recipe = schema.check(run.recipe)
    if (identity := identity_of(Run(run.path))) is not None:
        recipe = identity.located(recipe)
    own = finishing.of_recipe(recipe, run.path)
    start = run.path / "start"
    if recipe.encoder.init is not None and not start.is_dir():
        raise NoInput(f"the weights that it started from ({recipe.encoder.init}) are not in its folder")
    _check_heads(recipe, checkpoint)
    # Objective and rates have no part in what the networks make of an image, and are not built as the run had them.
    recipe = schema.check(override(recipe.as_dict(), {"optim.groups": []}))
    plan = plan_of(recipe, len(own.source))
    given = Given(objective=BarlowTwins(), start=start if start.is_dir() else None)
    learner = build_learner(plan, World(torch.device("cpu")), given=given)
    pipeline = ViewPipeline(recipe.build_views(), plan.mean, plan.std)
    workers = available_cores()
    trained, apart = divided(own.ids, recipe.seed, wanted=recipe.train.monitor_held_out)
    ids = apart if len(apart) else trained
    views = FixedViews(own.source, ids, pipeline, seed=recipe.seed, images=IMAGES, draws=DRAWS, workers=workers)
    if len(views) < 2:
        raise NoInput("fewer than two of the run's images can be read")
    say(f"reading {len(views)} of the run's images, as it was not monitored")
    log = StepLog(run.path / "monitor.jsonl", say)
    monitor = Monitor(log, learner, views, len(pipeline.views), BATCH, held_out=len(apart) > 0)
    found = [{"step": 0, **monitor.read()}]
    if checkpoint.step == 0:
        return found
    prefix = "method/"
    state = {name.removeprefix(prefix): t for name, t in checkpoint.tensors.items() if name.startswith(prefix)}
    learner.method.load_state_dict(state, strict=True)
    return [*found, {"step": checkpoint.step, **monitor.read()}]


def _check_heads(recipe: Recipe, checkpoint: Checkpoint) -> None:
    """Refuses heads that are larger than what the checkpoint holds: a stranger's recipe may name any width.

    The encoder has been compared with the checkpoint's header before it was read (`barlow.nets.stored_size`).
    """
    heads = [head["widths"] for head in recipe.method.values() if isinstance(head, dict) and "widths" in head]
    numbers = sum(a * b for widths in heads for a, b in pairwise(widths))
    if numbers > sum(tensor.numel() for tensor in checkpoint.tensors.values()):
        raise UnusableData(f"its recipe names heads of {numbers:,} weights, and its checkpoint holds fewer")


def plan_of(recipe: Recipe, candidates: int) -> Plan:
    """The plan that a resolved recipe is."""
    data: Any = recipe.data  # in which nothing is `auto`
    train: Any = recipe.train
    return Plan(
        recipe=recipe,
        channels=data.channels,
        image_size=data.image_size,
        centre_size=data.centre_size or data.image_size,
        working_size=data.working_size,
        executor=data.executor,
        workers=data.workers,
        mean=list(data.mean),
        std=list(data.std),
        value_range=data.value_range,
        batch_size=train.batch_size,
        precision=train.precision,
        stem=recipe.encoder.stem,
        candidates=candidates,
    )
