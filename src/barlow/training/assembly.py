"""From a plan to a learner: networks with their first weights, the objective, the optimizer. And the time of a step."""

import contextlib
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from barlow.data.loader import MemoryLoader, StreamingLoader
from barlow.data.without_views import without_views
from barlow.distributed import World, synchronize
from barlow.nets import building, weights
from barlow.nets.expected import IMAGENET
from barlow.nets.handed_out import freeze_stages
from barlow.nets.norms import fix_statistics
from barlow.nets.seeding import derived
from barlow.nets.stems import LAB
from barlow.optim.optimizers import build_optimizer, has_fused_kernels
from barlow.planning.plan import Plan
from barlow.recipe.messages import RecipeError
from barlow.recipe.schema import CUSTOM
from barlow.training.learner import Learner, named_parameters
from barlow.training.train import Course, train
from barlow.training.watchers import Moment

Loader = MemoryLoader | StreamingLoader
Say = Callable[[str], None]


@dataclass(frozen=True)
class Given:
    """Modules and objectives that were given in Python, and that no recipe can name. Modules are copied before use."""

    encoder: nn.Module | None = None
    objective: Any = None
    start: Path | None = None
    """Where a resumed run keeps the weights that it started from. What `encoder.init` names may be gone by then."""

    def copied(self) -> "Given":
        """For a use that must leave no trace."""
        return replace(self, objective=copy.deepcopy(self.objective))


def build_learner(
    plan: Plan, world: World, loader: Loader | None = None, given: Given | None = None, say: Say = lambda line: None
) -> Learner:
    """Networks, objective and optimizer: a function of the plan (and of what it names or was given) alone.

    Args:
        plan: what to build.
        world: the processes, each of which builds the same.
        loader: of the images, for objectives that look at all of them before an epoch.
        given: modules given in Python. They are copied.
        say: told where the weights start.
    """
    recipe, given = plan.recipe, given or Given()
    method = recipe.build_method().build(partial(_new_encoder, plan, given, say), recipe.seed)
    if not isinstance(getattr(method, "encoder", None), nn.Module):
        raise ValueError(
            f"the method {recipe.method['kind']} has no network `encoder`, which the run is to keep; add it"
        )
    objective = plan.new_objective(given.objective)
    layout = torch.channels_last if recipe.train.channels_last else torch.contiguous_format
    method.to(device=world.device, memory_format=layout)
    if isinstance(objective, nn.Module):
        objective.to(world.device)
    optim, batch = recipe.optim, plan.batch_size
    optimizer = build_optimizer(
        named_parameters(method, objective),
        kind=optim.kind,
        lr=optim.peak(batch),
        vectors_lr=optim.vectors_peak(batch),
        weight_decay=optim.weight_decay,
        exclude_1d=optim.exclude_1d,
        momentum=optim.momentum,
        betas=optim.betas,
        eps=optim.eps,
        trust=optim.trust,
        clip=optim.clip,
        rate_in_momentum=optim.rate_in_momentum,
        rules=optim.groups,
        fused=has_fused_kernels(optim.kind, world.device),
    )
    return Learner(
        method,
        objective,
        optimizer,
        world,
        precision=plan.precision,
        seed=recipe.seed,
        loss_weight=optim.loss_weight,
        rows_in_memory=recipe.train.rows_in_memory,
        activation_checkpointing=recipe.train.activation_checkpointing,
        all_rows=None if loader is None else loader.all_rows,
    )


def _new_encoder(plan: Plan, given: Given, say: Say, part: str = "encoder", **changes: Any) -> tuple[nn.Module, int]:
    """An encoder with its first weights, and how many features it has; see `barlow.methods.NewEncoder`."""
    section = plan.recipe.encoder
    other_network = bool(changes)
    if given.encoder is not None and not other_network:
        encoder = copy.deepcopy(given.encoder)
    elif section.name.startswith(CUSTOM) and not other_network:
        raise RecipeError(f"the encoder is {section.name}: pass the module in Python, pretrain(encoder=...)")
    else:
        _check_plain(plan, str(changes.get("name", section.name)))
        encoder = building.build_encoder(
            **({"name": section.name} | section.built | changes),
            in_channels=plan.channels,
            image_size=plan.image_size,
            seed=plan.recipe.seed if part == "encoder" else derived(plan.recipe.seed, part),
        )
    if not other_network:  # what the recipe says of given weights is about its own network
        if section.init is not None:
            told = weights.initialise(encoder, given.start or section.init)
            if part == "encoder":
                say(f"start    {told}")
                if told.recognised and tuple(plan.mean) == IMAGENET.mean:
                    say(
                        "         its images are taken to have been normalised by ImageNet's mean and deviation; if "
                        "they were not, set --data.mean and --data.std"
                    )
        freeze_stages(encoder, section.frozen_stages)
        if section.fixed_norms:
            fix_statistics(encoder)
    return encoder, building.feature_width(encoder, plan.channels, plan.image_size)


def _check_plain(plan: Plan, name: str) -> None:
    """Refuses a network that turns colours into Lab itself, and would be given what is no colour any more."""
    if name.startswith(LAB) and (any(plan.mean) or any(std != 1 for std in plan.std)):
        raise RecipeError(
            f"{name} takes RGB from 0 to 1, and data.mean and data.std are {list(plan.mean)} and {list(plan.std)}: set "
            "--data.mean '[0, 0, 0]' --data.std '[1, 1, 1]'"
        )


MEASURED_SECONDS = 1.5
MEASURED_STEPS = (3, 30)
"""Steps that are left out (kernels are chosen, memory is touched for the first time), and at most counted."""


def seconds_per_step(throwaway: Learner, loader: Loader) -> float:
    """The time of a step, over the first steps of a learner that is thrown away, with its share of an objective's looks
    at all images: as if there were one an epoch, also where it looks at times of its own.

    The run itself is built anew from its seed afterwards, so measuring leaves no trace in it.
    """
    warm, most = MEASURED_STEPS
    world, times = throwaway.world, []

    def count(moment: Moment) -> None:
        synchronize(world.device)
        times.append(time.monotonic())
        if world.any(len(times) > warm + 2 and times[-1] - times[warm] > MEASURED_SECONDS):
            raise StopIteration

    with throwaway.training():
        began = time.monotonic()
        throwaway.look(0, 0.5, len(loader.pipeline.views), begins_epoch=True)
        synchronize(world.device)
        look = time.monotonic() - began
    throwaway.looking = False
    held = throwaway.method.holds_features
    stream = without_views(loader, 0, warm + most) if held else loader.stream(0, warm + most)
    with contextlib.closing(stream), contextlib.suppress(StopIteration):  # type: ignore[type-var]
        train(throwaway, stream, Course(warm + most, 1e-6, lambda step, total: 1.0), [count])
    return (times[-1] - times[warm]) / (len(times) - 1 - warm) + look / loader.steps_per_epoch
